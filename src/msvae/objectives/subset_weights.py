"""Weighted subset ELBOs: how much each subset's bound counts is learned with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, nn

from msvae.config import ModelConfig
from msvae.objectives.base import Loss, Objective, drawn_from, summary, weighted
from msvae.posterior import Evidence
from msvae.source import SourceBatch
from msvae.subsets import all_subsets, contained

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


class WeightedSubsets(Objective):
    """loss = -( sum_S pi_S ELBO_S - KL(pi || uniform) )
       ELBO_S = sum_{m in A} lam_m E_{q_S}[log p(x_m | z)] - beta KL(q_S || p)

    over the non-empty subsets S of A, with learned weights pi: a bound of log p(x_A) with the subset as a further
    latent variable, whose prior is uniform. Without the last term pi would fall to the one best subset. After CoDE-VAE
    (Mancisidor et al., ICML 2025).

    With `decodes: drawn` one subset is drawn for each row, all equally likely, instead of all 2^n - 1: unbiased.
    """

    options = frozenset({"decodes"})

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__(config, source_count)
        self.draws_one = config.decodes == "drawn"
        self.logits = nn.Parameter(torch.zeros(2**source_count - 1))

    @property
    def crosses_private(self) -> bool:
        return True

    def copies(self) -> int:
        return 1 if self.draws_one else len(self.logits)

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present = evidence.present
        table = all_subsets(len(present), present.device)
        counted = contained(table, present)  # (subsets, rows)
        log_weights = torch.log_softmax(self.logits[:, None].masked_fill(~counted, -torch.inf), dim=0)
        weights = log_weights.exp()
        if self.draws_one:
            number = torch.multinomial(counted.T.float(), 1, generator=generator).T  # (1, rows)
            subsets = table[number[0]].T[None]
            factors = weights.gather(0, number) * counted.sum(dim=0)
        else:
            subsets = counted[:, None] & table[:, :, None]
            factors = weights
        wanted = subsets.any(dim=1, keepdim=True) & present
        scores, kl = drawn_from(model, evidence, batch, subsets, wanted, generator)
        kept = weights > 0
        surprise = (weights * torch.where(kept, log_weights, torch.zeros_like(log_weights))).sum(dim=0)
        to_uniform = surprise + torch.log(counted.sum(dim=0))
        total = to_uniform - (factors * (weighted(model, scores) - self.beta * kl)).sum(dim=0)
        shown = scores.sum(dim=0) / wanted.sum(dim=0).clamp_min(1)
        return summary(model, total, shown, present, kl=(factors * kl).sum(dim=0), subset_kl=to_uniform)
