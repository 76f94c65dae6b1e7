"""Tests of a model: verifiers trained on training rows, and all figures of metrics.json."""

from msvae.evaluation.evaluate import evaluate_model

__all__ = ["evaluate_model"]
