"""The shared-latent flow: single-source VAEs, one shared code, a converter that draws it and a renderer that serves it.

x_m -> VAE_m -> h_m                   latents of each source, standardised        stage `sources`
{ x_m : m in S } -> w                 the shared code                             stage `code`
w ~ converter( . | S )                any S, none included                        stage `converter`
h_n = renderer(noise_n; w, n)         the noise is the private part of source n   stage `renderer`
x_n = decoder_n(h_n)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from msvae import flow
from msvae.config import FlowConfig
from msvae.errors import ConfigError, SourceError, unknown
from msvae.flow.autoencoders import Autoencoders, Standardiser, present_values
from msvae.flow.coded import CodedBatch, Evidence, joined
from msvae.flow.content import Content, pooled
from msvae.flow.converter import Converter, log_of
from msvae.flow.renderer import Renderer
from msvae.fusion import FusionSettings
from msvae.fusion.barycenter import Barycenter
from msvae.fusion.base import normalised
from msvae.fusion.product import ProductOfExperts
from msvae.models.base import Features, Loss, Mode, MultiSourceModel, Weights
from msvae.models.stages import RowSource, Stage, in_chunks
from msvae.networks.spatial import MapNetworks
from msvae.posterior import Experts, Posterior
from msvae.source import Source, SourceBatch, check_batch

CHUNK = 512
TRAINING_CODE_STEPS = 6
SMALLEST_SPREAD = 1e-3
SHARES = {"sources": 0.40, "code": 0.17, "converter": 0.05, "renderer": 0.38}


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; may be replaced on a trained model.

    Args:
        guidance: how much of what the code adds to the renderer's flow; 1 is the flow as trained.
        code_steps, image_steps: Euler steps of converter and renderer.
    """

    guidance: float
    code_steps: int
    image_steps: int


