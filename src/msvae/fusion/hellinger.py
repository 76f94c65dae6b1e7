"""Hellinger (Hoelder, alpha = 1/2) pooling: between a product and a mixture (arXiv 2601.06572, 2606.13381)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from msvae import gaussian
from msvae.fusion.base import Fusion, spread
from msvae.posterior import Experts, Posterior


class HellingerMixture(Fusion):
    """q = c (sum_m a_m sqrt q_m)^2, exactly: a mixture of the sources and of every pair of them.

    The pair (i, j) counts 2 a_i a_j S_ij, a source a_m^2; S_ij is near 0 where two sources disagree, so a product is
    heard only of sources that agree. a_m = 1, or the user's weights. In training a component is drawn, and how likely
    each is learns from the KL alone: that the weights follow the encoders makes the reconstruction's gradient a little
    biased, which the Gaussian below is not.
    """

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        log_weights = torch.log(spread(experts, weights))
        first, second = torch.triu_indices(
            self.source_count, self.source_count, offset=1, device=experts.means.device
        ).unbind()
        means, log_variances = experts.means, experts.log_variances
        log_affinity, pair_means, pair_log_variances = gaussian.hellinger_affinity(
            means[first], log_variances[first], means[second], log_variances[second]
        )
        pair_weights = log_weights[first] + log_weights[second]
        out = torch.isneginf(pair_weights)
        log_counts = torch.where(out, pair_weights, math.log(2) + pair_weights + log_affinity)
        return Posterior.weighted(
            torch.cat([means, pair_means]),
            torch.cat([log_variances, pair_log_variances]),
            torch.cat([2 * log_weights, log_counts]),
        )


class HellingerGaussian(HellingerMixture):
    """The Gaussian with the mean and the variance of the Hellinger mixture: HELVAE's fusion."""

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        mixture = super().forward(experts, weights)
        shares = mixture.log_weights.exp()[..., None]
        mean = (shares * mixture.means).sum(dim=0)
        variance = (shares * (mixture.log_variances.exp() + (mixture.means - mean).square())).sum(dim=0)
        return Posterior.single(mean, torch.log(variance))
