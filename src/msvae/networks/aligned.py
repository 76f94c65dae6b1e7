"""Networks that keep every pixel where it is: images as maps of three sizes, and images from such maps."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from msvae.likelihoods import likelihood_of
from msvae.networks.blocks import Condition, ConvBlock, channels_at
from msvae.networks.conv import doubled
from msvae.networks.pairs import input_channels
from msvae.source import Source

LEVELS = 3  # maps of half, a quarter and an eighth of the image's sides


class MapReader(nn.Module):
    """Image -> maps of three sizes, each with one channel more: how much its cells count beside other sources'.

    The first map holds the pixels too, by a linear map of four neighbours, so that they need not be learned to be kept.
    """

    def __init__(self, source: Source, width: int, conditions: int = 0) -> None:
        super().__init__()
        self.padding = (0, -source.shape[2] % 2, 0, -source.shape[1] % 2)
        self.stem = nn.Conv2d(4 * input_channels(source), width, 1)
        self.blocks, self.counts = nn.ModuleList(), nn.ModuleList()
        inside = width
        for level in range(1, LEVELS + 1):
            outside = channels_at(level, width)
            stride = 1 if level == 1 else 2
            self.blocks.append(ConvBlock(inside, outside, stride, conditions, normed=True))
            self.counts.append(nn.Conv2d(outside, 1, 1))
            inside = outside

    def forward(
        self, values: Float[Tensor, "rows channels height width"], condition: Condition | None = None
    ) -> list[Tensor]:
        pixels = self.stem(F.pixel_unshuffle(F.pad(values, self.padding), 2))
        found, maps = [], pixels
        for level, (block, count) in enumerate(zip(self.blocks, self.counts, strict=True)):
            maps = block(maps, condition)
            found.append(torch.cat([pixels, maps, count(maps)] if level == 0 else [maps, count(maps)], dim=1))
        return found


class MapDrawer(nn.Module):
    """Maps of three sizes and a code -> raw image channels: a U-Net's way up (Ronneberger et al. 2015).

    Args:
        code: numbers of a token of the code.
    """

    def __init__(self, source: Source, width: int, code: int, conditions: int = 0) -> None:
        super().__init__()
        self.size = (source.shape[1], source.shape[2])
        raw = 4 * likelihood_of(source).raw_channels(source)
        deepest = channels_at(LEVELS, width)
        self.read_code = nn.ModuleList(nn.Conv2d(code, channels_at(level, width), 1) for level in range(LEVELS, 0, -1))
        self.middle = nn.ModuleList(ConvBlock(deepest, deepest, conditions=conditions, normed=True) for _ in range(2))
        self.ways_up = nn.ModuleList()
        for level in range(LEVELS - 1, 0, -1):
            inside, outside = channels_at(level + 1, width) + channels_at(level, width), channels_at(level, width)
            first = ConvBlock(inside, outside, conditions=conditions, normed=True)
            self.ways_up.append(nn.ModuleList([first, ConvBlock(outside, outside, conditions=conditions, normed=True)]))
        self.width = width
        self.head, self.kept = nn.Conv2d(width, raw, 3, padding=1), nn.Conv2d(width, raw, 1)

    def forward(
        self,
        maps: list[Tensor],
        code: Float[Tensor, "rows code down across"],
        condition: Condition | None = None,
    ) -> Float[Tensor, "rows raw height width"]:
        pixels, skips = maps[0][:, : self.width], [maps[0][:, self.width :], *maps[1:]]
        drawn = skips.pop()
        drawn = drawn + self._said(0, code, drawn)
        for block in self.middle:
            drawn = block(drawn, condition)
        for level, (way, skip) in enumerate(zip(self.ways_up, reversed(skips), strict=True), start=1):
            drawn = torch.cat([F.interpolate(drawn, skip.shape[-2:]), skip + self._said(level, code, skip)], dim=1)
            for block in way:  # type: ignore[union-attr]
                drawn = block(drawn, condition)
        return doubled(self.head(drawn) + self.kept(pixels), self.size)

    def _said(self, level: int, code: Tensor, like: Tensor) -> Tensor:
        said = self.read_code[level](code)
        return F.interpolate(said, like.shape[-2:], mode="bilinear") if said.shape != like.shape else said
