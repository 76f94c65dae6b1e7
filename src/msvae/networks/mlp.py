"""Fully connected encoder and decoder, for vectors and for very small images."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from msvae.networks.blocks import Condition, Film
from msvae.source import Source


class _Stack(nn.Module):
    """Two hidden layers with SiLU, FiLM where there are conditions."""

    def __init__(self, inputs: int, hidden: int, outputs: int, conditions: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)])
        self.films = nn.ModuleList(Film(conditions, hidden) for _ in self.layers) if conditions else None
        self.last = nn.Linear(hidden, outputs)

    def forward(self, vectors: Tensor, condition: Condition | None) -> Tensor:
        for index, layer in enumerate(self.layers):
            vectors = layer(vectors)
            if self.films is not None:
                vectors = self.films[index](vectors, condition)
            vectors = F.silu(vectors)
        return self.last(vectors)


class MlpEncoder(nn.Module):
    """Values, flattened -> a vector, through two hidden layers of 8 `width` units."""

    def __init__(self, source: Source, inputs: int, outputs: int, width: int = 32, conditions: int = 0) -> None:
        super().__init__()
        positions = source.value_count // source.shape[0]
        self.stack = _Stack(inputs * positions, 8 * width, outputs, conditions)

    def forward(self, values: Tensor, condition: Condition | None = None) -> Float[Tensor, "rows outputs"]:
        return self.stack(values.flatten(1), condition)


class MlpDecoder(nn.Module):
    """A code -> raw output of (outputs, ...) per row, through two hidden layers of 8 `width` units."""

    def __init__(self, source: Source, inputs: int, outputs: int, width: int = 32, conditions: int = 0) -> None:
        super().__init__()
        self.shape = (outputs, *source.shape[1:])
        positions = source.value_count // source.shape[0]
        self.stack = _Stack(inputs, 8 * width, outputs * positions, conditions)

    def forward(self, code: Float[Tensor, "rows latent"], condition: Condition | None = None) -> Tensor:
        return self.stack(code, condition).unflatten(1, self.shape)
