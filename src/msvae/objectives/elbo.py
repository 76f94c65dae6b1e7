"""The evidence lower bound of the joint model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator

from msvae.config import ModelConfig
from msvae.objectives.base import Loss, mean_where_present
from msvae.source import SourceBatch
from msvae.subsets import random_subset

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


class Elbo:
    """loss = -sum_m lam_m E_q[log p(x_m | z)] + beta KL(q(z | x_S) || p(z)), over the present sources m.

    Args:
        subsets: with `present`, S is all that the row has; with `random`, a random subset of it, while everything the
            row has is scored. q(z | x_S) is then still a valid posterior of the same bound, and every subset learns
            to speak for the whole, which a product of experts does not learn otherwise (Wu & Goodman 2018).
        beta: weight of the KL term; 1 is the bound itself.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.random_subsets = config.subsets == "random"
        self.beta = config.beta

    def __call__(self, model: JointVAE, batch: SourceBatch, generator: Generator | None = None) -> Loss:
        experts = model.experts(batch)
        if self.random_subsets:
            experts = experts.restricted(random_subset(experts.present, generator))
        posterior = model.fusion(experts)
        code = posterior.sample(generator)
        kl = model.prior.kl(posterior, code)
        scores = model.log_likelihoods(code, batch)
        weighted = torch.stack([model.likelihood_scales[name] * score for name, score in scores.items()])
        total = (self.beta * kl - weighted.sum(dim=0)).mean()
        terms = {f"reconstruction/{n}": -mean_where_present(s, batch.present[n]) for n, s in scores.items()}
        return Loss(total, {**terms, "kl": kl.detach().mean()})
