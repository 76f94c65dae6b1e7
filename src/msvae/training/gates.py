"""Gates: whether a stage of training is good enough for the next one to build on. Figures are of validation rows alone.

Each gate is a function of a model and validation rows; it asks through the contract of every model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from msvae.data.base import Rows
from msvae.metrics import linear_probe, nearness
from msvae.models.base import MultiSourceModel
from msvae.models.flow_parts import FlowParts
from msvae.models.stages import rows_at_once
from msvae.source import Source, SourceBatch

GATE_ROWS = 1000
GENERATED_ROWS = 256
POOLING_LOSS, LEAST_PROBED = 0.1, 400  # of accuracy; half of so many rows tell it from the probes' own errors
CHANCE = 3.0  # retrieval has to be this many times better than chance


@dataclass(frozen=True)
class Gate:
    """What a gate found.

    Args:
        figures: by name, for the run's log.
        failure: why training should not go on, or None.
    """

    figures: dict[str, float]
    failure: str | None = None


@torch.no_grad()
def reconstruction(model: MultiSourceModel, rows: Rows) -> Gate:
    """Each source from itself alone: PSNR (accuracy of class numbers), against the mean image as the answer to all."""
    return _against_mean_image(model, rows, "reconstruction", {name: [name] for name in model.trained_sources})


@torch.no_grad()
def alignment(model: MultiSourceModel, rows: Rows) -> Gate:
    """Each source from all others, as `reconstruction` compares it; and rows made from nothing, as `samples` does."""
    new, known = model.trained_sources, {}
    for name in model.source_names:  # beside added sources, what is made of these is looked at
        known[name] = [other for other in model.source_names if other != name and (name in new or other in new)]
    translated = _against_mean_image(model, rows, "translation", known)
    generated = samples(model, rows)
    return Gate({**translated.figures, **generated.figures}, translated.failure or generated.failure)


def _against_mean_image(model: MultiSourceModel, rows: Rows, what: str, given: Mapping[str, list[str]]) -> Gate:
    """Those of a model's own sources that were trained before, and are asked from added ones, fail nothing."""
    figures, worse = {}, []
    for source in (source for source in model.sources if source.name in given):
        known = given[source.name]
        usable = rows.present[source.name] & rows.presence(known).any(dim=0)
        index = usable.nonzero().squeeze(1)[:GATE_ROWS]
        if len(index) < 2:
            continue
        mean = _mean_image((batch.values[source.name] for batch in _batches(model, rows, index)), source)
        answered, trivially = [], []
        for batch in _batches(model, rows, index):
            truth = batch.values[source.name]
            answer = model.sample(batch.select(known), [source.name], mode="mean").values[source.name]
            answered.append(nearness(answer, truth, source).to("cpu"))
            trivially.append(nearness(mean.expand_as(truth), truth, source).to("cpu"))
        mine, trivial = (float(torch.cat(found).mean()) for found in (answered, trivially))
        figures[f"{'accuracy' if source.categories else 'psnr'}/{source.name}"] = mine
        if not mine > trivial and source.name in model.trained_sources:  # NaN is no better than anything
            worse.append(f"{source.name} {mine:.2f} against {trivial:.2f}")
    failure = f"{what} is no better than the mean image ({', '.join(worse)})." if worse else None
    return Gate(figures, failure)


def _mean_image(parts: Iterable[Tensor], source: Source) -> Tensor:
    """Of images that come in parts; of class numbers each pixel's most frequent one."""
    if source.categories:
        counts = [
            torch.stack([(part.round() == kind).sum(dim=0) for kind in range(source.categories)]) for part in parts
        ]
        return torch.stack(counts).sum(dim=0).argmax(dim=0).float()
    device, total, count = torch.device("cpu"), torch.zeros((), dtype=torch.float64), 0
    for part in parts:
        device, total, count = part.device, total + part.cpu().double().sum(dim=0), count + len(part)  # MPS: no float64
    return (total / count).float().to(device)


