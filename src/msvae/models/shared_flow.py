"""The shared-latent flow: single-source VAEs, one shared code, a converter that draws it and a renderer that serves it.

x_m -> VAE_m -> h_m                   latents of each source, standardised        stage `sources`
{ x_m : m in S } -> w                 the shared code                             stage `code`
w ~ converter( . | S )                any S, none included                        stage `converter`
h_n = renderer(noise_n; w, n)         the noise is the private part of source n   stage `renderer`
x_n = decoder_n(h_n)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from msvae import flow
from msvae.config import SAMPLING_SETTINGS, FlowConfig
from msvae.errors import SourceError
from msvae.flow.agreement import QUARTILE, agreement, enough_guidance
from msvae.flow.coded import Evidence
from msvae.flow.converter import log_of
from msvae.fusion import FusionSettings
from msvae.fusion.barycenter import Barycenter
from msvae.fusion.base import normalised
from msvae.fusion.product import ProductOfExperts
from msvae.models.base import Features, Mode, Weights
from msvae.models.staged_flow import CHUNK, StagedFlow
from msvae.models.stages import RowSource
from msvae.networks.precision import autocast_for
from msvae.posterior import Experts, Posterior
from msvae.source import Source, SourceBatch, check_batch

# Rows that guidance is measured on, each drawn five times over: one standard error of their share is .01 of 2,048 and
# .03 of 256. Of larger latents fewer rows are drawn.
MEASURED_ROWS, MEASURED_LEAST_ROWS, MEASURED_VALUES = 2048, 256, 2**21


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; may be replaced on a trained model.

    Args:
        guidance: how much of what the code adds to the renderer's flow; 1 is the flow as trained, None what was
            measured at the end of training.
        begins: time of the path from noise (0) to data (1) at which that guidance begins.
        evidence: how much of what the given sources add to the converter's flow; likewise.
        code_steps, image_steps: Euler steps of converter and renderer.
        early: how much shorter the renderer's first steps are than its last.
        redraws, doubted: how often a sample is drawn again that says its code worse than this share of the training
            images says theirs; the best of the draws is taken.
        precision: of the renderer, which does nearly all the work: `fp32`, `bf16`, or `auto` for the native one.
    """

    guidance: float | None
    begins: float
    evidence: float
    code_steps: int
    image_steps: int
    early: float = 1.0
    redraws: int = 0
    doubted: float = 0.0
    precision: str = "auto"

    @classmethod
    def of(cls, config: FlowConfig) -> "Sampling":
        """What the settings of a run say."""
        return cls(**{name.removeprefix("sampling_"): getattr(config, name) for name in SAMPLING_SETTINGS})


