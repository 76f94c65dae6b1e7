"""A joint encoder: one network reads all sources at once. JMVAE (Suzuki et al. 2017, arXiv 1611.01891)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from msvae.fusion.base import Fusion, FusionSettings
from msvae.fusion.product import ProductOfExperts
from msvae.gaussian import bounded_log_variance
from msvae.posterior import Experts, Posterior


class JointEncoder(Fusion):
    """q(z | x_1, .., x_M) by a network over a token of every source; rows that lack one, and users' weights, fall back
    to the product of the single sources' experts, which the objective has to train."""

    symmetric = False

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__(settings)
        width = self.token_size(settings.latent)
        self.read = nn.Sequential(
            nn.Linear(settings.source_count * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * settings.latent)
        )
        self.product = ProductOfExperts(FusionSettings(settings.source_count, settings.latent, prior_expert=False))

    def token_size(self, per_source: int) -> int:
        return max(64, 2 * per_source)

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        parts = self.product(experts, weights)
        complete = experts.present.all(dim=0)
        if weights is not None or experts.tokens is None or not bool(complete.any()):
            return parts
        with torch.autocast(experts.means.device.type, enabled=False):
            mean, log_variance = self.read(experts.tokens.transpose(0, 1).flatten(1)).chunk(2, dim=1)
        log_variance = bounded_log_variance(log_variance)
        return Posterior.single(
            torch.where(complete[:, None], mean, parts.means[0]),
            torch.where(complete[:, None], log_variance, parts.log_variances[0]),
        )
