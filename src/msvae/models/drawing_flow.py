"""What the flows of a trained `StagedFlow` draw: codes from nothing, and images of codes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from msvae import flow
from msvae.config import SAMPLING_SETTINGS, FlowConfig, parse
from msvae.errors import ConfigError, unknown
from msvae.flow.agreement import FEW, QUARTILE, agreement, enough_guidance
from msvae.models.base import Mode, check_mode
from msvae.models.staged_flow import StagedFlow
from msvae.models.stages import CHUNK, RowSource
from msvae.networks.precision import autocast_for
from msvae.source import Source, SourceBatch

# Rows that guidance is measured on, with five guidances: one standard error of a tenth of them is .01 of 1,024 and
# .02 of 256. Of larger latents fewer rows are drawn.
MEASURED_ROWS, MEASURED_LEAST_ROWS, MEASURED_VALUES = 1024, 256, 2**20
TOKENS_AT_ONCE_ON_CPU = 1024  # of the renderer, whose maps then stay in a CPU's cache


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; may be replaced on a trained model.

    Args:
        guidance: how much of what the code adds to the renderer's flow; 1 is the flow as trained, None what was
            measured at the end of training.
        begins: time of the path from noise (0) to data (1) at which that guidance begins.
        evidence: how much of what the given sources say counts for the codes, all of them or each by its name; 1 is as
            trained, None what is usual for the converter and for the mixture.
        codes_by: who draws codes given sources: `converter`, `mixture`, or None for what was measured in training.
        code_steps, image_steps: steps of converter and renderer.
        early: how much shorter the renderer's first steps are than its last.
        solver: how steps are taken (`msvae.flow.sampler.sample`).
        redraws, doubted: how often a sample is drawn again that says its code worse than this share of the training
            images says theirs; the best of the draws is taken.
        precision: of the renderer, which does nearly all the work: `fp32`, `bf16`, or `auto` for the quicker one.

    Raises:
        ConfigError: for values that the settings of a run could not have.
    """

    guidance: float | None
    begins: float
    evidence: float | Mapping[str, float] | None
    code_steps: int
    image_steps: int
    early: float = 1.0
    codes_by: str | None = None
    solver: flow.Solver = "adams"
    redraws: int = 0
    doubted: float = 0.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        named = {f"sampling_{name}" if name == "precision" else name: value for name, value in vars(self).items()}
        parse(FlowConfig, named)

    @classmethod
    def of(cls, config: FlowConfig) -> "Sampling":
        """What the settings of a run say."""
        return cls(**{name.removeprefix("sampling_"): getattr(config, name) for name in SAMPLING_SETTINGS})


