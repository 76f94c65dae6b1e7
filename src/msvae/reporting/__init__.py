"""What people look at: tables in the terminal, contact sheets, and the HTML report."""

from msvae.reporting.report import write_report

__all__ = ["write_report"]