@torch.no_grad()
def code(model: MultiSourceModel, rows: Rows) -> Gate:
    """The code of one source: a linear probe where there are labels, and retrieval of a row by its other sources.

    The code of all sources of the same rows is probed too, and has to know about as much: else their evidence is
    pooled badly.
    """
    codes, index = _own_codes(model, rows)
    found, chance = _retrieval(codes, index)
    figures = {"retrieval": found}
    if rows.labels is not None:
        probes = [_probe(codes[name], rows.labels[index[name]]) for name in codes]
        known = [value for value in probes if value is not None]
        if known:
            figures["probe"] = sum(known) / len(known)
            shares = torch.bincount(rows.labels).float() / len(rows.labels)
            figures["probe_chance"] = float(shares.max())
            pooling = _probes_of_pooling(model, rows, codes, index, rows.labels)
            if pooling is not None:
                figures["probe_of_all"], alone = pooling
                if figures["probe_of_all"] < alone - POOLING_LOSS:
                    return Gate(figures, "the code of all sources knows less than that of one.")
            if figures["probe"] > min(0.9, 1.5 * figures["probe_chance"]):
                return Gate(figures)
    too_few = not 0.0 < CHANCE * chance < 1.0  # rows that have two sources, to tell it from chance
    if too_few or found > CHANCE * chance:
        return Gate(figures)
    return Gate(figures, "the codes of a row's sources have nothing in common.")


@torch.no_grad()
def converter(model: MultiSourceModel, rows: Rows) -> Gate:
    """Codes drawn given all sources of a row are nearer to the row's own code than to another row's."""
    generator = torch.Generator(model.device).manual_seed(0)
    found = [
        (model.codes(batch, 1, None, "sample", "own", generator), model.encode(batch).mean)
        for batch in _batches(model, rows, _first(rows))
    ]
    drawn, own = (torch.cat(codes) for codes in zip(*found, strict=True))
    here = F.cosine_similarity(drawn, own).mean()
    elsewhere = F.cosine_similarity(drawn, own.roll(1, dims=0)).mean()
    spread = float(model.draw(GATE_ROWS, generator, from_prior=True).std() / own.std().clamp_min(1e-6))
    figures = {"own_row": float(here), "other_row": float(elsewhere), "spread": spread}
    if isinstance(model, FlowParts) and model.fitted_mixture is not None:
        figures |= dict(zip(("energy_converter", "energy_mixture"), model.energy_scores.tolist(), strict=True))
    failure = None
    if len(own) > 1 and not float(here) > float(elsewhere) + 0.05:
        failure = "drawn codes do not follow the given sources."
    return Gate(figures, failure)


@torch.no_grad()
def samples(model: MultiSourceModel, rows: Rows) -> Gate:
    """Rows made from nothing: do the model's own encoders find one code in all their sources, as in real rows?"""
    generator = torch.Generator(model.device).manual_seed(0)
    made = model.sample(n=GENERATED_ROWS, generator=generator)
    generated, count = {}, torch.arange(GENERATED_ROWS)
    for name in model.source_names:
        generated[name] = model.encode(made.select([name])).mean.to("cpu")
    real, index = _own_codes(model, rows)
    figures = {
        "agreement": _agreement(generated, dict.fromkeys(generated, count)),
        "real_agreement": _agreement(real, index),
    }
    if figures["agreement"] > 0.3 * figures["real_agreement"]:
        return Gate(figures)
    return Gate(figures, "the sources of generated rows do not show the same thing.")


