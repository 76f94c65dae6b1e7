"""The contract that every model answers: everything a person asks is "these sources given, those wanted"."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from msvae.errors import ConfigError, SourceError, unknown
from msvae.models.stages import RowSource, Stage
from msvae.objectives.base import Loss
from msvae.posterior import Posterior
from msvae.priors import Sampler
from msvae.source import Source, SourceBatch, source_named

Mode = Literal["sample", "mean"]
Weights = Mapping[str, float]
LEAST_SHARE = 1e-30  # of the largest weight: smaller ones count as this, since float32 does not hold them exactly


@dataclass(frozen=True)
class Features:
    """What a downstream head reads.

    Args:
        pooled: (rows, latent), the mean of the posterior over the code.
        maps: `{source: (rows, channels, height, width)}` encoder maps, zero where the source is absent.
    """

    pooled: Float[Tensor, "rows latent"]
    maps: dict[str, Tensor]


def check_mode(mode: str) -> None:
    """Raises ConfigError for a mode that is neither `sample` nor `mean`."""
    if mode not in ("sample", "mean"):
        raise ConfigError(unknown("mode", mode, ["mean", "sample"]))


class MultiSourceModel(nn.Module):
    """The joint distribution of several sources."""

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__()
        if not sources:
            raise SourceError("A model needs at least one source.")
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise SourceError(f"Source names must differ, got {names}.")
        self.sources = tuple(sources)
        self.source_names = tuple(names)
        self.sampler: Sampler | None = None

    @property
    def latent_rules(self) -> tuple[str, ...]:
        """Rules by which given sources can be fused in latent space; the first is the model's own."""
        return ("own",)

    def check_rule(self, rule: str) -> None:
        """Raises ConfigError for a rule that is none of `latent_rules`."""
        if rule not in self.latent_rules:
            raise ConfigError(unknown("latent rule", rule, self.latent_rules))

    @property
    def has_fitted_sampler(self) -> bool:
        """Whether `draw` has more to draw from than the prior."""
        return self.sampler is not None and self.sampler.is_fitted

    @property
    def draws_images(self) -> bool:
        """Whether images of one code differ in mode `sample`: what the code leaves open is drawn."""
        return False

    @property
    def needs_complete_rows(self) -> bool:
        """Whether training rows may not lack any source."""
        return False

    @property
    def trained_sources(self) -> tuple[str, ...]:
        """The sources whose networks training changes: all, but where some are added to a trained model."""
        return self.source_names

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def loss(self, batch: SourceBatch, generator: torch.Generator | None = None) -> Loss:
        """The training loss of a batch; any row may lack any sources. Usable in anybody's own loop.

        Raises:
            SourceError: for a batch that does not fit the sources, or a row without any.
        """
        raise NotImplementedError

    def forward(self, batch: SourceBatch, generator: torch.Generator | None = None) -> Loss:
        """`loss`, so that wrappers such as DistributedDataParallel work."""
        return self.loss(batch, generator)

    def encode(self, batch: SourceBatch, weights: Weights | None = None, rule: str = "own") -> Posterior:
        """q(code | present sources), with a user's weight per source; a row without sources gets N(0, I).

        Args:
            weights: `{source: weight >= 0}`, only their ratios count; weight 0 removes a source exactly. A source that
                is not named has weight 0.
            rule: one of `latent_rules`.
        """
        raise NotImplementedError

    def decode(
        self,
        code: Float[Tensor, "rows latent"],
        to: Sequence[str] | None = None,
        mode: Mode = "mean",
        generator: torch.Generator | None = None,
    ) -> SourceBatch:
        """Images of the wanted sources (all by default) for given codes, in their own value ranges.

        Args:
            mode: `mean`: the expected images; `sample`: what the code leaves open is drawn, by models that can.
        """
        raise NotImplementedError

    def draw(
        self, rows: int, generator: torch.Generator | None = None, *, from_prior: bool = False
    ) -> Float[Tensor, "rows latent"]:
        """Codes from nothing: from the fitted sampler where there is one, or else (or `from_prior`) from the prior."""
        raise NotImplementedError

    def set_sampling(self, settings: Mapping[str, Any]) -> None:
        """Draw otherwise from now on, by models that have settings for it.

        Raises:
            ConfigError: for a setting that there is not, or a value that it cannot have.
        """
        raise ConfigError(f"Sampling settings ({', '.join(settings)}) are for the flow; this model draws in one way.")

    def checked_codes(self, code: Tensor, length: int) -> Tensor:
        """Codes, on the model's device.

        Raises:
            SourceError: for another shape than (rows, length), or no rows.
        """
        if code.dim() != 2 or code.shape[1] != length:
            raise SourceError(f"Codes: expected (rows, {length}), got {tuple(code.shape)}.")
        if not len(code):
            raise SourceError("Codes: expected those of one row or more, got none.")
        return code.to(self.device)

    def features(self, batch: SourceBatch) -> Features:
        """Pooled vector and spatial maps of the present sources."""
        raise NotImplementedError

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What training consists of, in order; most models have one stage."""
        return (Stage(),)

    def enter_stage(self, name: str) -> None:
        """Make `loss` that of a stage, and only its parameters trainable; nothing for models of one stage."""

    def tell_progress(self, share: float, steps: int) -> None:
        """How far the stage is, from 0 to 1 and in steps, before every step; nothing for most models."""

    def stage_rows(self, name: str, rows: RowSource) -> RowSource:
        """What a stage trains on: the training rows, or what the stages before have computed from them."""
        return rows

    def end_stage(self, name: str, rows: RowSource) -> None:
        """What a model does once with training rows when a stage's weights are final, before the next one."""

    def measure_stage(self, name: str, rows: RowSource) -> None:
        """What answers alone need of a stage that has ended, such as guidance: nothing that a later stage builds on."""

    def after_training(self, batch: SourceBatch, seed: int) -> None:
        """What a model does once with training rows when its weights are final, such as fitting a sampler; nothing
        here."""

    @torch.no_grad()
    def sample(
        self,
        given: SourceBatch | None = None,
        to: Sequence[str] | None = None,
        n: int = 1,
        weights: Weights | None = None,
        mode: Mode = "sample",
        rule: str = "own",
        generator: torch.Generator | None = None,
    ) -> SourceBatch:
        """Images of the wanted sources, given some: the one question behind every other.

        Args:
            given: rows of any sources; None (or rows without any present source) generates from nothing.
            to: the wanted sources, all by default. A given source that is wanted comes back reconstructed.
            n: samples for each given row, in succession; or the number of rows where nothing is given.
            weights, rule: as in `encode`.
            mode: `sample` draws the code, and what it leaves open by models that can; `mean` takes the mean of its
                posterior, and the expected image.

        Returns:
            n times as many rows as given, every wanted source present.

        Raises:
            SourceError: for given rows that do not fit the sources, an unknown or no wanted source, weights that leave
                a row without source, or n below 1.
            ConfigError: for an unknown mode or rule.
        """
        check_mode(mode)
        if not isinstance(n, Integral) or n < 1:
            raise SourceError(f"Number of samples: expected a whole number n >= 1, got {n}.")
        n = int(n)
        if given is None or not given.present:
            given, n = self.nothing(n), 1
        codes = self.codes(given, n, weights, mode, rule, generator)
        return self.answer(codes, given, to, weights, mode, rule, generator)

    def codes(
        self,
        given: SourceBatch,
        n: int,
        weights: Weights | None,
        mode: Mode,
        rule: str,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "samples latent"]:
        """n codes for each given row, in succession: the first half of `sample`."""
        posterior = self.encode(given, weights, rule)
        counted = given.presence(self.source_names)
        if weights is not None:
            counted = counted & (self.weight_vector(weights, given) > 0)[:, None]
        nothing = ~counted.any(dim=0).to(self.device)
        codes = []
        for _ in range(n):
            code = posterior.mean if mode == "mean" else posterior.sample(generator)
            if mode == "sample" and bool(nothing.any()):
                code = torch.where(nothing[:, None], self.draw(len(given), generator), code)
            codes.append(code)
        return torch.stack(codes, dim=1).flatten(0, 1)

    def answer(
        self,
        codes: Float[Tensor, "samples latent"],
        given: SourceBatch,
        to: Sequence[str] | None,
        weights: Weights | None,
        mode: Mode,
        rule: str,
        generator: torch.Generator | None,
    ) -> SourceBatch:
        """Images for the codes of given rows: the second half of `sample`."""
        return self.decode(codes, to, mode, generator)

    def nothing(self, rows: int) -> SourceBatch:
        """Rows in which every source is absent."""
        absent = torch.zeros(rows, dtype=torch.bool, device=self.device)
        values = {source.name: torch.zeros(rows, *source.shape, device=self.device) for source in self.sources}
        return SourceBatch(values, dict.fromkeys(self.source_names, absent))

    def wanted(self, to: Sequence[str] | str | None) -> tuple[str, ...]:
        """The names of the wanted sources, checked, each once."""
        if to is None:
            return self.source_names
        if not isinstance(to, str | Collection):
            raise SourceError(f"Wanted sources (to): expected a name or names, got {to!r}.")
        names = (to,) if isinstance(to, str) else tuple(to)
        if not names:
            raise SourceError("No source is wanted; name at least one (to).")
        for name in names:
            source_named(self.sources, name)
        return tuple(dict.fromkeys(names))

    def weight_vector(self, weights: Weights, given: SourceBatch) -> Float[Tensor, " sources"]:
        """A user's weights in the order of the sources.

        Raises:
            SourceError: for an unknown source, a negative or non-finite weight, weight on a source that is not given,
                or no weight at all.
        """
        if not isinstance(weights, Mapping):
            raise SourceError(f"Weights: expected {{source: weight}}, got {weights!r}.")
        for name, weight in weights.items():
            if name not in self.source_names:
                raise SourceError(f"Weights: {unknown('source', name, self.source_names)}")
            if not isinstance(weight, Real) or not 0 <= weight < float("inf"):
                raise SourceError(f"Weight of source {name!r}: expected a number >= 0, got {weight!r}.")
            if weight > 0 and name not in given.present:
                raise SourceError(f"Weight of source {name!r} is {weight:g}, but no image of it is given.")
        largest = max(weights.values(), default=0.0)
        if not largest > 0:
            raise SourceError("Weights: at least one source needs a weight above 0.")
        shares = {name: float(weight) / largest for name, weight in weights.items()}
        shares = {name: max(share, LEAST_SHARE) for name, share in shares.items() if weights[name] > 0}
        vector = torch.tensor([shares.get(name, 0.0) for name in self.source_names], device=given.device)
        present = given.presence(self.source_names)
        lost = present.any(dim=0) & ~(present & (vector > 0)[:, None]).any(dim=0)
        if bool(lost.any()):
            raise SourceError(f"Row {int(lost.nonzero()[0])} has none of the sources with a weight above 0.")
        return vector
