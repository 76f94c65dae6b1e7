"""What the shared-latent flow consists of, and how rows become latents and codes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from msvae.config import FlowConfig
from msvae.errors import ConfigError
from msvae.flow.agreement import Agreement
from msvae.flow.autoencoders import Autoencoders, Standardiser, present_values
from msvae.flow.coded import CodedBatch, CodeEvidence
from msvae.flow.content import Content, pooled
from msvae.flow.converter import Converter
from msvae.flow.fields import GridField, VectorField
from msvae.flow.grain import Grain
from msvae.flow.renderer import Renderer
from msvae.flow.sampler import Solver, Velocity, sample
from msvae.models.base import MultiSourceModel
from msvae.networks.spatial import MapNetworks
from msvae.priors import FittedMixture, build_sampler
from msvae.source import Source, SourceBatch

#: Settings of the autoencoders' stage, which is left out where they are taken over.
AUTOENCODER_TRAINING = ("noise", "edges", "even_contrast")
AUTOENCODER_SIZES = ("channels", "side", "width", "refine", "shared_trunk")


class FlowParts(MultiSourceModel):
    """The networks of the shared-latent flow; `StagedFlow` trains them, `SharedFlow` answers with them."""

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
        self.grain = Grain(sources)
        content_networks = MapNetworks(
            sources, 2 * config.content_width, config.content_width, max(4, config.grid), 0, config.shared_trunk,
            config.added, decoders=False,
        )  # fmt: skip
        sizes = {name: latent_networks.size(name) for name in names}
        self.content = Content(
            sources, content_networks, config.code, config.grid, sizes, config.shift,
            config.contrast, config.prediction, config.detached,
        )  # fmt: skip
        slots, size = self.content.slots, config.code
        self.converter = Converter(names, slots, size, config.converter_width, config.converter_depth, config.heads)
        width, depth = config.renderer_width, config.renderer_depth
        shapes = latent_networks.map_shape
        alone = config.added if config.shared_trunk else names
        field: VectorField | GridField = (
            GridField(shapes, width, depth, config.heads, config.patch, alone, config.normalised_attention)
            if config.patch is not None
            else VectorField(shapes, width, depth, alone)
        )
        only_mean = config.renderer == "mean"
        self.renderer = Renderer(shapes, slots, size, field, width, config.dropped, only_mean)
        self.standard = Standardiser(slots * size)
        self.sampler = build_sampler(config, slots * size)
        if isinstance(self.sampler, FittedMixture):
            self.energy_scores: Tensor  # of codes given sources, by the converter and by the mixture: less is nearer
            self.register_buffer("energy_scores", torch.tensor([0.0, torch.inf]))
        self.agreement = Agreement(names)
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(len(names), slots * size))

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
    def trained_sources(self) -> tuple[str, ...]:
        """The sources whose networks are trained: all, or those that are added to a trained model."""
        return self.config.trained or self.source_names

    def extend(self, base: "FlowParts") -> None:
        """Take over all of a trained model of some of the sources; only the others are trained from now on."""
        known = base.state_dict()
        spread = known.pop("spread")
        self.load_state_dict(known, strict=False)
        for index, name in enumerate(base.source_names):
            self.spread[self.source_names.index(name)] = spread[index]

    def take_autoencoders(self, other: MultiSourceModel) -> None:
        """Take over the trained autoencoders, and the grain, of another flow of these sources, and of others maybe.

        Raises:
            ConfigError: if they do not fit.
        """
        if not isinstance(other, FlowParts):
            raise ConfigError("Setting 'model.reuse': the run is of another method than 'flow'.")
        if other.config.added != self.config.added:
            raise ConfigError(
                f"Setting 'model.reuse': sources were added to that run ({', '.join(other.config.added)}); their "
                "autoencoders can be taken over by 'model.extends' alone."
            )
        there = {source.name: replace(source, files=None) for source in other.sources}
        lost = [name for name in self.source_names if name not in there]
        if lost:
            raise ConfigError(
                f"Setting 'model.reuse': the run has no source {', '.join(lost)}, but {', '.join(there)}; choose "
                "among them (data.sources)."
            )
        changed = [source.name for source in self.sources if replace(source, files=None) != there[source.name]]
        if changed:
            raise ConfigError(f"Setting 'model.reuse': the run has sources of another form ({', '.join(changed)}).")
        for name in AUTOENCODER_TRAINING:
            theirs, own = getattr(other.config, name), getattr(self.config, name)
            if theirs != own:
                raise ConfigError(f"Setting 'model.reuse': the run was trained with model.{name} {theirs}, here {own}.")
        if self.config.grain and not other.config.grain:
            raise ConfigError("Setting 'model.reuse': the run has measured no grain; set model.grain=false here too.")
        try:
            self.autoencoders.load_state_dict(other.autoencoders.lent_to(self.autoencoders))
            if self.config.grain:
                measured = other.grain.state_dict()
                self.grain.load_state_dict({name: measured[name] for name in self.grain.state_dict()})
        except (RuntimeError, ValueError) as error:
            sizes = {name: (getattr(other.config, name), getattr(self.config, name)) for name in AUTOENCODER_SIZES}
            others = [f"model.{name} {theirs}, here {own}" for name, (theirs, own) in sizes.items() if theirs != own]
            raise ConfigError(
                f"Setting 'model.reuse': the autoencoders of {', '.join(other.source_names)} do not fit this run's "
                f"({', '.join(self.source_names)}): {'they have ' + '; '.join(others) if others else error}."
            ) from None
        self.content.begin_with(self.autoencoders.networks)

    @torch.no_grad()
    def _latents(self, batch: SourceBatch) -> dict[str, Tensor]:
        """Standardised latents of every source by row; zero where it is absent."""
        codes = self.autoencoders.latents(present_values(batch, self.source_names))
        return self.autoencoders.by_row(codes, batch)

    @torch.no_grad()
    def _coded(self, batch: SourceBatch, latents: dict[str, Tensor] | None = None) -> CodedBatch:
        evidence = self.content.evidence(batch)
        found = {name: value.detach() for name, value in (latents or self._latents(batch)).items()}
        present = dict(zip(self.source_names, evidence.present, strict=True))
        return CodedBatch({}, present, found, evidence)

    @property
    def code_length(self) -> int:
        """Numbers of a shared code, all slots together."""
        return self.content.slots * self.content.size

    @property
    def fitted_mixture(self) -> FittedMixture | None:
        """The sampler, where it has a closed form of codes given sources."""
        if isinstance(self.sampler, FittedMixture) and self.sampler.is_fitted:
            return self.sampler
        return None

    def _codes_by_mixture(self, chosen: str | None) -> bool:
        """Whether the mixture draws codes given sources, not the converter: by choice, or else by measurement."""
        if chosen is None:
            return self.fitted_mixture is not None and bool(self.energy_scores[1] < self.energy_scores[0])
        return chosen == "mixture"

    def _slots(self, code: Float[Tensor, "rows latent"]) -> Float[Tensor, "rows slots size"]:
        return code.unflatten(1, (self.content.slots, self.content.size))

    def _drawn_by_flow(
        self, velocity: Velocity, rows: int, steps: int, generator: Generator | None, solver: Solver = "adams"
    ) -> Float[Tensor, "rows slots size"]:
        """Codes by a velocity field of the converter."""
        shape = (rows, self.content.slots, self.content.size)
        noise = torch.randn(shape, generator=generator, device=self.device)
        return sample(velocity, noise, steps, solver=solver)

    def _drawn_by_mixture(
        self, evidence: CodeEvidence, weights: Float[Tensor, "sources rows"] | None, generator: Generator | None
    ) -> Float[Tensor, "rows latent"]:
        """Codes given the present sources in closed form: each one's own code is an observation, with its spread.

        Args:
            weights: powers of the observations' likelihoods; without any, 1 where a source is present.

        Raises:
            ConfigError: if no mixture was fitted in training.
        """
        mixture = self.fitted_mixture
        if mixture is None:
            raise ConfigError("codes_by: this model has no fitted mixture to draw codes by (model.sampler).")
        counts = evidence.present.float() if weights is None else weights
        used = counts.any(dim=1)  # what no row has changes nothing, not even how sums are rounded
        precisions = counts[used, :, None] / self.spread[used, None]
        means = self._standardised(evidence.tokens[used].flatten(0, 1)).view_as(precisions)
        return mixture.sample_given(precisions.sum(dim=0), (precisions * means).sum(dim=0), generator)

    def _standardised(self, tokens: Float[Tensor, "rows slots size"]) -> Float[Tensor, "rows slots size"]:
        return self.standard(tokens.flatten(1)).view_as(tokens)

    def _whole(
        self, evidence: CodeEvidence, log_weights: Float[Tensor, "sources rows"] | None = None
    ) -> Float[Tensor, "rows slots size"]:
        """The code that the present sources pool to, standardised."""
        return self._standardised(pooled(evidence, log_weights))
