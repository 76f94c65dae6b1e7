"""Objectives that pull the sources' posteriors together by a divergence between all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator

from msvae import gaussian
from msvae.config import ModelConfig
from msvae.objectives.base import Loss, Objective, singles, summary, weighted
from msvae.posterior import Evidence
from msvae.source import SourceBatch

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


class JensenShannon(Objective):
    """loss = -sum_m lam_m E_q[log p(x_m | z)] + beta JS,  q = q(z | x_A)
       JS = sum_{m in A} pi KL(q_m || f) + pi KL(p || f),  pi = 1/(n + 1),  f ~ p^pi prod_m q_m^pi

    f, the weighted product of all experts and the prior, is a prior made by the sources themselves. mmJSD (Sutter et
    al. 2020, arXiv 2006.08242).
    """

    reads_prior = False

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present, shared = evidence.present, evidence.shared
        code = model.fusion(shared).sample(generator)
        private = model.private_codes(evidence, present[None], generator)
        scores = model.log_likelihoods(code[None], private, batch, present[None])[0]
        share = 1 / (present.sum(dim=0) + 1)
        pool = gaussian.pool_rows(present.to(shared.means.dtype))
        mean, log_variance = gaussian.product(pool, shared.means, shared.log_variances, prior_precision=1.0)
        log_variance = log_variance - torch.log(share)[:, None]  # a common power pi divides the precision by 1 / pi
        apart = gaussian.kl_divergence(shared.means, shared.log_variances, mean, log_variance)
        zero = torch.zeros_like(mean)
        prior_apart = gaussian.kl_divergence(zero, zero, mean, log_variance)
        divergence = share * ((apart * present).sum(dim=0) + prior_apart)
        kl = divergence + model.private_kl(evidence, present)
        return summary(model, self.beta * kl - weighted(model, scores), scores, present, divergence=divergence)


class MutualAlignment(Objective):
    """loss = -sum_m lam_m E_{q_m}[log p(x_m | z_m)]
              + beta/n sum_m ( a n KL(q_m || p) + (1 - a) sum_j KL(q_m || q_j) ),  n = |A|

    Every source keeps a code of its own; the codes are only drawn towards each other. a falls from 1 to 0 over the
    share `anneal` of the training. MMVM (Sutter et al. 2024, arXiv 2403.05300).
    """

    reads_prior = False
    needs_one_code = True
    options = frozenset({"anneal"})

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__(config, source_count)
        self.anneal = config.anneal

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present, shared = evidence.present, evidence.shared
        alone = singles(present)
        private = model.private_codes(evidence, present.expand_as(alone), generator)
        scores = model.log_likelihoods(shared.sample(1, generator)[0], private, batch, alone)
        to_prior = max(0.0, 1.0 - model.progress / self.anneal) if self.anneal else 0.0
        zero = torch.zeros_like(shared.means)
        kl = (gaussian.kl_divergence(shared.means, shared.log_variances, zero, zero) * present).sum(dim=0)
        apart = gaussian.kl_divergence(
            shared.means[:, None], shared.log_variances[:, None], shared.means, shared.log_variances
        )
        alignment = (apart * present * present[:, None]).sum(dim=(0, 1)) / present.sum(dim=0)
        pull = to_prior * kl + (1 - to_prior) * alignment + model.private_kl(evidence, present)
        total = self.beta * pull - weighted(model, scores).sum(dim=0)
        own = scores.diagonal(dim1=0, dim2=1).T
        return summary(model, total, own, present, kl=kl, alignment=alignment)