def _own_codes(model: MultiSourceModel, rows: Rows) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The code of each source alone, and the rows that have it."""
    codes, index = {}, {}
    for name in model.source_names:
        chosen = rows.present[name].nonzero().squeeze(1)
        chosen = chosen[chosen < GATE_ROWS]
        if len(chosen) > 1:
            codes[name] = _codes(model, rows, chosen, [name])
            index[name] = chosen
    return codes, index


def _first(rows: Rows) -> Tensor:
    """The rows that a gate looks at."""
    return torch.arange(min(GATE_ROWS, len(rows)))


def _codes(model: MultiSourceModel, rows: Rows, index: Tensor, given: Sequence[str]) -> Float[Tensor, "rows latent"]:
    return torch.cat([model.encode(batch.select(given)).mean.to("cpu") for batch in _batches(model, rows, index)])


def _batches(model: MultiSourceModel, rows: Rows, index: Tensor) -> Iterator[SourceBatch]:
    """The rows in parts that memory holds, however large their images are."""
    for part in index.split(rows_at_once(model.sources)):
        yield rows.batch(part).to(model.device)


def _probe(codes: Float[Tensor, "rows latent"], labels: Tensor) -> float | None:
    """A linear classifier fitted on the first half of the rows, tested on the second."""
    half = len(codes) // 2
    if half < 2 or len(labels[:half].unique()) < 2:
        return None
    return linear_probe(codes[:half], labels[:half], codes[half:], labels[half:])


def _probes_of_pooling(
    model: MultiSourceModel,
    rows: Rows,
    codes: Mapping[str, Tensor],
    index: Mapping[str, Tensor],
    labels: Tensor,
) -> tuple[float, float] | None:
    """Probes of the code of all sources, and of each source's own, on the same rows: those with another source beside
    it; means over the sources that are in enough of such rows, or None."""
    several = rows.presence().sum(dim=0) > 1
    together = _codes(model, rows, _first(rows), model.source_names)
    pooled, alone = [], []
    for name, chosen in index.items():
        both = several[chosen]
        if int(both.sum()) < LEAST_PROBED:
            continue
        found = [_probe(values, labels[chosen[both]]) for values in (together[chosen[both]], codes[name][both])]
        if found[0] is not None and found[1] is not None:
            pooled.append(found[0])
            alone.append(found[1])
    return (sum(pooled) / len(pooled), sum(alone) / len(alone)) if pooled else None


def _pairs(codes: Mapping[str, Tensor], index: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For every two sources, the directions of their codes in the first rows that have both."""
    pairs = []
    for first in codes:
        for second in codes:
            if first >= second:
                continue
            here = torch.isin(index[first], index[second]).nonzero().squeeze(1)[:GENERATED_ROWS]
            there = torch.isin(index[second], index[first]).nonzero().squeeze(1)[:GENERATED_ROWS]
            if len(here) > 1:
                pairs.append((F.normalize(codes[first][here], dim=1), F.normalize(codes[second][there], dim=1)))
    return pairs


def _retrieval(codes: Mapping[str, Tensor], index: Mapping[str, Tensor]) -> tuple[float, float]:
    """How often the nearest code of another source is the same row's, among at most 256 rows, and by chance."""
    pairs = _pairs(codes, index)
    if not pairs:
        return 0.0, 0.0
    found = [float(((one @ other.T).argmax(dim=1) == torch.arange(len(one))).float().mean()) for one, other in pairs]
    return sum(found) / len(pairs), sum(1.0 / len(one) for one, _ in pairs) / len(pairs)


def _agreement(codes: Mapping[str, Tensor], index: Mapping[str, Tensor]) -> float:
    """Mean cosine of the codes of one row's sources, less that of different rows' sources."""
    found = [
        float((one * other).sum(dim=1).mean() - (one * other.roll(1, dims=0)).sum(dim=1).mean())
        for one, other in _pairs(codes, index)
    ]
    return sum(found) / len(found) if found else 0.0


GATES: dict[str, Callable[[MultiSourceModel, Rows], Gate]] = {
    "reconstruction": reconstruction,
    "code": code,
    "converter": converter,
    "samples": samples,
    "alignment": alignment,
}
