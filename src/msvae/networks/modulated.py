"""A residual network over vectors, modulated by a condition (adaptive layer normalisation)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ModulatedMlp(nn.Module):
    """Residual blocks x + (1 + gate) f(norm(x) (1 + scale) + shift), with parts from a condition.

    One linear map of the condition serves all blocks, each of which weighs and moves its numbers (adaLN-single: Chen et
    al. 2023, arXiv 2310.00426): with a map for every block, most of the work would be theirs. The gates start at one,
    not at zero: with a thousand steps of training there is no time to open them.

    Args:
        width, depth: numbers of the vectors, and blocks of two layers.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.normal_(self.modulation.weight, std=0.02)
        nn.init.zeros_(self.modulation.bias)
        self.blocks = nn.ModuleList(_Block(width, (2 * depth) ** -0.5) for _ in range(depth))

    def forward(
        self, values: Float[Tensor, "rows width"], condition: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        parts = self.modulation(F.silu(condition))
        for block in self.blocks:
            values = block(values, parts)
        return F.layer_norm(values, values.shape[-1:])


class _Block(nn.Module):
    """One block of a `ModulatedMlp`; `share`: the scale that its second layer starts with."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(3 * width)), nn.Parameter(torch.zeros(3 * width))
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight.data.mul_(share)

    def forward(self, values: Tensor, parts: Tensor) -> Tensor:
        shift, scale, gate = (parts * self.weight + self.bias).chunk(3, dim=-1)
        inputs = F.layer_norm(values, values.shape[-1:]) * (1 + scale) + shift
        return values + (1 + gate) * self.second(F.silu(self.first(inputs)))
