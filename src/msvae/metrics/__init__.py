"""How good a model is: pixels, coherence, Fréchet distance, retrieval, linear probes, and the spread of draws."""

from msvae.metrics.coherence import (
    Verdict,
    class_entropy,
    conditional_coherence,
    joint_coherence,
    within_class_variance,
)
from msvae.metrics.frechet import Moments, frechet_distance, frechet_of_moments
from msvae.metrics.local_fit import local_fit
from msvae.metrics.pixels import PixelQuality, joined_quality, nearness, pixel_quality
from msvae.metrics.probe import linear_probe
from msvae.metrics.retrieval import Retrieval, retrieval
from msvae.metrics.spread import correlation_of_deviations, spread_to_error

__all__ = [
    "Moments",
    "PixelQuality",
    "Retrieval",
    "Verdict",
    "class_entropy",
    "conditional_coherence",
    "correlation_of_deviations",
    "frechet_distance",
    "frechet_of_moments",
    "joined_quality",
    "joint_coherence",
    "linear_probe",
    "local_fit",
    "nearness",
    "pixel_quality",
    "retrieval",
    "spread_to_error",
    "within_class_variance",
]
