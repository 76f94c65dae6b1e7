"""The importance-weighted bound, with the sources' experts as strata."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from msvae import gaussian
from msvae.config import ModelConfig
from msvae.objectives.base import Loss, Objective, singles, summary, weighted
from msvae.posterior import Evidence, Posterior
from msvae.source import SourceBatch

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


class ImportanceWeighted(Objective):
    """loss = -(1/|A|) sum_{m in A} E_{z^1..z^K ~ q_m} log (1/K) sum_k exp lw_mk

        lw = sum_n lam_n log p(x_n | z, w_n) + beta ( log p(z) + log p(w_m) - log q(z | x_A) - log q(w_m | x_m) )

    q(z | x_A) is the mixture of experts, whose every component is sampled K times. Source m is drawn with its own
    private code, the others with codes of their guards, so that z has to carry what they show. Any other
    fusion is one stratum: K codes of q(z | x_A), each source with its own private code. MMVAE (Shi et al. 2019, arXiv
    1911.03393), MMVAE+ (Palumbo et al. 2023); K = 1 is the ELBO.

    With `gradient: dreg` the posteriors' gradient is the doubly reparameterised one (Tucker et al. 2019, arXiv
    1810.04152): densities with their parameters held, and each code's gradient times its weight once more, but for the
    guards' codes, which no density weighs. It is
    unbiased where codes come from the very density they are weighed by; with strata of a mixture and K > 1, as MMVAE
    uses it, it is not, since all K codes of a stratum come from one expert and are weighed by the mixture.

    With `decodes: drawn` one stratum speaks instead of all: for K = 1 a stratum drawn for every source that is
    decoded, for K > 1 one for the whole row, since the logarithm joins the sources. Both are unbiased.
    """

    options = frozenset({"samples", "gradient", "decodes"})

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__(config, source_count)
        self.samples = config.samples
        self.doubly_reparameterised = config.gradient == "dreg"
        self.draws_strata = config.decodes == "drawn"
        self.stratified = config.fusion == "moe"

    @property
    def crosses_private(self) -> bool:
        return True

    def copies(self) -> int:
        return self.samples * (self.source_count if self.stratified and not self.draws_strata else 1)

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present = evidence.present
        posterior = model.fusion(evidence.shared)
        if self.stratified:
            codes = evidence.shared.sample(self.samples, generator)  # (samples, strata, rows, latent)
            own = singles(present)  # (strata, sources, rows)
            share = present.to(codes.dtype) / present.sum(dim=0)
        else:
            codes = posterior.samples(self.samples, generator)[:, None]
            own = present[None]
            share = codes.new_ones(1, len(posterior))
        speaking, decoded = self._strata(share, generator)
        decoded = (decoded & present).expand(self.samples, *own.shape)
        private = model.private_codes(evidence, own.repeat(self.samples, 1, 1), generator)
        codes, private = codes.view_as(codes), private.view_as(private)  # hooks hang on these
        raw = model.log_likelihoods(codes.flatten(0, 1), private, batch, decoded.flatten(0, 1))
        scores = raw.unflatten(0, (self.samples, -1))  # (samples, strata, sources, rows)
        by_sample = private.unflatten(0, (self.samples, -1))
        densities = self.beta * self._densities(model, evidence, posterior, codes, by_sample, own)
        if self.samples == 1:  # no logarithm joins the sources: each term by its own share
            shares = speaking[:, None] if speaking.dim() == 2 else speaking
            bound = weighted(model, shares * scores[0]) + share * densities[0]
        else:
            bound = speaking * self._log_mean_weight(weighted(model, scores) + densities, codes, private, own)
        shown = scores.sum(dim=(0, 1)) / decoded.sum(dim=(0, 1)).clamp_min(1)
        return summary(model, -bound.sum(dim=0), shown, present, kl=-(share * densities.mean(dim=0)).sum(dim=0))

    def _strata(self, share: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """How much each stratum counts, and (strata, sources, rows) which source is decoded from which stratum."""
        if not self.draws_strata:
            return share, (share > 0)[:, None].expand(-1, self.source_count, -1)
        voices = self.source_count if self.samples == 1 else 1
        drawn = torch.multinomial(share.T, voices, replacement=True, generator=generator)  # (rows, voices)
        chosen = torch.nn.functional.one_hot(drawn, len(share)).bool().permute(2, 1, 0)  # (strata, voices, rows)
        speaking = chosen.to(share.dtype)
        return speaking if self.samples == 1 else speaking[:, 0], chosen.expand(-1, self.source_count, -1)

    def _densities(
        self,
        model: JointVAE,
        evidence: Evidence,
        posterior: Posterior,
        codes: Float[Tensor, "samples strata rows latent"],
        private: Float[Tensor, "samples strata sources rows private"],
        own: Bool[Tensor, "strata sources rows"],
    ) -> Float[Tensor, "samples strata rows"]:
        """log p(z) + log p(w) - log q(z | x_A) - log q(w | x), the private ones where a source's own code is drawn."""
        mine = evidence.private
        if self.doubly_reparameterised:
            posterior, mine = posterior.detached(), mine.detached()
        prior = model.prior.log_density(codes.flatten(0, 2)).unflatten(0, codes.shape[:3])
        shared = prior - posterior.log_density(codes)
        zero = torch.zeros_like(private[0, 0, 0, 0])
        ratio = gaussian.log_density(private, zero, zero) - gaussian.log_density(
            private, mine.means, mine.log_variances
        )
        return shared + (ratio * own).sum(dim=2)

    def _log_mean_weight(
        self,
        log_weights: Float[Tensor, "samples strata rows"],
        codes: Float[Tensor, "samples strata rows latent"],
        private: Float[Tensor, "copies sources rows private"],
        own: Bool[Tensor, "strata sources rows"],
    ) -> Float[Tensor, "strata rows"]:
        """log (1/K) sum_k exp lw_k, with the gradient that the settings ask for; `own`: whose private code is its own,
        not its guard's."""
        bound = torch.logsumexp(log_weights, dim=0) - math.log(self.samples)
        if self.doubly_reparameterised and codes.requires_grad:
            weight = torch.softmax(log_weights.detach(), dim=0)
            codes.register_hook(lambda gradient: gradient * weight[..., None])
            if private.requires_grad:
                once_more = torch.where(own, weight[:, :, None], torch.ones_like(weight[:, :, None]))
                private.register_hook(lambda gradient: gradient * once_more.flatten(0, 1)[..., None])
        return bound
