"""Mixture of experts: any one source speaks for all. MMVAE (Shi et al. 2019, arXiv 1911.03393)."""

from jaxtyping import Float
from torch import Tensor

from msvae.fusion.base import Fusion, spread
from msvae.posterior import Experts, Posterior


class MixtureOfExperts(Fusion):
    """q(z | x_S) = sum_{m in S} a_m q(z | x_m), with a_m = 1/|S| or the user's weights summing to 1."""

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        return Posterior.mixture(experts.means, experts.log_variances, spread(experts, weights))
