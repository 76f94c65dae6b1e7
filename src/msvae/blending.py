"""Fusion in image space: several images made into one, by weights. The plain baseline of fusion in latent space.

All functions take normalised images of equal shape, (sources, rows, channels, height, width), and one weight >= 0 per
source; only the ratios of the weights count. Weight 0 removes a source exactly; a one-hot weight returns its image.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SALIENCE_POWER = 2.0

Images = Float[Tensor, "sources rows channels height width"]
Blend = Float[Tensor, "rows channels height width"]


def weighted_mean(images: Images, weights: Float[Tensor, " sources"]) -> Blend:
    """sum_m a_m x_m with the weights scaled to sum to 1: a double exposure."""
    share = weights / weights.sum()
    return torch.einsum("s,sbchw->bchw", share, images)


def pyramid_blend(images: Images, weights: Float[Tensor, " sources"]) -> Blend:
    """Multi-band blend: in each band of a Laplacian pyramid the sources with the stronger detail there prevail.

        band = sum_m w_m band_m,  w_m ~ a_m (local energy of band_m);  the coarsest band is a plain weighted mean

    With weights alone, and no salience, a multi-band blend would be the weighted mean again (the pyramid is linear).
    There are as many bands as halvings leave 4 pixels. Source: Burt & Adelson 1983; salience after Burt & Kolczynski
    1993.
    """
    kept = weights > 0
    images, weights = images[kept], weights[kept]
    if len(images) == 1:
        return images[0]
    sources, rows = images.shape[:2]
    height, width = images.shape[-2:]
    levels = max(1, (min(height, width) // 4).bit_length() - 1)
    flat = images.flatten(0, 1)
    bands, sizes = [], []
    for _ in range(levels):
        coarse = _reduced(flat)
        sizes.append((flat.shape[-2], flat.shape[-1]))
        bands.append(flat - _expanded(coarse, sizes[-1]))
        flat = coarse
    blended = weighted_mean(flat.unflatten(0, (sources, rows)), weights)
    for band, size in zip(reversed(bands), reversed(sizes), strict=True):
        layered = band.unflatten(0, (sources, rows))
        energy = _smoothed(band.abs().mean(dim=1, keepdim=True)).unflatten(0, (sources, rows))
        salience = weights.view(-1, 1, 1, 1, 1) * (energy.pow(SALIENCE_POWER) + 1e-8)
        share = salience / salience.sum(dim=0, keepdim=True)
        blended = _expanded(blended, size) + (share * layered).sum(dim=0)
    return blended.clamp(0, 1)


def _kernel(like: Tensor) -> Tensor:
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=like.device, dtype=like.dtype) / 16
    return torch.outer(row, row)


def _smoothed(maps: Tensor) -> Tensor:
    """Binomial 5x5 smoothing of each channel, edges repeated."""
    channels = maps.shape[1]
    padded = F.pad(maps, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(padded, _kernel(maps).expand(channels, 1, 5, 5), groups=channels)


def _reduced(maps: Tensor) -> Tensor:
    return _smoothed(maps)[..., ::2, ::2]


def _expanded(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


BLENDS = {"mean": weighted_mean, "pyramid": pyramid_blend}
