"""Comparisons under one budget: quality on test rows, and the speed of a training step."""

from msvae.benchmarking.calibration import Calibration
from msvae.benchmarking.quality import Comparison, compare
from msvae.benchmarking.results import Results

__all__ = ["Calibration", "Comparison", "Results", "compare"]
