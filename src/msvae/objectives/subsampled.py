"""Sub-sampled ELBOs: all sources, every source alone, and some random subsets, each with a bound of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator

from msvae.config import ModelConfig
from msvae.objectives.base import Loss, Objective, drawn_from, singles, summary, weighted
from msvae.posterior import Evidence
from msvae.source import SourceBatch
from msvae.subsets import random_subset

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


class SubsampledElbo(Objective):
    """loss = -( ELBO(x_A) + sum_{m in A} ELBO(x_m) + sum over k random subsets S of A of ELBO(x_S) )

    Each ELBO scores the sources of its own subset. Every source is encoded once for all of them. MVAE (Wu & Goodman
    2018, arXiv 1802.05335).
    """

    options = frozenset({"extra_subsets"})

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__(config, source_count)
        self.extra_subsets = config.extra_subsets

    def copies(self) -> int:
        return 2 + self.extra_subsets  # all, alone, and the extra ones

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present = evidence.present
        extra = [random_subset(present, generator) for _ in range(self.extra_subsets)]
        subsets = torch.stack([present, *singles(present), *extra])
        scores, kl = drawn_from(model, evidence, batch, subsets, subsets, generator)
        total = (self.beta * kl - weighted(model, scores)).sum(dim=0)
        return summary(model, total, scores[0], present, kl=kl[0])
