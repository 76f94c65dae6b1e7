"""How good a model is: pixels, coherence, Fréchet distance, linear probes."""

from msvae.metrics.coherence import (
    Verdict,
    class_entropy,
    conditional_coherence,
    joint_coherence,
    within_class_variance,
)
from msvae.metrics.frechet import frechet_distance
from msvae.metrics.pixels import PixelQuality, pixel_quality
from msvae.metrics.probe import linear_probe

__all__ = [
    "PixelQuality",
    "Verdict",
    "class_entropy",
    "conditional_coherence",
    "frechet_distance",
    "joint_coherence",
    "linear_probe",
    "pixel_quality",
    "within_class_variance",
]
