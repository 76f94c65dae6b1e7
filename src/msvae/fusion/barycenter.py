"""Wasserstein-2 barycenter: the Gaussian that lies between the sources (WB-VAE, arXiv 2412.20487)."""

import torch
from jaxtyping import Float
from torch import Tensor

from msvae import gaussian
from msvae.fusion.base import Fusion
from msvae.posterior import Experts, Posterior
from msvae.subsets import normalised_weights


class Barycenter(Fusion):
    """argmin_q sum_m a_m W2(q, q(z | x_m))^2, with a_m = 1/|S| or the user's weights summing to 1."""

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        if weights is None:
            weights = torch.ones(len(experts.present), device=experts.means.device, dtype=experts.means.dtype)
        spread = normalised_weights(weights, experts.present)
        return Posterior.single(*gaussian.barycenter(experts.means, experts.log_variances, spread))
