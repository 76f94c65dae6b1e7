"""Image quality against a known truth, by torchmetrics: PSNR and SSIM, means over rows."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from msvae.source import Source


@dataclass(frozen=True)
class PixelQuality:
    """PSNR in dB, and SSIM in [-1, 1] (None for vectors, which have no neighbourhoods)."""

    psnr: float
    ssim: float | None


def pixel_quality(
    images: Float[Tensor, "rows *shape"], truth: Float[Tensor, "rows *shape"], source: Source
) -> PixelQuality:
    """How near images come to the truth; both in the source's value range, compared with that range as the peak."""
    images, truth = source.normalise(images), source.normalise(truth)
    dimensions = tuple(range(1, truth.dim()))
    psnr = peak_signal_noise_ratio(images, truth, data_range=1.0, reduction="elementwise_mean", dim=dimensions)
    if not source.is_image:
        return PixelQuality(float(psnr), None)
    deviation = 1.5 if min(source.shape[1:]) >= 16 else 0.7  # the usual 11-pixel window does not fit tiny images
    ssim = structural_similarity_index_measure(images, truth, sigma=deviation, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return PixelQuality(float(psnr), float(ssim))
