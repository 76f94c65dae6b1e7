"""The shared-latent flow of sources that show one scene pixel by pixel: a fifth stage, `alignment`.

x_n = alignment(x_S, w, e, n)         S not empty: what S shows stays where it is, w and noise e say what S leaves open
x_1 = decoder_1(renderer(noise; w, 1)), x_n = alignment(x_1, w, e, n)                     S empty
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from msvae.config import FlowConfig
from msvae.flow.alignment import Alignment
from msvae.flow.autoencoders import rows_by_source
from msvae.flow.converter import log_of
from msvae.flow.favoured import Direction, directions, favour
from msvae.models.base import Loss, Mode, Weights, check_mode
from msvae.models.shared_flow import SharedFlow
from msvae.models.stages import RowSource, Stage
from msvae.networks.precision import without_gradient
from msvae.source import Source, SourceBatch, check_batch
from msvae.subsets import one_of, random_half

POOLED = 0.85  # share of training rows with the code that S pools to; the others have that of all but what is wanted
#: Share of the former that learn draws as well, as all others do. They are never asked for, but have the same networks:
#: with them draws of emoji score .0406, without .0428 (`docs/flow-measured.md`, Scenes).
DRAWN = 0.25
SINGLE = 0.5  # share of training rows with one given source, beside those where chance leaves one
#: Of maps that are drawn together. It does not depend on how many sources there are, by which answers would be rounded
#: otherwise once one is added.
PIXELS_ANSWERED = 131_072
MEASURED_ROWS = 128  # that guidance is measured on: as many as elsewhere take minutes where images are large
#: Rows of the last stage's batches where `training.batch_size` is 128: 4 for images of 64 x 64 pixels or more. In equal
#: time many small steps learn far more than few large ones.
PIXELS_AT_ONCE, FEWEST_ROWS, MOST_ROWS, OF_ROWS = 16_384, 4, 32, 128
LEAST_SHARE = 0.25  # of the usual rows: in the stages for sources, code and renderer, for the same reason
LEAST_CONTRASTED = 8  # rows among which the code's stage tells one from the others
SHARES = {"sources": 0.15, "code": 0.1, "converter": 0.06, "renderer": 0.15, "alignment": 0.54}
FAVOURED_SHARES = {"sources": 0.08, "code": 0.06, "converter": 0.05, "renderer": 0.06, "alignment": 0.75}


def shares_of(config: FlowConfig) -> dict[str, float]:
    """Of the budget, by stage: the last one has more where some directions matter more than what else there is."""
    return {**(FAVOURED_SHARES if config.favoured else SHARES), **config.shares}


class AlignedFlow(SharedFlow):
    """The model of the module's text, behind the contract of every model."""

    def __init__(self, sources: Sequence[Source], config: FlowConfig) -> None:
        super().__init__(sources, config)
        self.alignment = Alignment(
            sources, config.aligned_width, self.content.slots, config.code, config.shared_trunk, config.added
        )
        asked = directions(config.favoured, self.source_names)
        self.favoured = [one for one in asked if self._teaches(one)]

    def _teaches(self, question: Direction) -> bool:
        """Whether a source whose networks are trained is drawn, or read."""
        asked = {self.source_names[place] for place in (*question.given, question.wanted)}
        return not asked.isdisjoint(self.trained_sources)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {**super().parts, "alignment": self.alignment}

    @property
    def stages(self) -> tuple[Stage, ...]:
        pixels = self.sources[0].shape[1] * self.sources[0].shape[2]
        rows = min(MOST_ROWS, max(FEWEST_ROWS, PIXELS_AT_ONCE // pixels))
        share = max(LEAST_SHARE, rows / MOST_ROWS)
        sources, code, converter, renderer = super().stages
        return (
            replace(sources, rows=share * sources.rows),
            replace(code, rows=share * code.rows, least_rows=LEAST_CONTRASTED),
            converter,
            replace(renderer, rows=share * renderer.rows, gate=None),  # rows from nothing need the last stage
            Stage("alignment", self.shares["alignment"], rows=rows / OF_ROWS, gate="alignment", keeps_best=True),
        )

    @property
    def draws_images(self) -> bool:
        return True

    @property
    def shares(self) -> dict[str, float]:
        return shares_of(self.config)

    @property
    def _measured_rows(self) -> int:
        """Guidance matters little: of rows from nothing alone the first source is drawn by the renderer."""
        return MEASURED_ROWS

    def stage_rows(self, name: str, rows: RowSource) -> RowSource:
        """The last stage looks at images."""
        return rows if name == "alignment" else super().stage_rows(name, rows)

    def loss(self, batch: SourceBatch, generator: Generator | None = None) -> Loss:
        if self.stage not in (None, "alignment"):
            return super().loss(batch, generator)
        batch = batch.to(self.device)
        check_batch(batch, self.sources)
        expected, draws = self._alignment_loss(batch, generator)
        total, terms = self._trainable(expected + draws), {"alignment": expected.detach(), "draws": draws.detach()}
        if self.stage == "alignment":
            return Loss(total, terms)
        others = super().loss(batch, generator)
        return Loss(others.total + total, {**others.terms, **terms})

    def _alignment_loss(
        self, batch: SourceBatch, generator: Generator | None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Loss of expected images, and of draws; a question of each row, in most of them without news in its code."""
        given, target = self._asked(batch.presence(self.source_names), generator)
        wanted = rows_by_source(self.source_names, target)
        if not wanted:  # rows of one source each
            nothing = torch.zeros((), device=self.device)
            return nothing, nothing
        kind = torch.rand(len(batch), generator=generator, device=self.device)
        pooled, drawn = kind < POOLED, (kind < DRAWN * POOLED) | (kind >= POOLED)
        drawn = drawn & (target & self._is_new).any(dim=0)  # what the way up of a frozen source draws teaches nothing
        told = torch.where(pooled, given, ~target)
        with without_gradient():
            code = self._whole(self.content.evidence(batch.restricted(told, self.source_names)))
        seen = given & target.any(dim=0)
        return self.alignment.loss(batch.values, seen, code, pooled, drawn, wanted, self.grain, generator)

    def _asked(
        self, present: Bool[Tensor, "sources rows"], generator: Generator | None
    ) -> tuple[Bool[Tensor, "sources rows"], Bool[Tensor, "sources rows"]]:
        """What each row is given and asked: a random source, drawn on random others, on one alone in most rows (the
        hardest question, and the cheapest), or else what is favoured. Where sources are added to a trained model one of
        them is drawn, or read."""
        given = random_half(present, generator)
        single = torch.rand(present.shape[1], generator=generator, device=self.device) < SINGLE
        given = torch.where(single, one_of(given, generator), given)
        teaches = self._is_new | (given & self._is_new).any(dim=0)
        target = one_of(present & ~given & teaches, generator)
        return favour(self.favoured, given, target, present, generator)

    def decode(
        self,
        code: Float[Tensor, "rows latent"],
        to: Sequence[str] | str | None = None,
        mode: Mode = "mean",
        generator: Generator | None = None,
    ) -> SourceBatch:
        check_mode(mode)
        code = self.checked_codes(code, self.code_length)
        return self._on_what_is_seen(code, self.nothing(len(code)), to, None, mode, generator)

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
        """What is wanted, drawn on what the other given sources show, mixed by their weights.

        A given source that is wanted comes back as its autoencoder sees it; with weights, as the latents
        (1 - a) h(drawn on the others) + a h_own, so that a = 1 gives its own, and with (1 - a) of what the autoencoder
        loses of the former, so that a -> 0 gives that (of classes not). In rows without any source the first
        one of `to` is drawn from the code alone, and the others on it. Rule `appearance` is that of `SharedFlow`.
        """
        given = given.to(self.device)
        if rule == "appearance":
            return super().answer(codes, given, to, weights, mode, rule, generator)
        vector = None if weights is None else self.weight_vector(weights, given)
        return self._on_what_is_seen(codes, given, to, vector, mode, generator)

    def _on_what_is_seen(
        self,
        codes: Float[Tensor, "samples latent"],
        given: SourceBatch,
        to: Sequence[str] | str | None,
        vector: Float[Tensor, " sources"] | None,
        mode: Mode,
        generator: Generator | None,
    ) -> SourceBatch:
        n = len(codes) // len(given)
        present = given.presence(self.source_names).repeat_interleave(n, dim=1)
        weighted = torch.ones_like(present.float()) if vector is None else vector[:, None].repeat(1, len(codes))
        log_weights = log_of(weighted)
        shares = present.float() if vector is None else self._shares(vector, present)
        seen = {name: given.values[name].float().repeat_interleave(n, dim=0) for name in given.names}
        own = self._latents(given)
        noise = self.alignment.noise_of(len(codes), generator, self.device) if mode == "sample" else None
        from_code = ~present.any(dim=0)  # which says more than the image that is drawn of it
        images = {}
        for name in self.wanted(to):
            index = self.source_names.index(name)
            others = present & ~torch.isneginf(log_weights)
            others[index] = False
            on_others = others.any(dim=0)
            by_code = ~on_others & ~present[index]
            latents = own[name].repeat_interleave(n, dim=0)
            image = self._kept(name, latents, present[index])
            turned = (on_others & (shares[index] < 1.0)).nonzero().squeeze(1)
            if len(turned):
                there = {other: values[turned] for other, values in seen.items()}
                pooled = torch.full_like(turned, mode == "mean", dtype=torch.bool) & ~from_code[turned]
                chance = None if noise is None else noise[turned]
                made = self._aligned(
                    name, there, others[:, turned], log_weights[:, turned], codes[turned], pooled, chance
                )
                made = self._mixed(name, made, latents[turned], shares[index, turned])
                image = image.index_copy(0, turned, made)
            if mode == "sample":
                image = self.grain.add(name, image, generator, 1.0 - shares[index])
            rows = by_code.nonzero().squeeze(1)
            if len(rows):  # what comes after is drawn on it
                drawn = super().decode(codes[rows], [name], mode, generator).values[name]
                image = image.index_copy(0, rows, drawn)
                seen[name] = image if name not in seen else seen[name].index_copy(0, rows, drawn)
                present[index, rows], log_weights[index, rows] = True, 0.0
            images[name] = image
        return SourceBatch.complete({name: images[name] for name in self.source_names if name in images})

    def _kept(self, name: str, latents: Tensor, kept: Bool[Tensor, " rows"]) -> Tensor:
        """Images of rows that have the source; zeros for the others."""
        source = self.autoencoders.sources[name]
        blank, rows = torch.zeros(len(latents), *source.shape, device=self.device), kept.nonzero().squeeze(1)
        return blank.index_copy(0, rows, self._image(name, latents[rows])) if len(rows) else blank

    def _aligned(
        self,
        name: str,
        seen: dict[str, Tensor],
        present: Bool[Tensor, "sources rows"],
        log_weights: Float[Tensor, "sources rows"],
        codes: Float[Tensor, "rows latent"],
        pooled: Bool[Tensor, " rows"],
        noise: Float[Tensor, "rows noise"] | None,
    ) -> Tensor:
        """The source as drawn on what is seen of others, a few rows at a time."""
        found = []
        at_once = max(1, PIXELS_ANSWERED // (self.sources[0].shape[1] * self.sources[0].shape[2]))
        for rows in torch.arange(len(codes), device=self.device).split(at_once):
            images = {other: values[rows] for other, values in seen.items()}
            maps = self.alignment.read(images, present[:, rows], log_weights[:, rows])
            chance = None if noise is None else noise[rows]
            found.append(self.alignment.images(maps, self._slots(codes[rows]), pooled[rows], chance, name))
        return torch.cat(found)

    def _mixed(self, name: str, drawn: Tensor, own: Tensor, share: Float[Tensor, " rows"]) -> Tensor:
        """(1 - share) of what is drawn and a share of the own latents, where there is one.

        What the autoencoder loses of the former is given back by as much, so that a small share changes little.
        """
        rows = (share > 0).nonzero().squeeze(1)
        if not len(rows):
            return drawn
        latents = self.autoencoders.latents({name: drawn[rows]})[name]
        mixed = self._image(name, latents + share[rows, None] * (own[rows] - latents))
        source = self.alignment.sources[name]
        if source.categories is None:
            lost = drawn[rows] - self._image(name, latents)
            mixed = (mixed + (1.0 - share[rows])[:, None, None, None] * lost).clamp(*source.value_range)
        return drawn.index_copy(0, rows, mixed)
