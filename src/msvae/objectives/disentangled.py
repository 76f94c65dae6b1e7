"""Shared and private codes, each source drawn from the joint code and from every single source's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator

from msvae.config import ModelConfig
from msvae.objectives.base import Loss, Objective, drawn_alone, summary
from msvae.posterior import Evidence
from msvae.source import SourceBatch

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


class Disentangled(Objective):
    """loss = -sum_m lam_m ( E[log p(x_m | z ~ q_A, w_m)] - beta (KL(w_m) + KL(q_A))
              + sum_{j in A} ( E[log p(x_m | z ~ q_j, w_m)] - beta (KL(w_m) + KL(q_j)) ) )

    with w_m ~ q(w_m | x_m) throughout, and q_j = q(z | x_j) as it answers questions: with a prior expert where the
    fusion has one. DMVAE (Lee & Pavlovic 2021, arXiv 2012.13024). With `decodes: drawn` the sum over j of the
    likelihoods is estimated by one j drawn for each m, times |A|: unbiased.
    """

    needs_one_code = True
    options = frozenset({"decodes"})

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__(config, source_count)
        self.draws_one = config.decodes == "drawn"

    def copies(self) -> int:
        return 2 if self.draws_one else 1 + self.source_count

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present = evidence.present
        posterior = model.fusion(evidence.shared)
        code = posterior.sample(generator)
        own_codes, own_kls = drawn_alone(model, evidence, generator)
        codes = torch.cat([code[None], own_codes])
        count = present.sum(dim=0)
        crossed = present[:, None] & present  # (from, to, rows)
        factor = torch.ones_like(count)
        if self.draws_one:
            drawn = torch.multinomial(present.T.float(), len(present), replacement=True, generator=generator)
            crossed = crossed & torch.nn.functional.one_hot(drawn, len(present)).bool().permute(2, 1, 0)
            factor = count
        wanted = torch.cat([present[None], crossed])
        private = model.private_codes(evidence, present[None], generator).expand(len(wanted), -1, -1, -1)
        scores = model.log_likelihoods(codes, private, batch, wanted)
        likelihood = scores[0] + factor * scores[1:].sum(dim=0)  # (sources, rows)
        kl = model.prior.kl(posterior, code)
        private_kl = model.private_kls(evidence)  # (sources, rows)
        gap = self.beta * ((1 + count) * private_kl + kl + own_kls.sum(dim=0)) * present
        total = (model.scales[:, None] * (gap - likelihood)).sum(dim=0)
        return summary(model, total, scores[0], present, kl=kl, private_kl=(private_kl * present).sum(dim=0))
