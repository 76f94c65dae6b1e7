"""Consensus of dependent experts: sources err together, so agreement counts less than a product thinks.

CoDE-VAE (Mancisidor et al., ICML 2025).
"""

from jaxtyping import Float
from torch import Tensor

from msvae import gaussian
from msvae.fusion.base import Fusion, FusionSettings, normalised, spread
from msvae.posterior import Experts, Posterior


class Consensus(Fusion):
    """The Gaussian of `gaussian.consensus` over the present sources; dependence 0 is the product of experts.

    User weights scale the experts' precisions as in the product, and the number of experts becomes the effective one,
    (sum a)^2 / sum a^2, so that the fusion moves smoothly to one source as its weight takes over.
    """

    options = frozenset({"prior_expert", "dependence"})

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__(settings)
        self.dependence = settings.dependence

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        shares = spread(experts, weights)
        if weights is not None:
            shares = normalised(shares)
        squares = shares.square().sum(dim=0)
        count = shares.sum(dim=0).square() / squares.where(squares > 0, squares.new_ones(()))
        mean, log_variance = gaussian.consensus(
            gaussian.pool_rows(shares),
            experts.means,
            experts.log_variances,
            count[:, None],
            self.dependence,
            self.prior_precision,
        )
        return Posterior.single(mean, log_variance)
