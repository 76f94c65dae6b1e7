"""The small parts of the image networks: a convolution with optional per-source FiLM, and a residual pair of them."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SMALLEST_MAP = 4
LEAST_GROUP = 16  # channels that are normalised together


def pyramid(height: int, width: int, smallest: int = SMALLEST_MAP) -> list[tuple[int, int]]:
    """Map sizes from the full image down to at most 4 x 4, each half of the last rounded up: 28 -> 14 -> 7 -> 4."""
    sizes = [(height, width)]
    while max(sizes[-1]) > smallest:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes


def channels_at(level: int, width: int) -> int:
    """Channels after `level` halvings: width, 2 width, then 4 width throughout."""
    return width * min(2 ** (level - 1), 4) if level > 0 else width


Condition = int | Tensor
"""Which source the rows are of: one number for all of them, or one for each."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018, arXiv 1803.08494) with 16 channels or more in a group: with fewer its gradient
    takes up to 17 times as long on a CPU in the layout of `lay_out`."""
    most = max(1, channels // LEAST_GROUP)
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)


class Film(nn.Module):
    """Feature-wise linear modulation by source: y = x (1 + scale_m) + shift_m (Perez et al. 2018, arXiv 1709.07871)."""

    def __init__(self, conditions: int, channels: int) -> None:
        super().__init__()
        self.table = nn.Embedding(conditions, 2 * channels)
        nn.init.zeros_(self.table.weight)

    def forward(self, maps: Tensor, condition: Condition) -> Tensor:
        scale, shift = self.table.weight[condition].chunk(2, dim=-1)
        shape = (-1, maps.shape[1]) + (1,) * (maps.dim() - 2)
        return torch.addcmul(shift.view(shape).to(maps.dtype), maps, 1 + scale.view(shape).to(maps.dtype))


class ConvBlock(nn.Module):
    """3x3 convolution, group normalisation where wanted, FiLM where there are conditions, SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, conditions: int = 0, normed: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm = group_norm(outputs) if normed else None
        self.film = Film(conditions, outputs) if conditions else None

    def forward(self, maps: Tensor, condition: Condition | None = None) -> Tensor:
        maps = laid_out(self.convolution(maps))  # of one input channel it comes in the other layout
        if self.norm is not None:
            maps = self.norm(maps)
        if self.film is not None:
            assert condition is not None
            maps = self.film(maps, condition)
        return F.silu(maps)


class ResidualBlock(nn.Module):
    """x + conv(block(norm(x))): refines a map at its own size."""

    def __init__(self, channels: int, conditions: int = 0) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels)  # not `group_norm`: trained runs have these groups
        self.first = ConvBlock(channels, channels, conditions=conditions)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)  # starts as the identity

    def forward(self, maps: Tensor, condition: Condition | None = None) -> Tensor:
        return maps + self.second(self.first(self.norm(maps), condition))


def laid_out(maps: Tensor) -> Tensor:
    """Maps in the layout of `lay_out`; what mixes layouts copies at every step."""
    return maps.contiguous(memory_format=torch.channels_last)


def by_cell(maps: Float[Tensor, "rows channels height width"]) -> Float[Tensor, "rows height width channels"]:
    """A view of maps in the layout of `lay_out`, in the order in which they lie in memory: what adds, takes or
    multiplies rows of it does not copy, where the maps themselves would be."""
    return maps.permute(0, 2, 3, 1)


def by_channel(cells: Float[Tensor, "rows height width channels"]) -> Float[Tensor, "rows channels height width"]:
    """The maps of such a view."""
    return cells.permute(0, 3, 1, 2)


def lay_out(networks: nn.Module) -> None:
    """Keep the weights of all convolutions channels last: faster on CPUs with AVX-512 and on GPUs."""
    for module in networks.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
