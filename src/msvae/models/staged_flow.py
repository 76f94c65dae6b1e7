"""How the shared-latent flow is trained: four stages, each on what the stages before it have made."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from msvae.config import FlowConfig
from msvae.flow.agreement import agreement
from msvae.flow.autoencoders import present_values, rows_by_source
from msvae.flow.coded import CodedBatch, CodeEvidence, joined, joined_evidence
from msvae.flow.content import pooled
from msvae.flow.energy import energy_score
from msvae.models.base import Loss
from msvae.models.flow_parts import FlowParts
from msvae.models.stages import RowSource, Stage, in_chunks, rows_at_once, spread_out
from msvae.networks.precision import without_gradient
from msvae.source import Source, SourceBatch, check_batch
from msvae.subsets import one_of, random_half

GRAIN_VALUES = 5_000_000  # of each source's training images: 2,000 rows of 28 x 28 pixels
SAMPLER_ROWS = 10_000
JUDGED_ROWS, JUDGED_DRAWS = 500, 4  # of codes given sources
TRAINING_CODE_STEPS = 4
SMALLEST_SPREAD = 1e-3
LEAST_STANDARDISED = 8  # rows by whose mean and deviation latents are: with 4 autoencoders are worse, with 2 useless
FEWEST_ROWS = 0.25  # of `training.batch_size`, however many tokens a row has
SHARES = {"sources": 0.26, "code": 0.16, "converter": 0.10, "renderer": 0.48}
SELF_DRAWN_FROM = 250  # steps of the converter: codes drawn before are bad targets (docs/flow-measured.md)


class StagedFlow(FlowParts):
    """What each stage does to the networks; outside of stages, `loss` is the sum of the losses of all."""

    def __init__(self, sources: Sequence[Source], config: FlowConfig) -> None:
        super().__init__(sources, config)
        self.stage: str | None = None
        self.progress, self.steps_taken = 0.0, 0

    @property
    def shares(self) -> dict[str, float]:
        """Of the budget, for each stage."""
        return {**SHARES, **self.config.shares}

    @property
    def stages(self) -> tuple[Stage, ...]:
        left_out = {"sources": bool(self.config.reuse), "converter": self.config.converter == "product"}
        slots, tokens = self.content.slots, self.renderer.field.tokens
        rows = {
            "sources": 0.25,
            "code": 0.5,
            "converter": max(FEWEST_ROWS, 4.0 / slots),
            "renderer": max(FEWEST_ROWS, min(2.0, 32.0 / (tokens + slots - 1))),
        }
        rates = {"sources": 1.0, "code": 1.0, "converter": 0.5, "renderer": 1.5 if self.config.patch is None else 0.75}
        gates = {"sources": "reconstruction", "code": "code", "converter": "converter", "renderer": "samples"}
        return tuple(
            Stage(
                name,
                self.shares[name],
                0 if left_out.get(name) else None,
                rows[name],
                least_rows=LEAST_STANDARDISED if name == "sources" else 1,
                rate=rates[name],
                memory=1.0 if name in ("sources", "code") else 2.0,
                gate=gates[name],
            )
            for name in gates
        )

    def enter_stage(self, name: str) -> None:
        self.stage = name
        for part, module in self.parts.items():
            for parameter, value in module.named_parameters():
                value.requires_grad_(part == name and self._is_trained(parameter))
        self.train(self.training)

    def _is_trained(self, parameter: str) -> bool:
        own = {f"of_{name}" for name in self.config.trained}
        return not own or not own.isdisjoint(parameter.split("."))

    def tell_progress(self, share: float, steps: int) -> None:
        self.progress, self.steps_taken = share, steps

    def train(self, mode: bool = True) -> "StagedFlow":
        super().train(mode)
        for part, module in self.parts.items():
            if self.stage is not None and part != self.stage:
                module.eval()
        return self

    def stage_rows(self, name: str, rows: RowSource) -> RowSource:
        """The flows train on codes computed once; the stages before on images."""
        if name in ("sources", "code"):
            return rows
        return self._coded_rows(rows)

    @torch.no_grad()
    def end_stage(self, name: str, rows: RowSource) -> None:
        self.eval()
        if name == "sources":
            self._end_sources(rows)
        elif name == "code":
            self._end_code(rows)
        elif name == "converter" and self.fitted_mixture is not None and not self.config.trained:
            self._measure_codes(rows)
        self.train()

    def _end_sources(self, rows: RowSource) -> None:
        """Exact statistics of the latents over the training rows, the grain, and what the next stage begins with."""
        found: dict[str, list[Tensor]] = {source: [] for source in self.trained_sources}
        for batch in self._batches(rows):
            encoded = self.autoencoders.networks.encode(present_values(batch, self.trained_sources))
            for source, maps in encoded.items():
                found[source].append(maps)
        for source, parts in found.items():
            values = torch.cat(parts).flatten(1) if parts else torch.empty(0, 1)
            if len(values) > 1:
                self.autoencoders.calibrate(source, values)
        if self.config.grain:
            self._measure_grain(rows)
        if not self.config.trained:
            self.content.begin_with(self.autoencoders.networks)

    def _end_code(self, rows: RowSource) -> None:
        """Exact statistics of the code over the training rows: its density, its spread, and how well images say it."""
        evidence = self._evidence_of(rows)
        if not self.config.trained:
            self.standard.calibrate(pooled(evidence).flatten(1))
            self._fit_sampler(evidence)
        self._measure_spread(evidence)
        self._measure_agreement(evidence)

    def _measure_codes(self, rows: RowSource) -> None:
        """Whether codes given some of a row's sources come nearer to that of all by the mixture or the converter.

        The converter's are unguided: guidance exaggerates on purpose, which a proper score counts as an error.
        """
        generator = torch.Generator(self.device).manual_seed(0)
        evidence = self._evidence_of(rows, JUDGED_ROWS)
        evidence = evidence.rows((evidence.present.sum(dim=0) > 1).nonzero().squeeze(1))
        if not evidence.present.shape[1]:
            return
        asked = evidence.restricted(random_half(evidence.present, generator))
        truth = self._whole(evidence).flatten(1)
        velocity, steps = self.converter.velocity(asked), self.config.code_steps
        by_mixture = [self._drawn_by_mixture(asked, None, generator) for _ in range(JUDGED_DRAWS)]
        solver = self.config.solver
        by_converter = [
            self._drawn_by_flow(velocity, len(truth), steps, generator, solver) for _ in range(JUDGED_DRAWS)
        ]
        for place, draws in enumerate((by_converter, by_mixture)):
            self.energy_scores[place] = energy_score(torch.stack(draws).flatten(2), truth)

    def _batches(self, rows: RowSource, most: int | None = None) -> Iterator[SourceBatch]:
        """All rows, or at most so many from all over, as many at a time as are encoded together."""
        return (rows.batch(index).to(self.device) for index in in_chunks(rows, rows_at_once(self.sources), most))

    def _coded_rows(self, rows: RowSource) -> CodedBatch:
        return joined([self._coded(batch) for batch in self._batches(rows)])

    def _evidence_of(self, rows: RowSource, most: int | None = None) -> CodeEvidence:
        """What the sources of all rows say of the code, or of at most so many from all over."""
        return joined_evidence([self.content.evidence(batch) for batch in self._batches(rows, most)])

    def _measure_grain(self, rows: RowSource) -> None:
        """The noise in what reconstructions leave of images from all over the training set."""
        left: dict[str, list[Tensor]] = {source: [] for source in self.trained_sources}
        enough = max(1, GRAIN_VALUES // max(source.value_count for source in self.sources))
        for batch in self._batches(rows, enough):
            values = present_values(batch, self.trained_sources)
            for source, latents in self.autoencoders.latents(values).items():
                left[source].append(values[source] - self.autoencoders.image(source, latents))
        for source, parts in left.items():
            if parts:
                self.grain.measure(source, torch.cat(parts))

    def _fit_sampler(self, evidence: CodeEvidence) -> None:
        """To the codes of rows from all over the training set."""
        if self.sampler is not None:
            codes = self._whole(evidence).flatten(1)
            self.sampler.fit(codes[spread_out(len(codes), SAMPLER_ROWS).to(codes.device)])

    def _measure_spread(self, evidence: CodeEvidence) -> None:
        """How far each source's own code is from that of all: the variance of the experts."""
        whole = self._whole(evidence).flatten(1)
        for name in self.trained_sources:
            index = self.source_names.index(name)
            has_it = evidence.present[index]
            several = has_it & (evidence.present.sum(dim=0) > 1)
            if int(several.sum()) > 1:
                gap = self._standardised(evidence.tokens[index, several]).flatten(1) - whole[several]
                self.spread[index] = gap.square().mean(dim=0).clamp_min(SMALLEST_SPREAD)

    def _measure_agreement(self, evidence: CodeEvidence) -> None:
        """How well each source's image says what the others of its row do."""
        for name in self.trained_sources:
            index = self.source_names.index(name)
            others = evidence.present.clone()
            others[index] = False
            rows = (evidence.present[index] & others.any(dim=0)).nonzero().squeeze(1)
            code = pooled(evidence.restricted(others).rows(rows))
            self.agreement.measure(name, agreement(evidence.tokens[index, rows], code))

    def loss(self, batch: SourceBatch, generator: Generator | None = None) -> Loss:
        batch = batch.to(self.device)
        if not isinstance(batch, CodedBatch):
            check_batch(batch, self.sources)
        terms: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        wanted = list(SHARES) if self.stage is None else [self.stage]
        latents: dict[str, Tensor] | None = None
        if "sources" in wanted:
            found, nats, latents = self._sources_losses(batch, generator)
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
        return Loss(self._trainable(total), terms)

    def _sources_losses(
        self, batch: SourceBatch, generator: Generator | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor] | None]:
        """Of the trained sources: losses, -log p for logs, and latents; None for these where others have some too."""
        named = [name for name in batch.names if name in self.trained_sources]
        if not named:
            return {}, {}, None
        losses, nats, latents = self.autoencoders.losses(batch.select(named), generator)
        return losses, nats, None if self.config.trained else latents

    def _trainable(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The loss; where nothing in a batch is trained, one whose gradients are zeros."""
        if loss.requires_grad or not torch.is_grad_enabled():
            return loss
        return loss + 0.0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()

    def _converter_loss(self, coded: CodedBatch, generator: Generator | None) -> Tensor:
        able = self.progress > 0.5 and self.steps_taken >= SELF_DRAWN_FROM
        self_drawn = self.config.self_distillation and able
        evidence = coded.evidence
        return self.converter.loss(evidence, self._whole(evidence), generator, self_drawn)

    def _renderer_loss(self, coded: CodedBatch, generator: Generator | None) -> Tensor:
        """A random present source of each row, from the code of the others (leave-one-out): its own evidence, which
        no question but reconstruction has, never enters."""
        evidence = coded.evidence
        rows = evidence.present.shape[1]
        target = self._one_trained(evidence.present, generator)
        others = evidence.restricted(~target)
        code = self._whole(others)
        share = self.config.sampled if self.config.converter == "flow" else 0.0
        known = others.present.any(dim=0)  # a code drawn from nothing would have nothing to do with the image
        drawn = known & (torch.rand(rows, generator=generator, device=self.device) < share)
        index = drawn.nonzero().squeeze(1)
        if len(index):
            with without_gradient():
                code = code.index_copy(0, index, self._drawn_for_training(others.rows(index), generator))
        mine = rows_by_source(self.source_names, target)
        if not mine:
            return code.new_zeros(())
        return self.renderer.loss(
            {name: coded.latents[name][found] for name, found in mine.items()},
            {name: code[found] for name, found in mine.items()},
            {name: known[found] for name, found in mine.items()},
            generator,
        )

    def _drawn_for_training(
        self, evidence: CodeEvidence, generator: Generator | None
    ) -> Float[Tensor, "rows slots size"]:
        """Codes by whoever will answer questions; the converter takes fewer steps."""
        if self.fitted_mixture is not None and self._codes_by_mixture(self.config.codes_by):
            return self._slots(self._drawn_by_mixture(evidence, None, generator))
        rows = evidence.present.shape[1]
        return self._drawn_by_flow(self.converter.velocity(evidence), rows, TRAINING_CODE_STEPS, generator, "euler")

    def _one_trained(
        self, present: Bool[Tensor, "sources rows"], generator: Generator | None
    ) -> Bool[Tensor, "sources rows"]:
        """A random one of each row's sources, of those whose networks are trained; none in rows without."""
        return one_of(present & self._is_new, generator)

    @property
    def _is_new(self) -> Bool[Tensor, "sources 1"]:
        """The sources whose networks are trained: all, or those that are added to a trained model."""
        new = [name in self.trained_sources for name in self.source_names]
        return torch.tensor(new, device=self.device)[:, None]
