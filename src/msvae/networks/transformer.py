"""A Transformer over sets of tokens, modulated by a condition (adaptive layer normalisation)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

SMALL = 0.35  # of the usual size: the last layers of residual branches


class ModulatedBlock(nn.Module):
    """Attention and a two-layer network, each x + (1 + gate) f(norm(x) (1 + scale) + shift), parts from a condition.

    Source: Peebles & Xie 2023 (arXiv 2212.09748), whose gates start at zero, however; here they start at one, and the
    last layers small, which learns faster in the first thousand steps.

    Args:
        normalised: whether queries and keys are brought to one length, √(width / heads), so that attention cannot
            sharpen without bound as their weights grow (Henry et al. 2020, arXiv 2010.04245).
    """

    def __init__(self, width: int, heads: int, expansion: int = 4, normalised: bool = False) -> None:
        super().__init__()
        self.heads, self.normalised = heads, normalised
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.normal_(self.modulation.weight, std=0.02)
        nn.init.zeros_(self.modulation.bias)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        for last in (self.mixed, self.contract):
            last.weight.data.mul_(SMALL)

    def forward(
        self,
        tokens: Float[Tensor, "rows tokens width"],
        condition: Float[Tensor, "rows width"],
        bias: Float[Tensor, "rows 1 1 tokens"] | None = None,
    ) -> Float[Tensor, "rows tokens width"]:
        modulation = self.modulation(F.silu(condition))[:, None]
        shift, scale, gate, shift_2, scale_2, gate_2 = modulation.chunk(6, dim=-1)
        width = tokens.shape[-1:]
        inputs = F.layer_norm(tokens, width) * (1 + scale) + shift
        parts = self.queries_keys_values(inputs).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts
        if self.normalised:
            queries, keys = (F.rms_norm(part, part.shape[-1:]) for part in (queries, keys))
        attended = attention(queries, keys, values, bias)
        tokens = tokens + (1 + gate) * self.mixed(attended.transpose(1, 2).flatten(2))
        inputs = F.layer_norm(tokens, width) * (1 + scale_2) + shift_2
        return tokens + (1 + gate_2) * self.contract(F.silu(self.expand(inputs)))


def attention(
    queries: Float[Tensor, "rows heads tokens size"],
    keys: Float[Tensor, "rows heads tokens size"],
    values: Float[Tensor, "rows heads tokens size"],
    bias: Float[Tensor, "rows 1 1 tokens"] | None = None,
) -> Float[Tensor, "rows heads tokens size"]:
    """softmax(q k' / sqrt(size) + bias) v, written out: for few tokens on a CPU several times as fast as PyTorch's."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    return torch.softmax(scores, dim=-1).to(values.dtype) @ values


class Transformer(nn.Module):
    """Blocks in a row. Tokens are a set: positions and kinds have to be in them.

    Args:
        width: numbers of a token, a multiple of `heads`.
        normalised: as in `ModulatedBlock`.
    """

    def __init__(self, width: int, depth: int, heads: int, normalised: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ModulatedBlock(width, heads, normalised=normalised) for _ in range(depth))

    def forward(
        self,
        tokens: Float[Tensor, "rows tokens width"],
        condition: Float[Tensor, "rows width"],
        log_weights: Float[Tensor, "rows tokens"] | None = None,
    ) -> Float[Tensor, "rows tokens width"]:
        """The tokens, refined.

        Args:
            log_weights: added to the attention logits of every token as a key: -inf hides a token from all others
                exactly, log a gives it the weight of a tokens alike.
        """
        bias = None if log_weights is None else log_weights[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, condition, bias)
        return tokens


class TimeEmbedding(nn.Module):
    """A time in [0, 1] as a vector: sines and cosines of 32 frequencies, then two layers."""

    def __init__(self, width: int, frequencies: int = 32) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Float[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        return self.layers(waves(time, self.frequencies, longest=4.0, shortest=0.02))


def waves(
    positions: Float[Tensor, " rows"], frequencies: int, longest: float, shortest: float
) -> Float[Tensor, "rows both"]:
    """Sines and cosines of positions, with wavelengths in geometric progression."""
    exponents = torch.linspace(0, 1, frequencies, device=positions.device)
    lengths = longest * (shortest / longest) ** exponents
    angles = positions[:, None] * (2 * math.pi / lengths)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


def grid_positions(height: int, width: int, size: int) -> Float[Tensor, "tokens size"]:
    """Fixed positions of the cells of a grid, in rows: waves down and waves across; `size` is a multiple of 4.

    Centres are in units of the image, so that grids of different sizes agree on where things are.
    """
    down = (torch.arange(height) + 0.5) / height
    across = (torch.arange(width) + 0.5) / width
    vertical = waves(down, size // 4, longest=4.0, shortest=0.1)[:, None, :].expand(-1, width, -1)
    horizontal = waves(across, size // 4, longest=4.0, shortest=0.1)[None, :, :].expand(height, -1, -1)
    return torch.cat([vertical, horizontal], dim=-1).flatten(0, 1)


def hidden_where(absent: Bool[Tensor, "rows tokens"]) -> Float[Tensor, "rows tokens"]:
    """Log-weights that hide some tokens and leave the others."""
    return torch.zeros(absent.shape, device=absent.device).masked_fill(absent, -math.inf)
