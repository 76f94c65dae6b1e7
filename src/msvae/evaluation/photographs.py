"""Fréchet distances in ImageNet features: how real do the images of a model look, source by source?

All sets are compared with the same real test images. The distance is the larger the fewer images a set has, so that
sets of equally many are comparable; `images` tells of sets that have fewer. Reconstructions are of those very images: a
perfect autoencoder has 0, where other real images have more.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msvae.data.base import DataSet, Rows
from msvae.evaluation.extent import RARE, parts
from msvae.metrics.frechet import Moments, frechet_of_moments
from msvae.metrics.imagenet import (
    HEAD,
    IMAGE_SIZE,
    EfficientNetLite0,
    feature_distance,
    load_efficientnet,
    pooled_features,
    sees,
)
from msvae.source import Source
from msvae.training.devices import device_named
from msvae.training.progress import Display, tracked

DEPTH = 112  # channels of the map whose means are the features; the 1280 after the head stand beside the main figures
MOST_COMPARED = 500  # pairs of a source in its feature distance: a mean, settled long before a Fréchet distance is
ByDepth = dict[int, Moments]


def features_name(depth: int) -> str:
    return f"FD, EfficientNet-Lite0 ({depth})"


def conditional_set(given: int) -> str:
    """The set of images drawn from so many given sources."""
    return f"conditional {given}"


@dataclass(frozen=True)
class RealPhotographs:
    """Features of real images, to compare with.

    Args:
        rows: images in every set.
        sources: those that have photographs and that many test images.
        test, train: moments of real images by source.
    """

    network: EfficientNetLite0
    rows: int
    sources: dict[str, Source]
    test: dict[str, ByDepth]
    train: dict[str, ByDepth]


def real_photographs(data: DataSet, rows: int, display: Display) -> RealPhotographs:
    """Look at real test and training images, equally many.

    Sources with hardly any images in either (`RARE`) are left out; the others have as many as the one with fewest.

    Raises:
        ConfigError: if the weights are not installed.
    """
    network = load_efficientnet().to(device_named())
    test, train = data.split("test"), data.split("train")
    fewest = {s.name: min(int(part.present[s.name].sum()) for part in (test, train)) for s in data.sources if sees(s)}
    least = max([2.0, *(RARE * count for count in fewest.values())])
    seen = {s.name: s for s in data.sources if fewest.get(s.name, 0) >= least}
    rows = min([rows, *(fewest[name] for name in seen)])
    moments: dict[str, dict[str, ByDepth]] = {"test": {}, "train": {}}
    wanted = [(split, part, source) for split, part in (("test", test), ("train", train)) for source in seen.values()]
    for split, part, source in tracked(wanted, display, "looking at real images", len(wanted)):
        moments[split][source.name] = _moments(network, part, source, rows, shuffled=split == "train")
    return RealPhotographs(network, rows, seen, moments["test"], moments["train"])


def _moments(network: EfficientNetLite0, rows: Rows, source: Source, most: int, shuffled: bool) -> ByDepth:
    index = rows.present[source.name].nonzero().squeeze(1)
    if shuffled:
        index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]
    gathered: ByDepth = {DEPTH: Moments(), HEAD: Moments()}
    for part in parts(index[:most]):
        features = pooled_features(network, rows.batch(part).values[source.name], source, (DEPTH, HEAD))
        for depth, moments in gathered.items():
            moments.add(features[depth])
    return gathered


class Album:
    """The images of one model, seen and forgotten: only the moments of their features are kept.

    Sets of images have names: `conditional 1` and `conditional M-1` (by the number of given sources), `generated`,
    `generated from the prior`, `reconstructed`.
    """

    def __init__(self, real: RealPhotographs, source_count: int) -> None:
        self.real = real
        self.conditional_sizes = sorted({1, source_count - 1} - {0})
        self._sets: dict[str, dict[str, ByDepth]] = defaultdict(dict)
        self._distances: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, name: str, source: str, images: Tensor) -> None:
        """Take images of a source into a set; those beyond the number that is compared are left out."""
        if source not in self.real.sources:
            return
        gathered = self._sets[name].setdefault(source, {depth: Moments() for depth in self._depths(name)})
        room = self.real.rows - gathered[DEPTH].count
        if room <= 0 or len(images) == 0:
            return
        features = pooled_features(self.real.network, images[:room], self.real.sources[source], tuple(gathered))
        for depth, moments in gathered.items():
            moments.add(features[depth])

    def compare(self, source: str, images: Tensor, truth: Tensor) -> None:
        """Take up the feature distance of reconstructions from their truth."""
        if source not in self.real.sources:
            return
        room = min(self.real.rows, MOST_COMPARED) - sum(map(len, self._distances[source]))
        if room > 0 and len(images):
            self._distances[source].append(
                feature_distance(self.real.network, images[:room], truth[:room], self.real.sources[source])
            )

    def figures(self) -> dict[str, Any]:
        """All distances; a set's is the mean over its sources."""
        conditional = {str(size): conditional_set(size) for size in self.conditional_sizes}
        largest = self._largest
        return {
            "features": features_name(DEPTH),
            "image_size": IMAGE_SIZE,
            "rows": self.real.rows,
            "images": self._counts(),
            "conditional": {size: self._mean(name) for size, name in conditional.items()},
            "conditional_by_source": self._by_source(self._sets.get(largest, {})),
            "unconditional": self._mean("generated"),
            "unconditional_by_source": self._by_source(self._sets.get("generated", {})),
            "prior_unconditional": self._mean("generated from the prior"),
            "reconstruction": self._mean("reconstructed"),
            "reconstruction_by_source": self._by_source(self._sets.get("reconstructed", {})),
            "real_train_test": _average(self._by_source(self.real.train).values()),
            "wide": {
                "features": features_name(HEAD),
                "conditional_leave_one_out": self._mean(largest, HEAD),
                "unconditional": self._mean("generated", HEAD),
                "prior_unconditional": self._mean("generated from the prior", HEAD),
                "reconstruction": self._mean("reconstructed", HEAD),
                "real_train_test": _average(self._by_source(self.real.train, HEAD).values()),
            },
            "feature_distance": {name: float(torch.cat(d).mean()) for name, d in self._distances.items()},
        }

    def _counts(self) -> dict[str, int]:
        """Images of each set, of the source that has fewest."""
        fewest = {name: min(m[DEPTH].count for m in gathered.values()) for name, gathered in self._sets.items()}
        return {name: count for name, count in fewest.items() if count > 0}

    @property
    def _largest(self) -> str:
        return conditional_set(self.conditional_sizes[-1]) if self.conditional_sizes else ""

    def _depths(self, name: str) -> tuple[int, ...]:
        return (DEPTH,) if name.startswith("conditional") and name != self._largest else (DEPTH, HEAD)

    def _mean(self, name: str, depth: int = DEPTH) -> float | None:
        return _average(self._by_source(self._sets.get(name, {}), depth).values())

    def _by_source(self, gathered: Mapping[str, ByDepth], depth: int = DEPTH) -> dict[str, float]:
        real = self.real.test
        return {n: frechet_of_moments(m[depth], real[n][depth]) for n, m in gathered.items() if m[depth].count > 1}


def _average(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None
