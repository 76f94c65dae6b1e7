"""The noise that no image of a source is free of (of a sensor, a film, a radar), which latents cannot hold.

Expected images lack it, and look too smooth beside real ones; samples are given it back. It is measured where least is
left after reconstruction: what is left even there is noise, not structure that the autoencoder missed. A source with
clean areas, such as a drawing, has none. The least is rather too little: of white noise it has 3/4 of the deviation, of
noise that is coarser than pixels less, since its coarse part varies most from tile to tile.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from msvae.likelihoods import CONTINUOUS
from msvae.source import Source

TILE = 8
SMOOTHEST = 0.002  # share of the tiles that are taken for free of structure
FEWEST, MOST = 32, 4096  # tiles that a spectrum is measured on
FAINTEST = 0.5 / 255  # half a step of an 8-bit image, in units of the value range: below it, nothing is noise


class Grain(nn.Module):
    """Stationary Gaussian noise of each source, with the spectrum of its smoothest residuals.

    After noise level estimation from the smoothest blocks of an image: Pyatykh et al. 2013 (doi
    10.1109/TIP.2012.2221728).

    Args:
        sources: those that are images with a continuous likelihood can have grain.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__()
        self.ranges = {s.name: s.value_range for s in sources if s.is_image and s.likelihood in CONTINUOUS}
        for source in sources:
            if source.name in self.ranges:
                tile = (min(TILE, source.shape[1]), min(TILE, source.shape[2]))
                kernel = torch.zeros(source.shape[0], source.shape[0], *tile)
                self.register_buffer(f"kernel_of_{source.name}", kernel)

    def has(self, name: str) -> bool:
        """Whether the source has any."""
        return name in self.ranges and bool(self.get_buffer(f"kernel_of_{name}").any())

    @torch.no_grad()
    def measure(self, name: str, residuals: Float[Tensor, "rows channels height width"]) -> None:
        """Take the noise of these residuals, image - reconstruction; none where tiles are too few to tell."""
        if name not in self.ranges:
            return
        kernel = self.get_buffer(f"kernel_of_{name}")
        found = tiles(residuals, kernel.shape[2], kernel.shape[3])
        wanted = min(max(math.ceil(SMOOTHEST * len(found)), FEWEST), MOST)
        if len(found) * 0.01 < wanted:
            kernel.zero_()
            return
        order = found.square().flatten(1).mean(dim=1).argsort()
        low, high = self.ranges[name]
        noise = noise_kernel(found[order[:wanted]])
        deviation = float(noise.square().sum(dim=(1, 2, 3)).mean().sqrt())
        kernel.copy_(noise if deviation > FAINTEST * (high - low) else torch.zeros_like(noise))

    def add(
        self,
        name: str,
        images: Float[Tensor, "rows *shape"],
        generator: Generator | None,
        share: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, "rows *shape"]:
        """Images with noise (a share of it in each row), kept within the source's range; without grain as they are."""
        if not self.has(name):
            return images
        kernel = self.get_buffer(f"kernel_of_{name}")
        height, width = images.shape[2] + kernel.shape[2] - 1, images.shape[3] + kernel.shape[3] - 1
        white = torch.randn(len(images), len(kernel), height, width, generator=generator, device=images.device)
        noise = F.conv2d(white, kernel)
        if share is not None:
            noise = share[:, None, None, None] * noise
        return (images + noise).clamp(*self.ranges[name])


def tiles(images: Float[Tensor, "rows channels height width"], high: int, wide: int) -> Float[Tensor, "tiles *shape"]:
    """Tiles of all images, each half over its neighbours: (tiles, channels, high, wide)."""
    step = (max(1, high // 2), max(1, wide // 2))
    columns = F.unfold(images, (high, wide), stride=step)
    return columns.transpose(1, 2).reshape(-1, images.shape[1], high, wide)


def noise_kernel(samples: Float[Tensor, "tiles channels high wide"]) -> Float[Tensor, "channels channels high wide"]:
    """The filter that gives white noise the spectrum, also between channels, of these samples.

    It is the square root of the mean cross-spectrum, S(f) = E[x(f) x(f)*], taken at each frequency.
    """
    samples = samples.cpu().double()  # some accelerators have neither
    spectrum = torch.fft.fft2(samples - samples.mean(dim=0), norm="ortho")  # without what the autoencoder gets wrong
    cross = torch.einsum("nchw,ndhw->hwcd", spectrum, spectrum.conj()) / len(samples)
    values, vectors = torch.linalg.eigh(cross)
    root = (vectors * values.clamp_min(0).sqrt()[..., None, :]) @ vectors.mH
    kernel = torch.fft.ifft2(root.permute(2, 3, 0, 1)).real
    return torch.fft.fftshift(kernel, dim=(2, 3)).flip(2, 3).float()  # `conv2d` does not flip it
