"""Convolutional encoder and decoder for images of 8 to 256 pixels a side, any size and channel count."""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from msvae.errors import ConfigError
from msvae.networks.blocks import SMALLEST_MAP, Condition, ConvBlock, ResidualBlock, channels_at, pyramid
from msvae.source import Source

SMALLEST_IMAGE, LARGEST_IMAGE = 8, 256


class ConvEncoder(nn.Module):
    """Image -> a vector: strided 3x3 convolutions down to a 4x4 map, then one linear layer.

    Args:
        source: an image source with sides of 8 to 256 pixels.
        inputs: channels of the network's input (see `network_input`).
        outputs: length of the vector.
        width: channels of the first map; later ones have 2 and 4 times as many.
        refine: residual blocks after each convolution (0: the plain pair, 1 or more: the residual pair).
        conditions: number of sources that share these weights, each with its own FiLM; 0 for one source.
    """

    def __init__(
        self, source: Source, inputs: int, outputs: int, width: int = 32, refine: int = 0, conditions: int = 0
    ) -> None:
        super().__init__()
        sizes = image_pyramid(source)
        self.blocks = nn.ModuleList()
        channels = inputs
        for level in range(1, len(sizes)):
            self.blocks.append(ConvBlock(channels, channels_at(level, width), stride=2, conditions=conditions))
            channels = channels_at(level, width)
            self.blocks.extend(ResidualBlock(channels, conditions) for _ in range(refine))
        rows, columns = sizes[-1]
        self.head = nn.Linear(channels * rows * columns, outputs)

    def maps(self, values: Float[Tensor, "rows channels height width"], condition: Condition | None = None) -> Tensor:
        """The last spatial map, (rows, channels, at most 4, at most 4)."""
        for block in self.blocks:
            values = block(values, condition)
        return values

    def forward(
        self, values: Float[Tensor, "rows channels height width"], condition: Condition | None = None
    ) -> Float[Tensor, "rows outputs"]:
        return self.head(self.maps(values, condition).flatten(1))


class SubPixelDecoder(nn.Module):
    """Raw image channels by sub-pixel doublings and 3x3 convolutions, after a stem that makes the smallest map.

    Doubling by a 1x1 convolution and a shuffle (Shi et al. 2016, arXiv 1609.05158) keeps the costly convolutions off
    the large maps: a third of the arithmetic of upsampling first. Odd sizes are cropped from the doubled map.

    Args:
        stem: makes the smallest map, of `channels_at(halvings, width)` channels.
        sizes: of the maps, from the image down.
        outputs: raw channels that the source's likelihood reads.
        width, refine, conditions: as in `ConvEncoder`.
    """

    def __init__(
        self,
        stem: nn.Module,
        sizes: list[tuple[int, int]],
        outputs: int,
        width: int = 32,
        refine: int = 0,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        self.stem, self.sizes = stem, sizes
        self.doublings, self.stages = nn.ModuleList(), nn.ModuleList()
        channels = channels_at(len(sizes) - 1, width)
        for level in range(len(sizes) - 2, 0, -1):
            self.doublings.append(nn.Conv2d(channels, 4 * channels_at(level, width), 1))
            channels = channels_at(level, width)
            stage = nn.ModuleList([ConvBlock(channels, channels, conditions=conditions)])
            stage.extend(ResidualBlock(channels, conditions) for _ in range(refine))
            self.stages.append(stage)
        self.to_pixels = nn.Conv2d(channels, 4 * outputs, 3, padding=1)

    def from_stem(self, maps: Tensor, condition: Condition | None) -> Tensor:
        """Raw image channels of the smallest map."""
        for doubling, stage, size in zip(self.doublings, self.stages, reversed(self.sizes[1:-1]), strict=True):
            maps = F.silu(doubled(doubling(maps), size))
            for block in stage:  # type: ignore[union-attr]
                maps = block(maps, condition)
        return doubled(self.to_pixels(maps), self.sizes[0])


class ConvDecoder(SubPixelDecoder):
    """A code -> raw image channels: one linear layer to a 4x4 map, then doublings.

    Args:
        inputs: length of the code.
        outputs, width, refine, conditions: as in `SubPixelDecoder`.
    """

    def __init__(
        self, source: Source, inputs: int, outputs: int, width: int = 32, refine: int = 0, conditions: int = 0
    ) -> None:
        sizes = image_pyramid(source)
        start = (channels_at(len(sizes) - 1, width), *sizes[-1])
        super().__init__(nn.Linear(inputs, math.prod(start)), sizes, outputs, width, refine, conditions)
        self.start = start

    def forward(self, code: Float[Tensor, "rows latent"], condition: Condition | None = None) -> Tensor:
        return self.from_stem(F.silu(self.stem(code)).unflatten(1, self.start), condition)


def doubled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Four channels become one map of twice the size, cropped to `size`."""
    return F.pixel_shuffle(maps, 2)[..., : size[0], : size[1]]


def image_pyramid(source: Source, smallest: int = SMALLEST_MAP) -> list[tuple[int, int]]:
    """The map sizes of an image source.

    Raises:
        ConfigError: for vectors, and for sides that are not 8 to 256 pixels.
    """
    if not source.is_image:
        raise ConfigError(
            f"Source {source.name!r}: convolutional networks need images, got shape {source.shape}; use networks 'mlp'."
        )
    _, height, width = source.shape
    if min(height, width) < SMALLEST_IMAGE or max(height, width) > LARGEST_IMAGE:
        raise ConfigError(
            f"Source {source.name!r}: convolutional networks take sides of {SMALLEST_IMAGE} to {LARGEST_IMAGE} pixels, "
            f"got {height} x {width}."
        )
    return pyramid(height, width, smallest)
