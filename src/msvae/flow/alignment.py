"""Stage D, of sources that show one scene pixel by pixel: a source, given others of its row and the shared code."""

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from msvae.errors import ConfigError
from msvae.flow.autoencoders import rows_by_source
from msvae.flow.energy import score_of_squares
from msvae.flow.grain import Grain
from msvae.likelihoods import CONTINUOUS, likelihood_of, mean_image
from msvae.networks.aligned import MapDrawer, MapReader
from msvae.networks.blocks import by_cell, by_channel, laid_out, lay_out
from msvae.networks.pairs import by_trunk, condition_of, network_input, source_groups
from msvae.source import Source

NOISE = 8  # numbers for each row, which decide what neither the given sources nor the code do


class Alignment(nn.Module):
    """p(x_n | x_S, w): maps of the sources in S, fused cell by cell, drawn as source n.

    A code of a few tokens says what is where, not each line; what is seen in other sources is kept by the skips of a
    U-Net instead. Its inputs are any sources: each is read by its own encoder, and at each size and cell the maps are
    mixed with softmax(logit_m + log a_m) over the sources that are there (compare U-HVED: Dorent et al. 2019, arXiv
    1907.11150). The code says what the given sources leave open, the same for all that is drawn. It comes with whether
    it is only what these sources let expect, which is no news, or says more than they do.

    That image is the expected one. A draw differs from it by what a second way up makes of the same maps, the code and
    noise: few numbers, the same at every cell, so that parts which belong together are decided together (compare Alet
    et al. 2025, arXiv 2506.10772). What this one learns changes neither maps nor expected images, which were worse when
    both had one way up.

    Args:
        width: channels of the largest maps.
        slots, size: tokens of the shared code, a grid of them, and their numbers.
        shared_trunk: sources of equal form share their networks, each with its own FiLM.
        alone: sources that get networks of their own in any case.

    Raises:
        ConfigError: for sources that are no images of one size.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        width: int,
        slots: int,
        size: int,
        shared_trunk: bool = True,
        alone: Collection[str] = (),
    ) -> None:
        super().__init__()
        if len({source.shape[1:] if source.is_image else None for source in sources}) > 1 or not sources[0].is_image:
            shapes = ", ".join(f"{source.name} {source.shape}" for source in sources)
            raise ConfigError(f"Setting 'model.aligned': sources must be images of one size, got {shapes}.")
        self.sources = {source.name: source for source in sources}
        self.grid, self.size = round(slots**0.5), size
        self.readers, self.drawers, self.deviations = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.place: dict[str, tuple[str, int | None]] = {}
        for group in source_groups(sources, shared_trunk, alone):
            trunk, conditions = f"of_{group[0].name}", len(group) if len(group) > 1 else 0
            self.readers[trunk] = MapReader(group[0], width, conditions)
            self.drawers[trunk] = MapDrawer(group[0], width, size + 1, conditions)
            if group[0].likelihood in CONTINUOUS:
                self.deviations[trunk] = MapDrawer(group[0], width, size + 1 + NOISE, conditions, coarse=True)
            self.place |= {s.name: (trunk, index if conditions else None) for index, s in enumerate(group)}
        lay_out(self)

    def read(
        self,
        images: Mapping[str, Tensor],
        present: Bool[Tensor, "sources rows"],
        log_weights: Float[Tensor, "sources rows"] | None = None,
    ) -> list[Float[Tensor, "rows channels height width"]]:
        """Fused maps of four sizes; images that do not count are not read. Zeros in rows where none does.

        Args:
            images: by source, all rows in the sources' value ranges.
            present: which of them count, in the order of the sources; at least one.
        """
        if log_weights is not None:
            present = present & ~torch.isneginf(log_weights)
        rows = rows_by_source(self.sources, present)
        order = {name: number for number, name in enumerate(self.sources)}
        read, cells = [], []
        for trunk, names in by_trunk(self.place, rows).items():
            inputs = torch.cat([network_input(self.sources[name], images[name][rows[name]]) for name in names])
            condition = condition_of(self.place, names, [len(rows[name]) for name in names], inputs.device)
            read.append(self.readers[trunk](laid_out(inputs), condition))
            cells += [order[name] * present.shape[1] + rows[name] for name in names]
        place = torch.cat(cells)
        return [_fused(level, place, present.shape, log_weights) for level in zip(*read, strict=True)]

    def can_draw(self, name: str) -> bool:
        """Whether draws of a source differ; of classes, and of coins, the answer is the expected one in any case."""
        return self.place[name][0] in self.deviations

    def noise_of(self, rows: int, generator: Generator | None, device: torch.device) -> Float[Tensor, "rows noise"]:
        """What chance decides in each row, the same for all its sources."""
        return torch.randn(rows, NOISE, generator=generator, device=device)

    def expected(
        self,
        maps: Sequence[Tensor],
        code: Float[Tensor, "rows slots size"],
        pooled: Bool[Tensor, " rows"],
        wanted: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """The likelihoods' raw parameters of each wanted source, for the rows in which it is wanted.

        Args:
            maps: of `read`.
            pooled: rows whose code is what the given sources pool to.
            wanted: `{source: numbers of rows}`.
        """
        return self._raw(self.drawers, maps, code, pooled[:, None].float(), wanted)

    def deviation(
        self,
        maps: Sequence[Tensor],
        code: Float[Tensor, "rows slots size"],
        pooled: Bool[Tensor, " rows"],
        noise: Float[Tensor, "rows noise"],
        wanted: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """What a draw differs by from what is expected, in the same parameters; of sources that can be drawn."""
        told = torch.cat([pooled[:, None].float(), noise], dim=1)
        return self._raw(self.deviations, maps, code, told, wanted)

    def _raw(
        self,
        networks: nn.ModuleDict,
        maps: Sequence[Tensor],
        code: Float[Tensor, "rows slots size"],
        told: Float[Tensor, "rows _"],
        wanted: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        everywhere = told[:, None].expand(-1, code.shape[1], -1)
        tokens = torch.cat([code, everywhere], dim=2).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        answers: dict[str, Tensor] = {}
        for trunk, names in by_trunk(self.place, wanted).items():
            index = torch.cat([wanted[name] for name in names])
            lengths = [len(wanted[name]) for name in names]
            condition = condition_of(self.place, names, lengths, index.device)
            raw = networks[trunk]([_rows_of(part, index) for part in maps], tokens[index], condition).float()
            answers |= zip(names, raw.split(lengths), strict=True)
        return answers

    def images(
        self,
        maps: Sequence[Tensor],
        code: Float[Tensor, "rows slots size"],
        pooled: Bool[Tensor, " rows"],
        noise: Float[Tensor, "rows noise"] | None,
        name: str,
    ) -> Float[Tensor, "rows channels height width"]:
        """Images of one source for all rows, in its value range: expected ones, or draws if there is noise and the
        source can be drawn."""
        wanted = {name: torch.arange(len(code), device=code.device)}
        raw = self.expected(maps, code, pooled, wanted)[name]
        if noise is not None and self.can_draw(name):
            raw = raw + self.deviation(maps, code, pooled, noise, wanted)[name]
        return mean_image(raw, self.sources[name])

    def loss(
        self,
        images: Mapping[str, Tensor],
        given: Bool[Tensor, "sources rows"],
        code: Float[Tensor, "rows slots size"],
        pooled: Bool[Tensor, " rows"],
        drawn: Bool[Tensor, " rows"],
        wanted: Mapping[str, Tensor],
        grain: Grain,
        generator: Generator | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """For each number of an image: -log p(x_n | x_S, w) in nats, and in rows that are drawn as well, the score of
        two draws in units of the source's scale. Each is a sum over its rows, divided by the number of wanted images.

        Args:
            drawn: where a wanted source can be drawn (`can_draw`).
            grain: noise that samples get; draws are scored with it, so that the network does not learn it too.
        """
        maps = self.read(images, given)
        raw = self.expected(maps, code, pooled, wanted)
        truths = {name: self.sources[name].normalise(images[name][rows]) for name, rows in wanted.items()}
        nats = code.new_zeros(())
        for name, found in raw.items():
            source = self.sources[name]
            nats = nats - likelihood_of(source).log_prob(found, truths[name], source).sum() / source.value_count
        scores = self._scores(maps, code, pooled, raw, drawn, wanted, truths, grain, generator)
        count = max(1, sum(len(index) for index in wanted.values()))
        return nats / count, scores / count

    def _scores(
        self,
        maps: Sequence[Tensor],
        code: Float[Tensor, "rows slots size"],
        pooled: Bool[Tensor, " rows"],
        raw: Mapping[str, Tensor],
        drawn: Bool[Tensor, " rows"],
        wanted: Mapping[str, Tensor],
        truths: Mapping[str, Tensor],
        grain: Grain,
        generator: Generator | None,
    ) -> Float[Tensor, ""]:
        """Sum of the scores of two draws of every image that is drawn, whose gradient ends at maps and expected images:
        it made those worse."""
        places = {name: drawn[rows].nonzero().squeeze(1) for name, rows in wanted.items() if self.can_draw(name)}
        asked = {name: wanted[name][place] for name, place in places.items() if len(place)}
        centres = {name: raw[name][places[name]].detach() for name in asked}
        still = [part.detach() for part in maps]
        one, other = (self._draws(still, code, pooled, centres, asked, grain, generator) for _ in range(2))
        scores = code.new_zeros(())
        for name in asked:
            score = score_of_squares(one[name], other[name], truths[name][places[name]])
            scores = scores + score / self.sources[name].scale
        return scores

    def _draws(
        self,
        maps: Sequence[Tensor],
        code: Float[Tensor, "rows slots size"],
        pooled: Bool[Tensor, " rows"],
        centres: Mapping[str, Tensor],
        wanted: Mapping[str, Tensor],
        grain: Grain,
        generator: Generator | None,
    ) -> dict[str, Tensor]:
        """A draw of every wanted image, normalised, with its source's grain.

        Args:
            centres: raw parameters of the expected images.
        """
        noise = self.noise_of(len(code), generator, code.device)
        draws = {}
        for name, deviation in self.deviation(maps, code, pooled, noise, wanted).items():
            source = self.sources[name]
            clean = mean_image(centres[name] + deviation, source)
            draws[name] = source.normalise(grain.add(name, clean, generator))
        return draws


def _fused(
    read: Sequence[tuple[Tensor, Tensor]],
    place: Int[Tensor, " images"],
    shape: torch.Size,
    log_weights: Float[Tensor, "sources rows"] | None,
) -> Float[Tensor, "rows channels height width"]:
    """The maps of one size, mixed cell by cell.

    Args:
        read: maps and how much they count, of the images of each trunk.
        place: source * rows + row, of every image.
        shape: numbers of sources and rows.
    """
    maps = torch.cat([by_cell(maps) for maps, _ in read]) if len(read) > 1 else by_cell(read[0][0])
    logits = torch.cat([counts for _, counts in read]).float()
    if log_weights is not None:
        logits = logits + log_weights.flatten()[place][:, None, None, None]
    everywhere = logits.new_full((shape.numel(), *logits.shape[1:]), torch.finfo(torch.float32).min)
    everywhere = everywhere.index_copy(0, place, logits).unflatten(0, shape)
    shares = torch.softmax(everywhere, dim=0).flatten(0, 1)[place]
    nothing = maps.new_zeros(shape[1], *maps.shape[1:])
    return by_channel(nothing.index_add(0, place % shape[1], shares.to(maps.dtype) * maps))


def _rows_of(maps: Tensor, index: Int[Tensor, " _"]) -> Tensor:
    return by_channel(by_cell(maps).index_select(0, index))