class SharedFlow(StagedFlow):
    """The model of the module's text, behind the contract of every model."""

    def __init__(self, sources: Sequence[Source], config: FlowConfig) -> None:
        super().__init__(sources, config)
        self.sampling = Sampling.of(config)
        self.fusion_settings = FusionSettings(len(sources), config.code * config.grid**2)
        self.measured_guidance: Tensor
        self.register_buffer("measured_guidance", torch.ones(()))

    @property
    def guidance(self) -> float:
        """Of the renderer: the one that is chosen, or the one that was measured."""
        return float(self.measured_guidance) if self.sampling.guidance is None else self.sampling.guidance

    def end_stage(self, name: str, rows: RowSource) -> None:
        super().end_stage(name, rows)
        if name == "renderer" and self.config.renderer == "flow" and not self.config.trained:
            self._measure_guidance()

    @torch.no_grad()
    def _measure_guidance(self) -> None:
        """So that rows from nothing say their codes, before any is drawn again, as real images say theirs."""
        generator = torch.Generator(self.device).manual_seed(0)
        values = max(self.autoencoders.networks.size(name) for name in self.source_names)
        rows = min(MEASURED_ROWS, max(MEASURED_LEAST_ROWS, MEASURED_VALUES // values))
        parts = self.draw(rows, generator).tensor_split(len(self.source_names))  # one source of a row
        codes = dict(zip(self.source_names, parts, strict=True))
        noises = {name: self._private(name, len(code), generator) for name, code in codes.items()}

        def below_quartile(guidance: float) -> float:
            below = []
            for name, code in codes.items():
                said = self._agreement(name, self._rendered(name, code, noises[name], guidance), code)
                below.append(said < self.agreement.least(name, QUARTILE))
            return float(torch.cat(below).float().mean())

        self.measured_guidance.fill_(enough_guidance(below_quartile))

    @property
    def latent_rules(self) -> tuple[str, ...]:
        """Without a converter there are no flows to compose, and without a private part no appearance."""
        composed = ("flow",) if self.config.converter == "flow" else ()
        private = ("appearance",) if self.config.renderer == "flow" else ()
        return ("own", "product", "barycenter", *composed, *private)

    def _slots(self, code: Float[Tensor, "rows latent"]) -> Float[Tensor, "rows slots size"]:
        return code.unflatten(1, (self.content.slots, self.content.size))

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
        log_weights = None if vector is None else log_of(vector, len(batch))
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
        if self.config.converter == "product" and rule in ("own", "appearance"):
            rule = "product"
        if mode == "mean" or rule in ("product", "barycenter"):
            return super().codes(given, n, weights, mode, rule, generator)
        check_batch(given, self.sources, allow_empty_rows=True)
        vector = None if weights is None else self.weight_vector(weights, given)
        evidence = _repeated(self.content.evidence(given), n)
        rows = len(given) * n
        if rule == "flow":
            velocity = self.converter.composed(evidence, self._shares(vector, evidence.present))
        else:
            log_weights = None if vector is None else log_of(vector, rows)
            velocity = self.converter.guided(evidence, self.sampling.evidence, log_weights)
        return self._draw(velocity, rows, generator)

    def _draw(self, velocity: flow.Velocity, rows: int, generator: Generator | None) -> Float[Tensor, "rows latent"]:
        shape = (rows, self.content.slots, self.content.size)
        noise = torch.randn(shape, generator=generator, device=self.device)
        return flow.sample(velocity, noise, self.sampling.code_steps).flatten(1)

    def draw(
        self, rows: int, generator: Generator | None = None, *, from_prior: bool = False
    ) -> Float[Tensor, "rows latent"]:
        """Codes from the converter's flow given nothing, which is this model's prior; without that flow N(0, I)."""
        if self.config.converter == "product":
            size = self.content.slots * self.content.size
            return torch.randn(rows, size, generator=generator, device=self.device)
        evidence = self.content.evidence(self.nothing(rows))
        return self._draw(self.converter.velocity(evidence), rows, generator)

    def decode(
        self,
        code: Float[Tensor, "rows latent"],
        to: Sequence[str] | str | None = None,
        mode: Mode = "mean",
        generator: Generator | None = None,
    ) -> SourceBatch:
        images = {}
        for name in self.wanted(to):
            latents, _ = self._answered(name, code, mode, generator)
            images[name] = self._image(name, latents)
            if mode == "sample":
                images[name] = self.grain.add(name, images[name], generator)
        return SourceBatch.complete(images)

    def _answered(
        self,
        name: str,
        code: Float[Tensor, "rows latent"],
        mode: Mode,
        generator: Generator | None,
        shown: Bool[Tensor, " rows"] | None = None,
    ) -> tuple[Float[Tensor, "rows latents"], Tensor | None]:
        """Latents for a code, and the noise that is their private part; None for the expectation over it.

        What says the code badly is drawn again, with other noise.

        Args:
            shown: rows that somebody will see; the others are drawn once.
        """
        if mode == "mean" or self.config.renderer == "mean":
            return self._rendered(name, code, None), None
        noise = self._private(name, len(code), generator)
        latents = self._rendered(name, code, noise)
        if not self.sampling.redraws or not self.sampling.doubted:
            return latents, noise
        least = self.agreement.least(name, self.sampling.doubted)
        said = self._agreement(name, latents, code)
        if shown is not None:
            said = said.masked_fill(~shown, math.inf)
        for _ in range(self.sampling.redraws):
            doubted = (said < least).nonzero().squeeze(1)
            if not len(doubted):
                break
            other = self._private(name, len(doubted), generator)
            found = self._rendered(name, code[doubted], other)
            now = self._agreement(name, found, code[doubted])
            better = now > said[doubted]
            chosen = doubted[better]
            latents = latents.index_copy(0, chosen, found[better])
            noise, said = noise.index_copy(0, chosen, other[better]), said.index_copy(0, chosen, now[better])
        return latents, noise

    def _private(self, name: str, rows: int, generator: Generator | None) -> Float[Tensor, "rows latents"]:
        return torch.randn(rows, self.autoencoders.networks.size(name), generator=generator, device=self.device)

    @torch.no_grad()
    def _agreement(
        self, name: str, latents: Float[Tensor, "rows latents"], code: Float[Tensor, "rows latent"]
    ) -> Float[Tensor, " rows"]:
        """How well the images of these latents say the code."""
        said = []
        for part, wanted in zip(latents.split(CHUNK), self.standard.restore(code).split(CHUNK), strict=True):
            with autocast_for(self.device, self.sampling.precision):
                image = SourceBatch.complete({name: self.autoencoders.image(name, part)})
                tokens = self.content.evidence(image).tokens[self.source_names.index(name)]
            said.append(agreement(tokens, self._slots(wanted)))
        return torch.cat(said)

    def _rendered(
        self, name: str, code: Float[Tensor, "rows latent"], noise: Tensor | None, guidance: float | None = None
    ) -> Float[Tensor, "rows latents"]:
        guidance = self.guidance if guidance is None else guidance
        slots = self._slots(code)
        if noise is None:
            return torch.cat([self.renderer.mean(name, part) for part in slots.split(CHUNK)])
        answers = []
        with autocast_for(self.device, self.sampling.precision):
            for part, start in zip(slots.split(CHUNK), noise.split(CHUNK), strict=True):
                velocity = self.renderer.guided(name, part, guidance, self.sampling.begins)
                answers.append(flow.sample(velocity, start, self.sampling.image_steps, self.sampling.early))
        return torch.cat(answers)

    def _image(self, name: str, latents: Float[Tensor, "rows latents"]) -> Tensor:
        return torch.cat([self.autoencoders.image(name, part) for part in latents.split(CHUNK)])

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
        Rule `appearance` draws every wanted source from the noise that the given ones come from, mixed by weights.
        """
        given = given.to(self.device)
        n = len(codes) // len(given)
        vector = None if weights is None else self.weight_vector(weights, given)
        shares = self._shares(vector, given.presence(self.source_names))
        latents = self._latents(given)
        mixed = self._mixed_noise(given, latents, shares) if rule == "appearance" else None
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
                drawn = self._rendered(name, codes, mixed.repeat_interleave(n, dim=0), guidance=1.0)
            else:
                drawn, noise = self._answered(name, codes, mode, generator, share < 1.0)
                if vector is not None and bool(kept.any()):
                    alone = self.encode(given.select([name]), {name: 1.0}, rule).mean.repeat_interleave(n, dim=0)
                    turned = drawn + share[:, None] * (own - self._rendered(name, alone, noise))
                    drawn = torch.where(kept[:, None], turned, drawn)
                drawn = torch.where(share[:, None] == 1.0, own, drawn)
            images[name] = self._image(name, drawn)
            if mode == "sample":
                images[name] = self.grain.add(name, images[name], generator, 1.0 - share)
        return SourceBatch.complete(images)

    def _mixed_noise(
        self, given: SourceBatch, latents: dict[str, Tensor], shares: Float[Tensor, "sources rows"]
    ) -> Float[Tensor, "rows latents"]:
        """sum_m a_m noise_m / sqrt(sum_m a_m^2): the given sources' private parts, still of variance 1.

        Raises:
            SourceError: where sources have latents of different shapes.
        """
        sizes = {name: len(latents[name][0]) for name in self.source_names}
        if len(set(sizes.values())) > 1:
            raise SourceError(f"Rule 'appearance' needs sources with latents of one shape, got {sizes}.")
        total = torch.zeros_like(latents[self.source_names[0]])
        for name, share in zip(self.source_names, shares, strict=True):
            if bool((share > 0).any()):
                code = self._slots(self.encode(given.select([name])).mean)
                velocity = self.renderer.velocity([(name, len(code))], code)
                total += share[:, None] * flow.invert(
                    velocity, latents[name], self.sampling.image_steps, self.sampling.early
                )
        return total / shares.square().sum(dim=0).sqrt().clamp_min(1e-6)[:, None]

    def features(self, batch: SourceBatch) -> Features:
        batch = batch.to(self.device)
        pooled_code = self.encode(batch).mean
        shapes = self.autoencoders.networks.map_shape
        latents = self._latents(batch)
        return Features(pooled_code, {name: latents[name].unflatten(1, shapes[name]) for name in batch.names})


def _repeated(evidence: Evidence, n: int) -> Evidence:
    """Every row n times, in succession."""
    return Evidence(*(part.repeat_interleave(n, dim=1) for part in vars(evidence).values()))