class DrawingFlow(StagedFlow):
    """Codes drawn by the converter's flow, and images that the renderer draws of codes."""

    def __init__(self, sources: Sequence[Source], config: FlowConfig) -> None:
        super().__init__(sources, config)
        self.sampling = self._known(Sampling.of(config))
        self.measured_guidance: Tensor
        self.register_buffer("measured_guidance", torch.ones(()))

    @property
    def draws_images(self) -> bool:
        return self.config.renderer == "flow"

    def set_sampling(self, settings: Mapping[str, Any]) -> None:
        for name in settings:
            if name not in SAMPLING_SETTINGS:
                raise ConfigError(unknown("sampling setting", name, SAMPLING_SETTINGS))
        checked = parse(FlowConfig, dict(settings))  # in which the text "1e0" is a number
        chosen = {name.removeprefix("sampling_"): getattr(checked, name) for name in settings}
        self.sampling = self._known(replace(self.sampling, **chosen))

    def _known(self, sampling: Sampling) -> Sampling:
        for name in sampling.evidence if isinstance(sampling.evidence, Mapping) else ():
            if name not in self.source_names:
                raise ConfigError(f"Setting 'model.evidence': {unknown('source', name, self.source_names)}")
        return sampling

    @property
    def guidance(self) -> float:
        """Of the renderer: the one that is chosen, or the one that was measured."""
        return float(self.measured_guidance) if self.sampling.guidance is None else self.sampling.guidance

    def measure_stage(self, name: str, rows: RowSource) -> None:
        if name == "renderer" and self.config.renderer == "flow" and not self.config.trained:
            self.eval()
            self._measure_guidance()
            self.train()

    @torch.no_grad()
    def _measure_guidance(self) -> None:
        """So that few images of rows from nothing say their codes badly; none where no row was trained without its
        code, which guidance has to know."""
        if self.config.dropped == 0.0:
            self.measured_guidance.fill_(1.0)
            return
        generator = torch.Generator(self.device).manual_seed(0)
        parts = self.draw(self._measured_rows, generator).tensor_split(len(self.source_names))  # one source of a row
        codes = dict(zip(self.source_names, parts, strict=True))
        again = self.sampling.redraws > 0 and self.sampling.doubted >= QUARTILE

        def below_quartile(guidance: float) -> float:
            below = []
            for name, code in codes.items():
                generator.manual_seed(1)  # the first draws are the same with every guidance
                drawn, _ = self._answered(name, code, "sample", generator, guidance=guidance)
                below.append(self._agreement(name, drawn, code) < self.agreement.least(name, QUARTILE))
            return float(torch.cat(below).float().mean())

        self.measured_guidance.fill_(enough_guidance(below_quartile, FEW if again else QUARTILE))

    @property
    def _measured_rows(self) -> int:
        values = max(self.autoencoders.networks.size(name) for name in self.source_names)
        return min(MEASURED_ROWS, max(MEASURED_LEAST_ROWS, MEASURED_VALUES // values))

    def _draw(self, velocity: flow.Velocity, rows: int, generator: Generator | None) -> Float[Tensor, "rows latent"]:
        return self._drawn_by_flow(velocity, rows, self.sampling.code_steps, generator, self.sampling.solver).flatten(1)

    def draw(
        self, rows: int, generator: Generator | None = None, *, from_prior: bool = False
    ) -> Float[Tensor, "rows latent"]:
        """Codes from the fitted sampler; without one (or `from_prior`) from this model's prior: the converter's flow
        given nothing, and without that flow N(0, I)."""
        if self.has_fitted_sampler and not from_prior:
            assert self.sampler is not None
            return self.sampler.sample(rows, generator)
        if self.config.converter == "product":
            return torch.randn(rows, self.code_length, generator=generator, device=self.device)
        evidence = self.content.evidence(self.nothing(rows))
        return self._draw(self.converter.velocity(evidence), rows, generator)

    def decode(
        self,
        code: Float[Tensor, "rows latent"],
        to: Sequence[str] | str | None = None,
        mode: Mode = "mean",
        generator: Generator | None = None,
    ) -> SourceBatch:
        check_mode(mode)
        images: dict[str, Tensor] = {}
        code = self.checked_codes(code, self.code_length)
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
        guidance: float | None = None,
    ) -> tuple[Float[Tensor, "rows latents"], Tensor | None]:
        """Latents for a code, and the noise that is their private part; None for the expectation over it.

        What says the code badly is drawn again, with other noise.

        Args:
            shown: rows that somebody will see; the others are drawn once.
            guidance: in place of the model's.
        """
        if mode == "mean" or self.config.renderer == "mean":
            return self._rendered(name, code, None), None
        noise = self._private(name, len(code), generator)
        latents = self._rendered(name, code, noise, guidance)
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
            found = self._rendered(name, code[doubted], other, guidance)
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
        how, slots = self.sampling, self._slots(code)
        guidance = self.guidance if guidance is None else guidance
        if noise is None:
            return torch.cat([self.renderer.mean(name, part) for part in slots.split(CHUNK)])
        jumps = how.begins > 0 and guidance != 1.0  # where guidance begins
        solver = "euler" if jumps else how.solver

        answers = []
        with autocast_for(self.device, how.precision):
            rows = self._rows_rendered_at_once
            for part, start in zip(slots.split(rows), noise.split(rows), strict=True):
                velocity = self.renderer.guided(name, part, guidance, how.begins)
                answers.append(flow.sample(velocity, start, how.image_steps, how.early, solver))
        return torch.cat(answers)

    @property
    def _rows_rendered_at_once(self) -> int:
        """A GPU takes many; on a CPU 64 rows of 16 tokens are 1.6 times as fast as 512."""
        if self.device.type != "cpu":
            return CHUNK
        return max(1, min(CHUNK, TOKENS_AT_ONCE_ON_CPU // self.renderer.field.tokens))

    def _image(self, name: str, latents: Float[Tensor, "rows latents"]) -> Tensor:
        return torch.cat([self.autoencoders.image(name, part) for part in latents.split(CHUNK)])
