"""Permutation-invariant fusion by self-attention over the sources (after arXiv 2309.00380)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from msvae.fusion.base import Fusion, FusionSettings, spread
from msvae.gaussian import LARGEST_LOG_VARIANCE, bounded_log_variance
from msvae.posterior import Experts, Posterior

HEADS = 4


class Attention(Fusion):
    """(mean, log-variance) = rho(pool_m attention(phi(h_m))), h_m what the encoder of source m says.

    Every source is a token; tokens look at each other once, and their sum, weighted by a learned query, is read.
    User weights a_m enter every softmax as log a_m: weight 0 is as good as absent. Sources have no place numbers, so
    their order does not matter.
    """

    experts_are_posteriors = False

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__(settings)
        width = HEADS * max(8, settings.latent // 2)
        self.phi = nn.Sequential(nn.Linear(2 * settings.latent, width), nn.SiLU(), nn.Linear(width, width))
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.importance = nn.Linear(width, 1)
        self.rho = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * settings.latent)
        )

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        nothing = ~(spread(experts, weights) > 0).any(dim=0)
        bias = torch.log(spread(experts, weights)).T  # (rows, sources)
        bias = torch.where(nothing[:, None], torch.zeros_like(bias), bias)
        counted = ~torch.isneginf(bias)[..., None]
        said = torch.cat([experts.means, experts.log_variances / LARGEST_LOG_VARIANCE], dim=2).transpose(0, 1)
        with torch.autocast(said.device.type, enabled=False):
            tokens = self.phi(torch.where(counted, said, torch.zeros_like(said)).to(self.importance.weight.dtype))
            bias = bias.to(tokens.dtype)
            split = self.queries_keys_values(tokens).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=bias[:, None, None, :])
            tokens = tokens + seen.transpose(1, 2).flatten(2)
            share = torch.softmax(self.importance(tokens).squeeze(2) + bias, dim=1)
            mean, log_variance = self.rho((share[..., None] * tokens).sum(dim=1)).chunk(2, dim=1)
        log_variance = bounded_log_variance(log_variance)
        blank = nothing[:, None]
        return Posterior.single(mean.masked_fill(blank, 0.0), log_variance.masked_fill(blank, 0.0))
