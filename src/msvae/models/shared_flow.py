"""The shared-latent flow: single-source VAEs, one shared code, a converter that draws it and a renderer that serves it.

x_m -> VAE_m -> h_m                   latents of each source, standardised        stage `sources`
{ x_m : m in S } -> w                 the shared code                             stage `code`
w ~ converter( . | S )                any S; from nothing, a fitted mixture       stage `converter`
h_n = renderer(noise_n; w, n)         the noise is the private part of source n   stage `renderer`
x_n = decoder_n(h_n)
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from msvae import flow
from msvae.config import FlowConfig
from msvae.errors import SourceError
from msvae.flow.coded import CodeEvidence
from msvae.flow.converter import log_of
from msvae.fusion import FusionSettings
from msvae.fusion.barycenter import Barycenter
from msvae.fusion.base import normalised
from msvae.fusion.product import ProductOfExperts
from msvae.models.base import Features, Mode, Weights
from msvae.models.drawing_flow import DrawingFlow
from msvae.models.stages import CHUNK
from msvae.posterior import Experts, Posterior
from msvae.source import Source, SourceBatch, check_batch

INVERTED_STEPS = 8  # Euler's, which can be taken back
USUAL_EVIDENCE = 2.0  # guidance of the converter


class SharedFlow(DrawingFlow):
    """The model of the module's text, behind the contract of every model."""

    def __init__(self, sources: Sequence[Source], config: FlowConfig) -> None:
        super().__init__(sources, config)
        self.fusion_settings = FusionSettings(len(sources), config.code * config.grid**2, prior_expert=False)

    @property
    def latent_rules(self) -> tuple[str, ...]:
        """Without a converter there are no flows to compose, and without a private part no appearance."""
        composed = ("flow",) if self.config.converter == "flow" else ()
        private = ("appearance",) if self.config.renderer == "flow" else ()
        return ("own", "product", "barycenter", *composed, *private)

    @property
    def has_density(self) -> bool:
        """Whether log p(x) has a bound: that of both flows, without the alignment, whose images have no density."""
        return self.config.converter == self.config.renderer == "flow" and not self.config.aligned

    def encode(self, batch: SourceBatch, weights: Weights | None = None, rule: str = "own") -> Posterior:
        """A Gaussian around the code of the present sources; questions draw from the converter's flow in its place.

        Args:
            rule: `own` (and `appearance`): evidence pooled with logits + log a_m; `product` and `barycenter`: of one
                Gaussian per source, as wide as its code is from that of all sources on training rows; `flow`:
                E_0 + sum_m a_m (E_m - E_0) with the converter's E_m = E[w | x_m].
        """
        batch = batch.to(self.device)
        check_batch(batch, self.sources, allow_empty_rows=True)
        self.check_rule(rule)
        vector = None if weights is None else self.weight_vector(weights, batch)
        evidence = self.content.evidence(batch)
        means = torch.stack([self._standardised(tokens).flatten(1) for tokens in evidence.tokens])
        variances = self.spread[:, None].log().expand_as(means)
        experts = Experts(means, variances, evidence.present)
        if rule == "barycenter":
            return Barycenter(self.fusion_settings)(experts, vector)
        product = ProductOfExperts(self.fusion_settings)(experts, vector)
        if rule == "product":
            return product
        log_weights = None if vector is None else log_of(_relative(vector, evidence.present))
        if rule == "flow":
            state = evidence.tokens.new_zeros(len(batch), self.content.slots, self.content.size)
            velocity = self.converter.composed(evidence, self._shares(vector, evidence.present))
            mean = velocity(state, state.new_zeros(len(batch)))
        else:
            mean = self._whole(evidence, log_weights)
        counted = evidence.present if vector is None else evidence.present & (vector > 0)[:, None]
        mean = mean.flatten(1) * counted.any(dim=0)[:, None]
        return Posterior.single(mean, product.log_variances[0])

    def _shares(self, vector: Tensor | None, present: Bool[Tensor, "sources rows"]) -> Float[Tensor, "sources rows"]:
        vector = torch.ones(len(present), device=present.device) if vector is None else vector
        return normalised(vector[:, None] * present)

    @torch.no_grad()
    def codes(
        self,
        given: SourceBatch,
        n: int,
        weights: Weights | None,
        mode: Mode,
        rule: str,
        generator: Generator | None,
    ) -> Float[Tensor, "samples latent"]:
        given = given.to(self.device)
        self.check_rule(rule)
        own = rule in ("own", "appearance")
        by_mixture = own and self._codes_by_mixture(self.sampling.codes_by)
        rule = self._rule_in_force(rule)
        if mode == "mean" or rule in ("product", "barycenter"):
            return super().codes(given, n, weights, mode, rule, generator)
        check_batch(given, self.sources, allow_empty_rows=True)
        vector = None if weights is None else self.weight_vector(weights, given)
        evidence = _repeated(self.content.evidence(given), n)
        relative = None if vector is None else _relative(vector, evidence.present)
        if by_mixture:
            return self._drawn_by_mixture(evidence, self._counted(evidence, relative), generator)
        rows = len(given) * n
        nothing = ~evidence.present.any(dim=0)
        fitted = self.has_fitted_sampler and bool(nothing.any())  # else the converter draws all rows at once
        if fitted and bool(nothing.all()):
            return self.draw(rows, generator)
        if rule == "flow":
            velocity = self.converter.composed(evidence, self._shares(vector, evidence.present))
        elif isinstance(self.sampling.evidence, Mapping):
            velocity = self.converter.composed(evidence, self._counted(evidence, relative))
        else:
            log_weights = None if relative is None else log_of(relative)
            guidance = USUAL_EVIDENCE if self.sampling.evidence is None else self.sampling.evidence
            velocity = self.converter.guided(evidence, guidance, log_weights)
        codes = self._draw(velocity, rows, generator)
        return torch.where(nothing[:, None], self.draw(rows, generator), codes) if fitted else codes

    def _counted(
        self, evidence: CodeEvidence, relative: Float[Tensor, "sources rows"] | None
    ) -> Float[Tensor, "sources rows"]:
        """How often each source's word counts: its weight in the row, times the chosen evidence."""
        chosen = self.sampling.evidence
        counted = evidence.present.float() if relative is None else relative
        if chosen is None:
            return counted
        each = chosen if isinstance(chosen, Mapping) else dict.fromkeys(self.source_names, chosen)
        times = torch.tensor([each.get(name, 1.0) for name in self.source_names], device=counted.device)
        return counted * times[:, None]

    def _rule_in_force(self, rule: str) -> str:
        """By which codes are found: without a converter and a mixture the product is the model's own rule."""
        own = rule in ("own", "appearance") and not self._codes_by_mixture(self.sampling.codes_by)
        return "product" if own and self.config.converter == "product" else rule

    @torch.no_grad()
    def answer(
        self,
        codes: Float[Tensor, "samples latent"],
        given: SourceBatch,
        to: Sequence[str] | str | None,
        weights: Weights | None,
        mode: Mode,
        rule: str,
        generator: Generator | None,
    ) -> SourceBatch:
        """A given source that is wanted keeps its own latents: by its weight, where there are weights.

        Without weights it comes back as its autoencoder sees it. With weights, h = R(w) + a (h_own - R(w_own)), where
        R is the renderer with one noise and w_own the code of this source alone: a = 1 gives h_own. Which draws of R(w)
        say w badly is judged before.
        Rule `appearance` draws every wanted source from the noise that the given ones come from, mixed by weights, but
        for one that has all the weight, which gives its own latents.
        """
        given = given.to(self.device)
        n = len(codes) // len(given)
        vector = None if weights is None else self.weight_vector(weights, given)
        shares = self._shares(vector, given.presence(self.source_names))
        latents = self._latents(given)
        mixed = self._mixed_noise(given, latents, shares, generator) if rule == "appearance" else None
        images = {}
        for index, name in enumerate(self.source_names):
            if name not in self.wanted(to):
                continue
            share = shares[index].repeat_interleave(n)
            kept = share > 0
            own = latents[name].repeat_interleave(n, dim=0)
            if vector is None and mixed is None:
                share = kept.float()  # all of its own, or nothing
                if bool(kept.all()):
                    images[name] = self._image(name, own)
                    continue
            if mixed is not None:
                drawn = self._from_its_noise(name, codes, mixed.repeat_interleave(n, dim=0))
            else:
                drawn, noise = self._answered(name, codes, mode, generator, share < 1.0)
                if vector is not None and bool(kept.any()):
                    told = given.select([name])
                    alone = self.encode(told, {name: 1.0}, self._rule_in_force(rule)).mean.repeat_interleave(n, dim=0)
                    turned = drawn + share[:, None] * (own - self._rendered(name, alone, noise))
                    drawn = torch.where(kept[:, None], turned, drawn)
            images[name] = self._image(name, torch.where(share[:, None] == 1.0, own, drawn))
            if mode == "sample":
                images[name] = self.grain.add(name, images[name], generator, 1.0 - share)
        return SourceBatch.complete(images)

    def _mixed_noise(
        self,
        given: SourceBatch,
        latents: dict[str, Tensor],
        shares: Float[Tensor, "sources rows"],
        generator: Generator | None,
    ) -> Float[Tensor, "rows latents"]:
        """sum_m a_m noise_m / sqrt(sum_m a_m^2): the given sources' private parts, still of variance 1; any noise in
        rows without a source.

        Raises:
            SourceError: where sources have latents of different shapes.
        """
        shapes = {name: self.autoencoders.networks.map_shape[name] for name in self.source_names}
        if len(set(shapes.values())) > 1:
            raise SourceError(f"Rule 'appearance' needs sources with latents of one shape, got {shapes}.")
        total = torch.zeros_like(latents[self.source_names[0]])
        for name, share in zip(self.source_names, shares, strict=True):
            if bool((share > 0).any()):
                code = self._slots(self.encode(given.select([name])).mean)
                velocity = self.renderer.velocity([(name, len(code))], code)
                total += share[:, None] * flow.invert(velocity, latents[name], INVERTED_STEPS)
        mixed = total / shares.square().sum(dim=0).sqrt().clamp_min(1e-6)[:, None]
        nothing = (~(shares > 0).any(dim=0)).nonzero().squeeze(1)
        return mixed.index_copy(0, nothing, self._private(self.source_names[0], len(nothing), generator))

    def _from_its_noise(
        self, name: str, code: Float[Tensor, "rows latent"], noise: Float[Tensor, "rows latents"]
    ) -> Float[Tensor, "rows latents"]:
        """What the flow draws of such noise, by the steps that `_mixed_noise` takes back."""
        found = []
        for part, start in zip(self._slots(code).split(CHUNK), noise.split(CHUNK), strict=True):
            velocity = self.renderer.velocity([(name, len(part))], part)
            found.append(flow.sample(velocity, start, INVERTED_STEPS))
        return torch.cat(found)

    def features(self, batch: SourceBatch) -> Features:
        batch = batch.to(self.device)
        pooled_code = self.encode(batch).mean
        shapes = self.autoencoders.networks.map_shape
        latents = self._latents(batch)
        return Features(pooled_code, {name: latents[name].unflatten(1, shapes[name]) for name in batch.names})


def _relative(
    vector: Float[Tensor, " sources"], present: Bool[Tensor, "sources rows"]
) -> Float[Tensor, "sources rows"]:
    """Weights as shares of the largest among the sources that a row has; 0 for absent ones."""
    counted = vector[:, None] * present
    return counted / counted.amax(dim=0).clamp_min(torch.finfo(counted.dtype).tiny)


def _repeated(evidence: CodeEvidence, n: int) -> CodeEvidence:
    """Every row n times, in succession."""
    return CodeEvidence(*(part.repeat_interleave(n, dim=1) for part in vars(evidence).values()))
