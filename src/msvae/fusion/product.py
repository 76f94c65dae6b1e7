"""Product of experts: what all sources agree on. MVAE (Wu & Goodman 2018, arXiv 1802.05335)."""

from jaxtyping import Float
from torch import Tensor

from msvae import gaussian
from msvae.fusion.base import Fusion, normalised, spread
from msvae.posterior import Experts, Posterior


class ProductOfExperts(Fusion):
    """q(z | x_S) ~ p(z)^prior_expert prod_{m in S} q(z | x_m)^a_m, with a_m = 1, or the user's weights summing to 1.

    With the prior expert it is MVAE's fusion, without it MVTCAE's.
    """

    options = frozenset({"prior_expert"})

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        shares = spread(experts, weights)
        pool = gaussian.pool_rows(shares if weights is None else normalised(shares))
        return Posterior.single(*gaussian.product(pool, experts.means, experts.log_variances, self.prior_precision))
