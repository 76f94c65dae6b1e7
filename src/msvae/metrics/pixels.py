"""Image quality against a known truth, by torchmetrics: PSNR and SSIM, means over rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from msvae.source import Source

SMALLEST_FOR_SSIM = 8
BEST_PSNR = 100.0  # dB, of images without any error


@dataclass(frozen=True)
class PixelQuality:
    """How near images are to their truth, means over rows.

    Args:
        psnr: dB, at most 100; None for class numbers.
        ssim: in [-1, 1]; None for class numbers, vectors and images of less than 8 pixels.
        accuracy: share of right pixels, for class numbers alone.
    """

    psnr: float | None = None
    ssim: float | None = None
    accuracy: float | None = None


def nearness(
    images: Float[Tensor, "rows *shape"], truth: Float[Tensor, "rows *shape"], source: Source
) -> Float[Tensor, " rows"]:
    """PSNR of every image (dB, at most 100); of class numbers the share of right pixels."""
    if source.categories is not None:
        return (images.round() == truth.round()).flatten(1).float().mean(dim=1)
    images, truth = source.normalise(images), source.normalise(truth)
    dimensions = tuple(range(1, truth.dim()))
    psnr = peak_signal_noise_ratio(images, truth, data_range=1.0, reduction="none", dim=dimensions)
    return psnr.reshape(len(truth)).clamp(max=BEST_PSNR)


def pixel_quality(
    images: Float[Tensor, "rows *shape"], truth: Float[Tensor, "rows *shape"], source: Source
) -> PixelQuality:
    """Images against the truth, both in the source's value range, with that range as the peak."""
    near = float(nearness(images, truth, source).mean())
    if source.categories is not None:
        return PixelQuality(accuracy=near)
    if not source.is_image or min(source.shape[1:]) < SMALLEST_FOR_SSIM:
        return PixelQuality(near)
    images, truth = source.normalise(images), source.normalise(truth)
    deviation = 1.5 if min(source.shape[1:]) >= 16 else 0.7  # the usual 11-pixel window does not fit tiny images
    ssim = structural_similarity_index_measure(images, truth, sigma=deviation, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return PixelQuality(near, float(ssim))


def joined_quality(parts: Sequence[tuple[PixelQuality, int]]) -> PixelQuality:
    """The quality of all rows from that of parts of them, each with its number of rows."""

    def mean(figure: str) -> float | None:
        known = [(getattr(quality, figure), rows) for quality, rows in parts if getattr(quality, figure) is not None]
        return sum(value * rows for value, rows in known) / sum(rows for _, rows in known) if known else None

    return PixelQuality(mean("psnr"), mean("ssim"), mean("accuracy"))
