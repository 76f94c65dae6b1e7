"""Generalised product of experts: how much each source counts is learned for every latent dimension.

Cao & Fleet 2014, arXiv 1410.7827.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from msvae import gaussian
from msvae.fusion.base import Fusion, FusionSettings, normalised, spread
from msvae.posterior import Experts, Posterior


class GeneralisedProduct(Fusion):
    """q(z_d | x_S) ~ prod_{m in S} q(z_d | x_m)^a_md with learned a_md >= 0 that sum to 1 over the present sources.

    User weights multiply the learned ones. Equal at the start.
    """

    symmetric = False  # the learned weights belong to the sources

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__(settings)
        self.logits = nn.Parameter(torch.zeros(settings.source_count, 1, settings.latent))

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        logits = self.logits + torch.log(spread(experts, weights))[..., None]
        largest = logits.amax(dim=0).clamp_min(torch.finfo(logits.dtype).min)  # of what is heard, if anything is
        shares = normalised(torch.exp(logits - largest))

        def pool(values: Tensor) -> Tensor:
            return (shares * values).sum(dim=0)

        return Posterior.single(*gaussian.product(pool, experts.means, experts.log_variances, prior_precision=0.0))
