"""Independent VAEs, and a masked diffusion over their concatenated latents: the two-stage baseline (MLD).

Bounoua et al. 2024, arXiv 2306.04445.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from msvae.config import ModelConfig
from msvae.errors import ConfigError
from msvae.flow.path import path_points
from msvae.flow.sampler import sample
from msvae.fusion.separate import Separate
from msvae.models.base import Mode, Weights
from msvae.models.joint import JointVAE
from msvae.models.stages import RowSource, Stage, in_chunks
from msvae.networks.pairs import Pair
from msvae.networks.precision import without_gradient
from msvae.networks.transformer import TimeEmbedding, Transformer, hidden_where
from msvae.objectives import Loss
from msvae.posterior import Experts
from msvae.source import Source, SourceBatch, check_batch
from msvae.subsets import subset_of_any_size

WIDTH, DEPTH, HEADS = 192, 3, 4
STEPS = 20
CHUNK = 500


class MaskedField(nn.Module):
    """v(z_t, t) of the latents that are not given, by a Transformer over one token a source; given ones stand clean."""

    def __init__(self, names: Sequence[str], latent: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.time = TimeEmbedding(WIDTH)
        self.read = nn.Linear(latent + 1, WIDTH)
        self.source = nn.ParameterDict({f"of_{name}": 0.02 * torch.randn(WIDTH) for name in names})
        self.transformer = Transformer(WIDTH, DEPTH, HEADS)
        self.head = nn.Linear(WIDTH, latent)

    def forward(
        self,
        state: Float[Tensor, "rows sources latent"],
        time: Float[Tensor, " rows"],
        given: Bool[Tensor, "sources rows"],
        seen: Bool[Tensor, "sources rows"],
    ) -> Float[Tensor, "rows sources latent"]:
        """The velocity; sources that are not seen are hidden from all others."""
        flag = given.T[..., None].to(state.dtype)
        names = torch.stack([self.source[f"of_{name}"] for name in self.names])
        visible = seen.T[..., None]
        tokens = torch.where(visible, self.read(torch.cat([state, flag], dim=2)) + names, torch.zeros(()).to(state))
        refined = self.transformer(tokens, self.time(time), hidden_where(~seen.T))
        return self.head(nn.functional.layer_norm(refined, refined.shape[-1:])).float()


class MaskedDiffusion(JointVAE):
    """First M independent VAEs, then one flow over the row (z_1, .., z_M) in which any latents may be given.

    The flow learns the velocity of the latents that are not given, on subsets of every size; sources that a row lacks
    are hidden. Conversion draws the absent latents; generation draws all.
    """

    def __init__(
        self, sources: Sequence[Source], config: ModelConfig, networks: Mapping[str, Pair] | None = None
    ) -> None:
        super().__init__(sources, config, networks)
        if not isinstance(self.fusion, Separate):
            raise ConfigError(f"The sampler 'masked_diffusion' needs the fusion 'separate', not {config.fusion!r}.")
        if config.private:
            raise ConfigError(
                f"Setting 'model.private': {config.private} was given, but the sampler 'masked_diffusion' has none: "
                "each source's latents are its own."
            )
        self.field = MaskedField(self.source_names, config.latent)
        shape = (len(sources), 1, config.latent)
        self.register_buffer("center", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))
        self.center: Tensor
        self.deviation: Tensor
        self.stage: str | None = None

    @property
    def latent_rules(self) -> tuple[str, ...]:
        return ("own",)

    @property
    def has_fitted_sampler(self) -> bool:
        return True

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("sources", 0.5, gate="reconstruction"),
            Stage("diffusion", 0.5, rows=4.0, rate=0.5, memory=2.0),
        )

    def enter_stage(self, name: str) -> None:
        self.stage = name
        for parameter_name, parameter in self.named_parameters():
            parameter.requires_grad_(parameter_name.startswith("field.") == (name == "diffusion"))
        self.train(self.training)

    def train(self, mode: bool = True) -> "MaskedDiffusion":
        """What the stage `diffusion` only reads neither drops out nor counts means."""
        super().train(mode)
        if self.stage == "diffusion":
            for part in self.children():
                part.train(mode and part is self.field)
        return self

    @torch.no_grad()
    def end_stage(self, name: str, rows: RowSource) -> None:
        """Means and deviations of codes drawn from the posteriors of every source, over the training rows.

        Of drawn codes, since numbers that a source does not use have means that hardly vary, and the prior's variance.
        """
        if name != "sources":
            return
        self.eval()
        found = [self.evidence(rows.batch(part).to(self.device)).shared for part in in_chunks(rows, CHUNK)]
        means = torch.cat([experts.means for experts in found], dim=1)
        variances = torch.cat([experts.log_variances.exp() for experts in found], dim=1)
        present = torch.cat([experts.present for experts in found], dim=1)
        for index, has_it in enumerate(present):
            if int(has_it.sum()) > 1:
                own = means[index, has_it]
                self.center[index, 0] = own.mean(dim=0)
                self.deviation[index, 0] = (own.var(dim=0) + variances[index, has_it].mean(dim=0)).sqrt() + 1e-3
        self.train()

    def loss(self, batch: SourceBatch, generator: Generator | None = None) -> Loss:
        """That of the stage; of both where no stage was entered."""
        if self.stage == "sources":
            return super().loss(batch, generator)
        batch = batch.to(self.device)
        check_batch(batch, self.sources)
        with without_gradient():
            experts = self.evidence(batch).shared
        field = self._field_loss(experts, generator)
        terms = {"diffusion": field.detach()}
        if self.stage == "diffusion":
            return Loss(field, terms)
        first = super().loss(batch, generator)
        return Loss(first.total + field, {**first.terms, **terms})

    def _field_loss(self, experts: Experts, generator: Generator | None) -> Float[Tensor, ""]:
        present = experts.present
        codes = ((experts.sample(1, generator)[0] - self.center) / self.deviation).transpose(0, 1)
        given = subset_of_any_size(present, generator)
        points = path_points(codes, 1.2, generator)
        state = torch.where(given.T[..., None], codes, points.state)
        errors = (self.field(state, points.time, given, present) - points.velocity).square().mean(dim=2)
        wanted = (present & ~given).T
        return (errors * wanted).sum() / wanted.sum().clamp_min(1)

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
        posterior = self.encode(given, weights, rule)
        present = given.to(self.device).presence(self.source_names)
        if weights is not None:
            present = present & (self.weight_vector(weights, given).to(self.device) > 0)[:, None]
        drawn = posterior.mean[None] if mode == "mean" else posterior.samples(n, generator)
        known = drawn.expand(n, -1, -1).transpose(0, 1).flatten(0, 1)
        heard = present.repeat_interleave(n, dim=1)
        completed = self._completed(known, heard, mode, generator)
        if mode == "sample":
            return completed
        return torch.where(heard.any(dim=0)[:, None], completed, known)  # of nothing: the mean of the prior

    @torch.no_grad()
    def draw(
        self, rows: int, generator: Generator | None = None, *, from_prior: bool = False
    ) -> Float[Tensor, "rows latent"]:
        if from_prior:
            return super().draw(rows, generator, from_prior=True)
        nothing = torch.zeros(len(self.sources), rows, dtype=torch.bool, device=self.device)
        return self._completed(torch.zeros(rows, self.shared_length, device=self.device), nothing, "sample", generator)

    def _completed(
        self,
        codes: Float[Tensor, "rows latent"],
        given: Bool[Tensor, "sources rows"],
        mode: Mode,
        generator: Generator | None,
    ) -> Float[Tensor, "rows latent"]:
        """The codes with all latents that are not given drawn, or expected (`mean`: one evaluation at t = 0)."""
        center, deviation = self.center.transpose(0, 1), self.deviation.transpose(0, 1)
        clean = (codes.unflatten(1, (len(self.sources), -1)) - center) / deviation
        known, seen = given.T[..., None], torch.ones_like(given)

        def velocity(state: Tensor, time: Tensor) -> Tensor:
            field = self.field(torch.where(known, clean, state), time, given, seen)
            return torch.where(known, torch.zeros_like(field), field)

        start = torch.zeros_like(clean)
        if mode == "mean":
            answer = velocity(start, start.new_zeros(len(start)))
        else:
            start = torch.randn(clean.shape, generator=generator, device=clean.device)
            answer = sample(velocity, start, STEPS)
        return (torch.where(known, clean, answer) * deviation + center).flatten(1)
