"""A joint encoder whose single sources answer by normalizing flows. JNF (Senellart et al. 2023, arXiv 2302.03461)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from msvae.fusion.base import Fusion, FusionSettings, normalised, spread
from msvae.fusion.joint_encoder import JointEncoder
from msvae.gaussian import LARGEST_LOG_VARIANCE, log_density
from msvae.posterior import Experts, Posterior
from msvae.priors.flow import zuko

PARTICLES = 32
KERNEL = 0.1  # width of a particle, as a share of the deviation of all
HIDDEN, TRANSFORMS = (64, 64), 3


class JointFlows(Fusion):
    """q(z | x_1, .., x_M) by a joint encoder; q(z | x_m) by a flow that reads what the encoder of source m says.

    For any other subset q(z | x_S) ~ p(z) prod_{m in S} (q(z | x_m) / p(z))^a_m with p = N(0, I), which has no closed
    form: particles drawn from the flows of S, weighed by that product over their mixture's density (sampling importance
    resampling), stand for it; so do those of one flow for a single source. a_m is 1, or a user's weights, which sum to
    1. Needs zuko.
    """

    symmetric = False
    experts_are_posteriors = False

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__(settings)
        self.joint = JointEncoder(settings)
        self.flows = nn.ModuleList(
            zuko().flows.MAF(settings.latent, 2 * settings.latent, TRANSFORMS, hidden_features=HIDDEN, passes=2)
            for _ in range(settings.source_count)
        )
        noise = torch.randn(PARTICLES, settings.latent, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", noise, persistent=False)
        self.noise: Tensor

    def token_size(self, per_source: int) -> int:
        return self.joint.token_size(per_source)

    def log_posteriors(
        self, experts: Experts, codes: Float[Tensor, "copies rows latent"]
    ) -> Float[Tensor, "sources copies rows"]:
        """log q(z | x_m) of every source for the same codes, in nats."""
        with torch.autocast(codes.device.type, enabled=False):
            return torch.stack([flow(said).log_prob(codes) for flow, said in self._heard(experts)])

    def _heard(self, experts: Experts) -> list[tuple[nn.Module, Tensor]]:
        said = torch.cat([experts.means, experts.log_variances / LARGEST_LOG_VARIANCE], dim=2)
        return list(zip(self.flows, said, strict=True))

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        with torch.autocast(experts.means.device.type, enabled=False):
            joint = self.joint(experts, weights)
            complete = experts.present.all(dim=0)
            if weights is not None or experts.tokens is None:
                complete = torch.zeros_like(complete)
            if bool(complete.all()):
                return joint
            particles = self._particles(experts, weights)
        whole = complete[None, :, None]
        return Posterior(
            torch.where(whole, joint.means, particles.means),
            torch.where(whole, joint.log_variances, particles.log_variances),
            torch.where(
                complete, torch.full_like(particles.log_weights, -math.log(len(particles.means))), particles.log_weights
            ),
        )

    @torch.no_grad()
    def _particles(self, experts: Experts, weights: Tensor | None) -> Posterior:
        shares = spread(experts, weights)
        powers = shares if weights is None else normalised(shares)
        noise = self.noise[:, None].expand(-1, experts.means.shape[1], -1).to(experts.means.dtype)
        drawn = torch.stack([flow(said).transform.inv(noise) for flow, said in self._heard(experts)])
        codes = drawn.flatten(0, 1)  # (sources x particles, rows, latent)
        densities = self.log_posteriors(experts, codes)
        counted = (shares > 0)[:, None]
        product = torch.where(counted, powers[:, None] * densities, torch.zeros_like(densities)).sum(dim=0)
        zero = codes.new_zeros(codes.shape[-1])
        product = product + (1.0 - powers.sum(dim=0)) * log_density(codes, zero, zero)  # p is in each flow
        mixture = torch.logsumexp(densities.masked_fill(~counted, -torch.inf), dim=0)
        own = counted.expand(-1, len(noise), -1).flatten(0, 1)  # particles of sources that are heard
        log_weights = torch.where(own, product - mixture, torch.full_like(product, -torch.inf))
        center = codes.masked_fill(~own[..., None], 0.0).sum(dim=0) / own.sum(dim=0).clamp_min(1)[:, None]
        square = (codes - center).square().masked_fill(~own[..., None], 0.0).sum(dim=0)
        variance = KERNEL**2 * square / own.sum(dim=0).clamp_min(1)[:, None]
        log_variance = torch.log(variance.clamp_min(1e-12)).expand_as(codes)
        return Posterior.weighted(codes, log_variance, log_weights)
