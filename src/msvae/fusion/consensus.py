"""Consensus of dependent experts: sources err together, so agreement counts less than a product thinks.

CoDE-VAE (Mancisidor et al., ICML 2025).
"""

from jaxtyping import Float
from torch import Tensor

from msvae import gaussian
from msvae.fusion.base import Fusion, FusionSettings, normalised, spread
from msvae.posterior import Experts, Posterior


class Consensus(Fusion):
    """The Gaussian of `gaussian.consensus` over the present sources; dependence 0 is the product of experts."""

    options = frozenset({"prior_expert", "dependence"})

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__(settings)
        self.dependence = settings.dependence

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        shares = spread(experts, weights)
        if weights is not None:
            shares = normalised(shares)
        mean, log_variance = gaussian.consensus(
            shares, experts.means, experts.log_variances, self.dependence, self.prior_precision
        )
        return Posterior.single(mean, log_variance)
