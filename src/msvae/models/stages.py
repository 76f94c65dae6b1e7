"""A model may be trained in stages, one after the other: what the training loop has to know of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from msvae.networks.parts import VALUES_AT_ONCE
from msvae.source import Source, SourceBatch

CHUNK = 512


@dataclass(frozen=True)
class Stage:
    """A stretch of training with parameters and a loss of its own.

    Args:
        name: how logs and checkpoints call it.
        share: of the run's budget or steps, > 0; only ratios count.
        steps: its own number of steps, whatever the run's length; 0 leaves the stage out.
        rows: rows of a batch, as a multiple of `training.batch_size`.
        least_rows: of a batch, and of a part of one (`training.accumulation`): fewer would not do.
        rate: multiple of `training.learning_rate`.
        memory: of the averaged weights: multiple of 1 / (1 - `training.ema_decay`) steps.
        gate: the check of `msvae.training.gates` that it has to pass.
        keeps_best: whether it ends with the averaged weights that did best on validation rows, not with the last ones.
    """

    name: str = "training"
    share: float = 1.0
    steps: int | None = None
    rows: float = 1.0
    least_rows: int = 1
    rate: float = 1.0
    memory: float = 1.0
    gate: str | None = None
    keeps_best: bool = False

    def batch_size(self, of_training: int) -> int:
        """Rows of a batch, where `training.batch_size` is so many."""
        return max(self.least_rows, round(of_training * self.rows))

    def parts(self, rows: int, accumulation: int) -> int:
        """In how many parts so many rows are computed, where `training.accumulation` is wanted."""
        return max(1, min(accumulation, rows // self.least_rows))

    def ema_decay(self, of_training: float) -> float:
        """Of its averaged weights, where `training.ema_decay` is this; 0, no averaging, stays."""
        return 1.0 - (1.0 - of_training) / self.memory if of_training else 0.0


@runtime_checkable
class RowSource(Protocol):
    """Rows that batches are drawn from: a split of a data set, or what a model has computed from one."""

    def __len__(self) -> int: ...
    def batch(self, index: Tensor | slice) -> SourceBatch: ...


def rows_at_once(sources: Sequence[Source]) -> int:
    """How many rows are encoded together: large maps, which leave the caches, take twice as long."""
    return max(1, min(CHUNK, VALUES_AT_ONCE // sum(source.value_count for source in sources)))


def spread_out(rows: int, most: int) -> Int[Tensor, " some"]:
    """The indices of at most so many rows, from all over."""
    return torch.linspace(0, rows - 1, min(rows, most)).long()


def in_chunks(rows: RowSource, size: int, most: int | None = None) -> list[Tensor]:
    """The indices of all rows, or of at most so many from all over, in parts."""
    index = torch.arange(len(rows)) if most is None else spread_out(len(rows), most)
    return list(index.split(size))
