"""Product of experts: what all sources agree on. MVAE (Wu & Goodman 2018, arXiv 1802.05335)."""

from jaxtyping import Float
from torch import Tensor

from msvae import gaussian
from msvae.fusion.base import Fusion
from msvae.posterior import Experts, Posterior
from msvae.subsets import normalised_weights


class ProductOfExperts(Fusion):
    """q(z | x_S) ~ p(z)^prior_expert prod_{m in S} q(z | x_m)^a_m, with a_m = 1, or the user's weights summing to 1.

    With the prior expert it is MVAE's fusion, without it MVTCAE's.
    """

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        if weights is None:
            spread = experts.present.to(experts.means.dtype)
        else:
            spread = normalised_weights(weights, experts.present)
        mean, log_variance = gaussian.weighted_product(
            experts.means, experts.log_variances, spread, self.prior_precision
        )
        return Posterior.single(mean, log_variance)
