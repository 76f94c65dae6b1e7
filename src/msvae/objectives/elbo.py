"""The evidence lower bound of the joint model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Generator

from msvae.config import ModelConfig
from msvae.objectives.base import Loss, Objective, drawn_from, summary, weighted
from msvae.posterior import Evidence
from msvae.source import SourceBatch
from msvae.subsets import random_subset

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


class Elbo(Objective):
    """loss = -sum_{m in A} lam_m E_q[log p(x_m | z, w_m)] + beta ( KL(q(z | x_S) || p(z)) + KL of the private codes )

    With `subsets: present`, S is all that the row has; with `random`, a random subset of it, while everything the
    row has is scored. q(z | x_S) is then still a valid posterior of the same bound, and every subset learns to speak
    for the whole, which a product of experts does not learn otherwise (Wu & Goodman 2018). Private codes come from
    their own source if it is in S, else from their guard, so that S has to tell what it can.
    """

    options = frozenset({"subsets"})

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__(config, source_count)
        self.random_subsets = config.subsets == "random"

    @property
    def crosses_private(self) -> bool:
        return self.random_subsets

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present = evidence.present
        heard = random_subset(present, generator) if self.random_subsets else present
        (scores,), (kl,) = drawn_from(model, evidence, batch, heard[None], present[None], generator)
        return summary(model, self.beta * kl - weighted(model, scores), scores, present, kl=kl)
