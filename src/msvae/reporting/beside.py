"""Another run on the same data beside a report's own: the figures that stand for the whole, and generated rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from msvae.reporting import page
from msvae.reporting.tables import compared_rows
from msvae.training.opening import Run


def beside_section(
    run: Run,
    figures: Mapping[str, Any] | None,
    other: Run,
    other_figures: Mapping[str, Any],
    strips: Sequence[str],
) -> str:
    """A table of both runs' figures on test rows, and rows that the other one generates.

    Args:
        figures: of the report's own run; None where it has not been tested.
        strips: rows that the other one generates, drawn.
    """
    names = [f"{entry.config.model.method} ({entry.folder.state().seconds:.0f} s)" for entry in (run, other)]
    rows = [list(row) for row in compared_rows([figures, other_figures])]
    return page.section(
        f"Beside it: {other.config.model.method}",
        "Both on the same test rows, with their seconds of training; then rows that the second one generates.",
        page.table(["", *names], rows),
        *strips,
    )
