"""Networks that keep every pixel where it is: the two halves of a U-Net (Ronneberger et al. 2015, arXiv 1505.04597)."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from msvae.likelihoods import likelihood_of
from msvae.networks.blocks import Condition, ConvBlock, by_cell, laid_out
from msvae.networks.pairs import input_channels
from msvae.source import Source

LEVELS = 4  # maps of the image's sides, of half, a quarter and an eighth of them


class ConvPair(nn.Module):
    """Two normalised 3x3 convolutions at one size."""

    def __init__(self, inputs: int, outputs: int, conditions: int = 0) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, conditions=conditions, normed=True)
        self.second = ConvBlock(outputs, outputs, conditions=conditions, normed=True)

    def forward(self, maps: Tensor, condition: Condition | None = None) -> Tensor:
        return self.second(self.first(maps, condition), condition)


class PerCell(nn.Module):
    """A 1x1 convolution, at a fraction of a pair's cost: edges are those that its maps have. What sources that share it
    draw differs by their smaller maps alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor, condition: Condition | None = None) -> Tensor:
        return F.silu(self.convolution(maps))


class MapReader(nn.Module):
    """The way down, image -> maps of four sizes, and of each how much its cells count beside other sources'."""

    def __init__(self, source: Source, width: int, conditions: int = 0) -> None:
        super().__init__()
        sizes = channels_by_size(width)
        ways = itertools.pairwise([input_channels(source), *sizes])
        self.pairs = nn.ModuleList(ConvPair(before, after, conditions) for before, after in ways)
        self.counts = nn.ModuleList(nn.Linear(channels, 1) for channels in sizes)

    def forward(
        self, values: Float[Tensor, "rows channels height width"], condition: Condition | None = None
    ) -> list[tuple[Float[Tensor, "rows _ _ _"], Float[Tensor, "rows _ _ 1"]]]:
        found, maps = [], values
        for level, (pair, count) in enumerate(zip(self.pairs, self.counts, strict=True)):
            maps = pair(laid_out(F.max_pool2d(maps, 2, ceil_mode=True)) if level else maps, condition)
            found.append((maps, count(by_cell(maps))))
        return found


class MapDrawer(nn.Module):
    """The way up, maps of four sizes and a code -> raw image channels. The code is told to all maps but the largest.

    Args:
        code: numbers of a token, of the code and of whatever else is told everywhere.
        coarse: whether what is drawn at half the size is only laid on the largest maps (`PerCell`): half of the work.
    """

    def __init__(self, source: Source, width: int, code: int, conditions: int = 0, coarse: bool = False) -> None:
        super().__init__()
        sizes = channels_by_size(width)
        self.read_code = nn.ModuleList(nn.Conv2d(code, channels, 1) for channels in sizes[1:])
        (flat, deep), *ways = itertools.pairwise(sizes)
        largest = PerCell(deep + flat, flat) if coarse else ConvPair(deep + flat, flat, conditions)
        smaller = (ConvPair(deep + flat, flat, conditions) for flat, deep in ways)
        self.pairs = nn.ModuleList([largest, *smaller])
        self.head = nn.Conv2d(width, likelihood_of(source).raw_channels(source), 1)

    def forward(
        self,
        maps: Sequence[Tensor],
        code: Float[Tensor, "rows code down across"],
        condition: Condition | None = None,
    ) -> Float[Tensor, "rows raw height width"]:
        largest, *others = maps
        told = [found + _like(read(code), found) for found, read in zip(others, self.read_code, strict=True)]
        *skips, drawn = (largest, *told)
        for pair, skip in zip(reversed(self.pairs), reversed(skips), strict=True):
            drawn = pair(torch.cat([F.interpolate(drawn, skip.shape[-2:]), skip], dim=1), condition)
        return self.head(drawn)


def channels_by_size(width: int) -> list[int]:
    """Of the maps, from the largest on: twice as many at each half of the size."""
    return [width * 2**level for level in range(LEVELS)]


def _like(code: Tensor, maps: Tensor) -> Tensor:
    same = code.shape[-2:] == maps.shape[-2:]
    return code if same else F.interpolate(code, maps.shape[-2:], mode="bilinear")
