"""Networks that keep every pixel where it is: images as maps of four sizes, and images from such maps."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from msvae.likelihoods import likelihood_of
from msvae.networks.blocks import Condition, ConvBlock, by_cell, channels_at, laid_out
from msvae.networks.conv import doubled
from msvae.networks.pairs import input_channels
from msvae.source import Source

LEVELS = 4  # maps of the image's sides, of half, a quarter and an eighth of them


class MapReader(nn.Module):
    """Image -> maps of four sizes, and of each how much its cells count beside other sources'.

    The first map is as large as the image and thin: half of its channels hold the pixels by a linear map, so that they
    need not be learned to be kept, half what is seen around each pixel. The wide convolutions begin at half the size.
    """

    def __init__(self, source: Source, width: int, conditions: int = 0) -> None:
        super().__init__()
        self.padding = (0, -source.shape[2] % 2, 0, -source.shape[1] % 2)
        inputs, detail = input_channels(source), details(width)
        self.pixels = nn.Conv2d(inputs, detail, 1)
        self.around = nn.ModuleList(
            ConvBlock(before, detail, conditions=conditions, normed=True) for before in (inputs, detail)
        )
        self.stem = nn.Conv2d(4 * inputs, width, 1)
        self.blocks, self.counts = nn.ModuleList(), nn.ModuleList([nn.Linear(2 * detail, 1)])
        inside = width
        for level in range(1, LEVELS):
            outside = channels_at(level, width)
            stride = 1 if level == 1 else 2
            self.blocks.append(ConvBlock(inside, outside, stride, conditions, normed=True))
            self.counts.append(nn.Linear(outside, 1))
            inside = outside

    def forward(
        self, values: Float[Tensor, "rows channels height width"], condition: Condition | None = None
    ) -> list[tuple[Float[Tensor, "rows _ _ _"], Float[Tensor, "rows _ _ 1"]]]:
        around = values
        for block in self.around:
            around = block(around, condition)
        found = [torch.cat([laid_out(self.pixels(values)), around], dim=1)]
        maps = self.stem(laid_out(F.pixel_unshuffle(F.pad(values, self.padding), 2)))
        for block in self.blocks:
            maps = block(maps, condition)
            found.append(maps)
        return [(maps, count(by_cell(maps))) for maps, count in zip(found, self.counts, strict=True)]


class MapDrawer(nn.Module):
    """Maps of four sizes and a code -> raw image channels: a U-Net's way up (Ronneberger et al. 2015).

    Args:
        code: numbers of a token of the code.
    """

    def __init__(self, source: Source, width: int, code: int, conditions: int = 0) -> None:
        super().__init__()
        self.size = (source.shape[1], source.shape[2])
        raw, self.detail = likelihood_of(source).raw_channels(source), details(width)
        deepest, last = channels_at(LEVELS - 1, width), LEVELS - 1
        self.read_code = nn.ModuleList(nn.Conv2d(code, channels_at(level, width), 1) for level in range(last, 0, -1))
        self.middle = nn.ModuleList(ConvBlock(deepest, deepest, conditions=conditions, normed=True) for _ in range(2))
        self.ways_up = nn.ModuleList()
        for level in range(last - 1, 0, -1):
            inside, outside = channels_at(level + 1, width) + channels_at(level, width), channels_at(level, width)
            first = ConvBlock(inside, outside, conditions=conditions, normed=True)
            self.ways_up.append(nn.ModuleList([first, ConvBlock(outside, outside, conditions=conditions, normed=True)]))
        self.to_pixels = nn.Conv2d(width, 4 * self.detail, 1)
        self.fine = ConvBlock(self.detail, self.detail, conditions=conditions, normed=True)
        self.head, self.kept = nn.Conv2d(self.detail, raw, 3, padding=1), nn.Conv2d(self.detail, raw, 1)

    def forward(
        self,
        maps: list[Tensor],
        code: Float[Tensor, "rows code down across"],
        condition: Condition | None = None,
    ) -> Float[Tensor, "rows raw height width"]:
        pixels, around = maps[0].split(self.detail, dim=1)
        skips = maps[1:]
        drawn = skips[-1] + self._said(0, code, skips[-1])
        for block in self.middle:
            drawn = block(drawn, condition)
        for level, (way, skip) in enumerate(zip(self.ways_up, reversed(skips[:-1]), strict=True), start=1):
            drawn = torch.cat([F.interpolate(drawn, skip.shape[-2:]), skip + self._said(level, code, skip)], dim=1)
            for block in way:  # type: ignore[union-attr]
                drawn = block(drawn, condition)
        drawn = self.fine(F.silu(around + doubled(self.to_pixels(drawn), self.size)), condition)
        return self.head(drawn) + self.kept(pixels)

    def _said(self, level: int, code: Tensor, like: Tensor) -> Tensor:
        said = self.read_code[level](code)
        return F.interpolate(said, like.shape[-2:], mode="bilinear") if said.shape != like.shape else said


def details(width: int) -> int:
    """Channels of what is kept of the pixels, and of what is seen around them."""
    return max(4, width // 2)
