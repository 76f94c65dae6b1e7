"""Tests of a model: verifiers trained on training rows, and all figures of metrics.json."""

from msvae.evaluation.evaluate import evaluate_model
from msvae.evaluation.extent import Extent
from msvae.evaluation.yardstick import Yardstick, make_yardstick

__all__ = ["Extent", "Yardstick", "evaluate_model", "make_yardstick"]
