"""Wasserstein-2 barycenter: the Gaussian that lies between the sources (WB-VAE, arXiv 2412.20487)."""

from jaxtyping import Float
from torch import Tensor

from msvae import gaussian
from msvae.fusion.base import Fusion, normalised, spread
from msvae.posterior import Experts, Posterior


class Barycenter(Fusion):
    """argmin_q sum_m a_m W2(q, q(z | x_m))^2, with a_m = 1/|S| or the user's weights summing to 1."""

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        pool = gaussian.pool_rows(normalised(spread(experts, weights)))
        return Posterior.single(*gaussian.barycenter(pool, experts.means, experts.log_variances))


class ParameterAverage(Fusion):
    """mean = sum_m a_m mean_m, log-variance = sum_m a_m log-variance_m: the plainest of all fusions."""

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        pool = gaussian.pool_rows(normalised(spread(experts, weights)))
        return Posterior.single(pool(experts.means), pool(experts.log_variances))