class SharedFlow(MultiSourceModel):
    """The model of the module's text, behind the contract of every model.

    Outside of staged training, `loss` is the sum of the losses of all stages.
    """

    def __init__(self, sources: Sequence[Source], config: FlowConfig) -> None:
        super().__init__(sources)
        if len(sources) < 2:
            raise ConfigError(f"Method 'flow' needs two sources or more, got {self.source_names}.")
        self.config = config
        names = self.source_names
        latent_networks = MapNetworks(
            sources, config.channels, config.width, config.side, config.refine, config.shared_trunk, config.added
        )
        self.autoencoders = Autoencoders(sources, latent_networks, config.noise, config.edges, config.even_contrast)
        content_networks = MapNetworks(
            sources, 2 * config.content_width, config.content_width, max(4, config.grid), 0, config.shared_trunk,
            decoders=False,
        )  # fmt: skip
        sizes = {name: latent_networks.size(name) for name in names}
        self.content = Content(sources, content_networks, config.code, config.grid, sizes, config.shift)
        slots, size = self.content.slots, config.code
        self.converter = Converter(names, slots, size, config.converter_width, config.converter_depth, config.heads)
        self.renderer = Renderer(
            latent_networks.map_shape, slots, size, config.renderer_width, config.renderer_depth, config.heads,
            config.dropped,
            config.patch,
        )  # fmt: skip
        self.standard = Standardiser(slots * size)
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(len(names), slots * size))
        self.sampling = Sampling(config.guidance, config.code_steps, config.image_steps)
        self.stage: str | None = None
        self.progress = 0.0
        self.fusion_settings = FusionSettings(len(sources), config.code * config.grid**2)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What each stage trains."""
        return {
            "sources": self.autoencoders,
            "code": self.content,
            "converter": self.converter,
            "renderer": self.renderer,
        }

    @property
    def stages(self) -> tuple[Stage, ...]:
        shares = {**SHARES, **self.config.shares}
        steps = {**({"sources": 0} if self.config.reuse else {}), **self.config.steps}
        rows = {"sources": 0.25, "code": 1.0, "converter": 4.0, "renderer": 2.0}
        gates = {"sources": "reconstruction", "code": "code", "converter": "converter", "renderer": "samples"}
        return tuple(
            Stage(
                name,
                shares[name],
                steps.get(name),
                rows[name],
                rate=0.5 if name in ("converter", "renderer") else 1.0,
                ema_decay=0.998 if name in ("sources", "code") else 0.999,
                gate=gates[name],
            )
            for name in self.parts
        )

    @property
    def latent_rules(self) -> tuple[str, ...]:
        return ("own", "product", "barycenter", "flow", "appearance")

    def enter_stage(self, name: str) -> None:
        self.stage = name
        for part, module in self.parts.items():
            for parameter, value in module.named_parameters():
                value.requires_grad_(part == name and self._is_trained(parameter))
        self.train(self.training)

    @property
    def trained_sources(self) -> tuple[str, ...]:
        """The sources whose networks are trained: all, or those that are added to a trained model."""
        return self.config.trained or self.source_names

    def _is_trained(self, parameter: str) -> bool:
        own = {f"of_{name}" for name in self.config.trained}
        return not own or not own.isdisjoint(parameter.split("."))

    def extend(self, base: "SharedFlow") -> None:
        """Take over all of a trained model of some of the sources; only the others are trained from now on."""
        known = base.state_dict()
        spread = known.pop("spread")
        self.load_state_dict(known, strict=False)
        for index, name in enumerate(base.source_names):
            self.spread[self.source_names.index(name)] = spread[index]

    def take_autoencoders(self, other: MultiSourceModel) -> None:
        """Take over the trained autoencoders of another flow of the same sources.

        Raises:
            ConfigError: if they do not fit.
        """
        if not isinstance(other, SharedFlow):
            raise ConfigError("Setting 'model.reuse': the run is of another method than 'flow'.")
        try:
            self.autoencoders.load_state_dict(other.autoencoders.state_dict())
        except RuntimeError:
            raise ConfigError(
                f"Setting 'model.reuse': the autoencoders of {', '.join(other.source_names)} do not fit this run's "
                f"sources ({', '.join(self.source_names)}) or sizes."
            ) from None

    def tell_progress(self, share: float) -> None:
        self.progress = share

    def train(self, mode: bool = True) -> "SharedFlow":
        super().train(mode)
        for part, module in self.parts.items():
            if self.stage is not None and part != self.stage:
                module.eval()
        return self

    def stage_rows(self, name: str, rows: RowSource) -> RowSource:
        """The flows train on codes computed once; the stages before on images."""
        if name in ("sources", "code"):
            return rows
        return joined([self._coded(rows.batch(index).to(self.device)) for index in in_chunks(rows, CHUNK)])

    @torch.no_grad()
    def end_stage(self, name: str, rows: RowSource) -> None:
        """Exact statistics of the latents, or of the code, over the training rows."""
        self.eval()
        if name == "sources":
            found: dict[str, list[Tensor]] = {source: [] for source in self.trained_sources}
            for index in in_chunks(rows, CHUNK):
                batch = rows.batch(index).to(self.device)
                encoded = self.autoencoders.networks.encode(present_values(batch, self.trained_sources))
                for source, maps in encoded.items():
                    found[source].append(maps)
            for source, parts in found.items():
                values = torch.cat(parts).flatten(1) if parts else torch.empty(0, 1)
                if len(values) > 1:
                    self.autoencoders.calibrate(source, values)
        elif name == "code":
            everything = joined([self._coded(rows.batch(index).to(self.device)) for index in in_chunks(rows, CHUNK)])
            if not self.config.trained:
                self.standard.calibrate(pooled(everything.evidence).flatten(1))
            self._measure_spread(everything.evidence)
        self.train()

    def _measure_spread(self, evidence: Evidence) -> None:
        """How far each source's own code is from that of all: the variance of the experts."""
        whole = self._whole(evidence).flatten(1)
        for name in self.trained_sources:
            index = self.source_names.index(name)
            has_it = evidence.present[index]
            several = has_it & (evidence.present.sum(dim=0) > 1)
            if int(several.sum()) > 1:
                gap = self._standardised(evidence.tokens[index, several]).flatten(1) - whole[several]
                self.spread[index] = gap.square().mean(dim=0).clamp_min(SMALLEST_SPREAD)

    def loss(self, batch: SourceBatch, generator: Generator | None = None) -> Loss:
        batch = batch.to(self.device)
        if not isinstance(batch, CodedBatch):
            check_batch(batch, self.sources)
        terms: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        wanted = list(self.parts) if self.stage is None else [self.stage]
        latents: dict[str, Tensor] | None = None
        if "sources" in wanted:
            named = [name for name in batch.names if name in self.trained_sources]
            found, nats, latents = self.autoencoders.losses(batch.select(named), generator)
            losses += found.values()
            terms |= {f"reconstruction/{name}": value.detach() for name, value in nats.items()}
        if "code" in wanted:
            evidence = self.content.evidence(batch, self.training, generator)
            loss, parts = self.content.loss(evidence, latents or self._latents(batch), generator)
            losses.append(loss)
            terms |= parts
        if {"converter", "renderer"} & set(wanted):
            coded = batch if isinstance(batch, CodedBatch) else self._coded(batch, latents)
            if "converter" in wanted:
                losses.append(self._converter_loss(coded, generator))
                terms["converter"] = losses[-1].detach()
            if "renderer" in wanted:
                losses.append(self._renderer_loss(coded, generator))
                terms["renderer"] = losses[-1].detach()
        total = torch.stack(losses).sum() if losses else torch.zeros((), device=self.device)
        if not total.requires_grad:  # nothing in this batch that is trained
            total = total + 0.0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()
        return Loss(total, terms)

    def _converter_loss(self, coded: CodedBatch, generator: Generator | None) -> Tensor:
        self_drawn = self.config.self_distillation and self.progress > 0.5
        evidence = coded.evidence
        return self.converter.loss(evidence, self._whole(evidence), generator, self_drawn)

    def _renderer_loss(self, coded: CodedBatch, generator: Generator | None) -> Tensor:
        """A random present source of each row, from the code of the others (leave-one-out): its own evidence, which
        no question but reconstruction has, never enters."""
        evidence = coded.evidence
        count, rows = evidence.present.shape
        trained = torch.tensor([name in self.trained_sources for name in self.source_names], device=self.device)
        wanted = evidence.present & trained[:, None]
        lottery = torch.rand(count, rows, generator=generator, device=self.device)
        chosen = lottery.masked_fill(~wanted, -1.0).argmax(dim=0)
        target = torch.zeros_like(wanted)
        target[chosen, torch.arange(rows, device=self.device)] = True
        target &= wanted
        others = evidence.restricted(~target)
        code = self._whole(others)
        drawn = torch.rand(rows, generator=generator, device=self.device) < self.config.sampled
        known = others.present.any(dim=0) | drawn
        index = drawn.nonzero().squeeze(1)
        if len(index):
            start = torch.randn(code[index].shape, generator=generator, device=self.device)
            with torch.no_grad():
                sampled = flow.sample(self.converter.velocity(others.rows(index)), start, TRAINING_CODE_STEPS)
            code = code.index_copy(0, index, sampled)
        mine = {name: target[i].nonzero().squeeze(1) for i, name in enumerate(self.source_names)}
        mine = {name: found for name, found in mine.items() if len(found)}
        if not mine:
            return code.new_zeros(())
        return self.renderer.loss(
            {name: coded.latents[name][found] for name, found in mine.items()},
            {name: code[found] for name, found in mine.items()},
            {name: known[found] for name, found in mine.items()},
            generator,
        )

    @torch.no_grad()
    def _latents(self, batch: SourceBatch) -> dict[str, Tensor]:
        """Standardised latents of every source by row; zero where it is absent."""
        codes = self.autoencoders.latents(present_values(batch, self.source_names))
        return {name: self.autoencoders.by_row(name, codes, batch) for name in self.source_names}

    @torch.no_grad()
    def _coded(self, batch: SourceBatch, latents: dict[str, Tensor] | None = None) -> CodedBatch:
        evidence = self.content.evidence(batch)
        found = {name: value.detach() for name, value in (latents or self._latents(batch)).items()}
        present = dict(zip(self.source_names, evidence.present, strict=True))
        return CodedBatch({}, present, found, evidence)

    def _standardised(self, tokens: Float[Tensor, "rows slots size"]) -> Float[Tensor, "rows slots size"]:
        return self.standard(tokens.flatten(1)).view_as(tokens)

    def _whole(
        self, evidence: Evidence, log_weights: Float[Tensor, "sources rows"] | None = None
    ) -> Float[Tensor, "rows slots size"]:
        """The code that the present sources pool to, standardised."""
        return self._standardised(pooled(evidence, log_weights))

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
        if rule not in self.latent_rules:
            raise ConfigError(unknown("latent rule", rule, self.latent_rules))
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
        if mode == "mean" or rule in ("product", "barycenter"):
            return super().codes(given, n, weights, mode, rule, generator)
        check_batch(given, self.sources, allow_empty_rows=True)
        vector = None if weights is None else self.weight_vector(weights, given)
        evidence = _repeated(self.content.evidence(given), n)
        rows = len(given) * n
        if rule == "flow":
            velocity = self.converter.composed(evidence, self._shares(vector, evidence.present))
        else:
            velocity = self.converter.velocity(evidence, None if vector is None else log_of(vector, rows))
        return self._draw(velocity, rows, generator)

    def _draw(self, velocity: flow.Velocity, rows: int, generator: Generator | None) -> Float[Tensor, "rows latent"]:
        shape = (rows, self.content.slots, self.content.size)
        noise = torch.randn(shape, generator=generator, device=self.device)
        return flow.sample(velocity, noise, self.sampling.code_steps).flatten(1)

    def draw(
        self, rows: int, generator: Generator | None = None, *, from_prior: bool = False
    ) -> Float[Tensor, "rows latent"]:
        """Codes from the converter's flow given nothing, which is this model's prior."""
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
            latents = self._rendered(name, code, self._private(name, len(code), mode, generator))
            images[name] = self._image(name, latents)
        return SourceBatch.complete(images)

    def _private(self, name: str, rows: int, mode: Mode, generator: Generator | None) -> Tensor | None:
        """The noise that is a source's private part; None for the expectation over it."""
        if mode == "mean":
            return None
        return torch.randn(rows, self.autoencoders.networks.size(name), generator=generator, device=self.device)

    def _rendered(
        self, name: str, code: Float[Tensor, "rows latent"], noise: Tensor | None, guidance: float | None = None
    ) -> Float[Tensor, "rows latents"]:
        guidance = self.sampling.guidance if guidance is None else guidance
        slots = self._slots(code)
        if noise is None:
            return torch.cat([self.renderer.mean(name, part) for part in slots.split(CHUNK)])
        answers = []
        for part, start in zip(slots.split(CHUNK), noise.split(CHUNK), strict=True):
            answers.append(flow.sample(self.renderer.guided(name, part, guidance), start, self.sampling.image_steps))
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
        R is the renderer with one noise and w_own the code of this source alone: a = 1 gives h_own.
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
            kept = (shares[index] > 0).repeat_interleave(n)[:, None]
            own = latents[name].repeat_interleave(n, dim=0)
            if vector is None and bool(kept.all()) and mixed is None:
                images[name] = self._image(name, own)
                continue
            if mixed is not None:
                drawn = self._rendered(name, codes, mixed.repeat_interleave(n, dim=0), guidance=1.0)
            else:
                noise = self._private(name, len(codes), mode, generator)
                drawn = self._rendered(name, codes, noise)
                if vector is None:
                    drawn = torch.where(kept, own, drawn)
                elif bool(kept.any()):
                    alone = self.encode(given.select([name]), {name: 1.0}, rule).mean.repeat_interleave(n, dim=0)
                    share = shares[index].repeat_interleave(n)[:, None]
                    turned = drawn + share * (own - self._rendered(name, alone, noise))
                    drawn = torch.where(kept, torch.where(share == 1.0, own, turned), drawn)
            images[name] = self._image(name, drawn)
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
                total += share[:, None] * flow.invert(velocity, latents[name], self.sampling.image_steps)
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
