"""What an objective is: a training loss made of a model's parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Generator, Tensor

from msvae.source import SourceBatch

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


@dataclass(frozen=True)
class Loss:
    """A training loss in nats per row (a scalar), and the terms it is made of (detached scalars, for display)."""

    total: Tensor
    terms: dict[str, Tensor]


@runtime_checkable
class Objective(Protocol):
    """The contract. Every objective is a mean per row in nats, so learning rates carry over between them."""

    def __call__(self, model: JointVAE, batch: SourceBatch, generator: Generator | None = None) -> Loss:
        """The loss of a checked batch whose rows may lack any sources."""
        ...


def mean_where_present(score: Tensor, present: Tensor) -> Tensor:
    """The mean over the rows that have a source, detached: what progress displays show of it."""
    return (score.detach().sum() / present.sum().clamp_min(1)).float()
