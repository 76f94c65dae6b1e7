"""Comparisons under one budget: quality on test rows, and the speed of a training step."""
