"""Every conversion: for every subset of the sources and every target outside it, is the answer right and real?"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import ceil
from typing import Any, TypeVar

import torch
from torch import Tensor

from msvae.data.base import DataSet
from msvae.evaluation.extent import Extent, parts
from msvae.evaluation.photographs import Album, conditional_set
from msvae.evaluation.yardstick import Yardstick
from msvae.metrics import PixelQuality, conditional_coherence, joined_quality, pixel_quality
from msvae.models.base import MultiSourceModel
from msvae.subsets import named_subsets, subset_label

K = TypeVar("K")

LEAST_COMPARED = 2  # images that a Fréchet distance needs
MOST_SUBSETS = 62  # all proper subsets of six sources; with more, sizes 1 and M-1 only


def conversions(
    model: MultiSourceModel, data: DataSet, yardstick: Yardstick, extent: Extent, album: Album | None, seed: int
) -> dict[str, dict[str, Any]]:
    """Figures by `given->wanted`: pixels where a row's sources show the same thing, coherence of drawn answers.

    The album gets one drawn image for each row and target, from one given source and from all but one: the subsets of
    that size take turns over the rows. Both sizes are judged by equally many images, as many as rows that lack sources
    leave of the rarer one.
    """
    test = data.split("test")
    generator = torch.Generator(model.device).manual_seed(seed)
    subsets = proper_subsets(model.source_names)
    rows = {given: test.having(given) for given in subsets}
    rows = rows if extent.rows is None else {given: index[index < extent.rows] for given, index in rows.items()}
    places = {} if album is None else {name: _places(album, rows, name) for name in model.source_names}
    figures: dict[str, dict[str, Any]] = {}
    for given, index in rows.items():
        targets = [name for name in model.source_names if name not in given]
        qualities: dict[str, list[tuple[PixelQuality, int]]] = defaultdict(list)
        coherences: dict[str, list[tuple[float, int]]] = defaultdict(list)
        taken: dict[str, int] = defaultdict(int)  # images in the album
        for part in parts(index):
            batch = test.batch(part)
            asked = batch.select(given)
            means = model.sample(asked, targets, mode="mean").to("cpu") if data.shared_content else None
            drawn = model.sample(asked, targets, generator=generator).to("cpu")
            for target in targets:
                known = batch.present[target]
                if means is not None and bool(known.any()):
                    source = model.sources[model.source_names.index(target)]
                    quality = pixel_quality(means.values[target][known], batch.values[target][known], source)
                    qualities[target].append((quality, int(known.sum())))
                if test.labels is not None and target in yardstick.classifiers:
                    verdict = yardstick.classifiers[target].look(drawn.values[target])
                    coherences[target].append((conditional_coherence(verdict, test.labels[part]), len(part)))
                if album is not None and len(given) in album.conditional_sizes:
                    turn = _turns(part, _alike(subsets, len(given), target), given).nonzero().squeeze(1)
                    turn = turn[: places[target][given] - taken[target]]
                    taken[target] += len(turn)
                    album.add(conditional_set(len(given)), target, drawn.values[target][turn])
        if len(index):
            figures |= {
                f"{subset_label(given)}->{target}": _entry(given, qualities[target], coherences[target])
                for target in targets
            }
    return figures


def _alike(subsets: Iterable[tuple[str, ...]], size: int, target: str) -> list[tuple[str, ...]]:
    """The subsets of a size that a target is drawn from."""
    return [given for given in subsets if len(given) == size and target not in given]


def _places(album: Album, rows: Mapping[tuple[str, ...], Tensor], target: str) -> dict[tuple[str, ...], int]:
    """How many images of a target the album takes from each subset: in all as many from one source as from all but one,
    since small sets have larger distances; all that there are where one of these sizes has next to none."""
    there: list[dict[tuple[str, ...], int]] = []
    for size in album.conditional_sizes:
        alike = _alike(rows, size, target)
        there.append({given: int(_turns(rows[given], alike, given).sum()) for given in alike})
    enough = [total for counts in there if (total := sum(counts.values())) >= LEAST_COMPARED]
    common = min([album.real.rows, *enough])
    places: dict[tuple[str, ...], int] = {}
    for counts in there:
        places |= levelled(counts, common)
    return places


def levelled(counts: Mapping[K, int], total: int) -> dict[K, int]:
    """Shares of a total that are as equal as what each has allows."""
    shares: dict[K, int] = {}
    for position, (name, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[name] = min(count, ceil((total - sum(shares.values())) / (len(counts) - position)))
    return shares


def _turns(rows: Tensor, subsets: Sequence[tuple[str, ...]], given: tuple[str, ...]) -> Tensor:
    """Which of these rows are the given subset's."""
    return rows % len(subsets) == subsets.index(given)


def _entry(
    given: Sequence[str], qualities: list[tuple[PixelQuality, int]], coherences: list[tuple[float, int]]
) -> dict[str, Any]:
    quality = joined_quality(qualities)
    rows = sum(count for _, count in coherences)
    coherence = sum(value * count for value, count in coherences) / rows if rows else None
    entry = {"given": len(given), "psnr": quality.psnr, "ssim": quality.ssim, "coherence": coherence}
    return entry if quality.accuracy is None else {**entry, "accuracy": quality.accuracy}


def proper_subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All subsets but the whole; of many sources only those of one, and of all but one."""
    sizes = range(1, len(names))
    if 2 ** len(names) - 2 > MOST_SUBSETS:
        sizes = (1, len(names) - 1)
    return [subset for size in sizes for subset in named_subsets(names, size)]


def by_size(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Conditional coherence at k: the mean over all subsets of k sources and all targets outside them."""
    sizes = sorted({entry["given"] for entry in figures.values()})
    result: dict[str, float | None] = {}
    for size in sizes:
        values = [e["coherence"] for e in figures.values() if e["given"] == size and e["coherence"] is not None]
        result[str(size)] = sum(values) / len(values) if values else None
    return result


def monotonicity(coherence: Mapping[str, float | None], frechet: Mapping[str, float | None]) -> dict[str, float | None]:
    """Does a model get worse when it is given more sources?

    `coherence_gain` is the change from one given source to all but one. `coherence_fall` is the largest loss from k
    to k+1 sources, `frechet_rise` the rise of the Fréchet distance from one to all but one; both are 0 for a model that
    does not get worse.
    """
    right = [value for value in coherence.values() if value is not None]
    far = [value for value in frechet.values() if value is not None]
    return {
        "coherence_gain": right[-1] - right[0] if len(right) > 1 else None,
        "coherence_fall": max(0.0, *(a - b for a, b in pairwise(right))) if len(right) > 1 else None,
        "frechet_rise": max(0.0, *(b - a for a, b in pairwise(far))) if len(far) > 1 else None,
    }
