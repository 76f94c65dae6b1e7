"""What real images look like to the judges: the yardstick of every model on a data set, made once for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msvae.data.base import DataSet, Rows
from msvae.evaluation.assets import verifier_of
from msvae.evaluation.extent import MOST_REAL, RARE, Extent, mixed, parts
from msvae.evaluation.photographs import RealPhotographs, real_photographs
from msvae.evaluation.verifier import Classifier
from msvae.metrics import Verdict, conditional_coherence, frechet_distance, joint_coherence
from msvae.training.devices import device_named
from msvae.training.progress import Display, Quiet, tracked

VERIFIER_SEED = 0


@dataclass(frozen=True)
class Yardstick:
    """The verifiers, and what they say of real images.

    Args:
        classifiers: one for each source that has labelled training and test rows.
        real: what they see in real test images, the first ones of each source.
        frechet_rows: images in every Fréchet distance of their features: its bias depends on the number.
        figures: the ceilings that no model has a part in.
        photographs: ImageNet features of real images, or None where they are not asked for.
    """

    classifiers: dict[str, Classifier]
    real: dict[str, Verdict]
    frechet_rows: int
    figures: dict[str, Any]
    photographs: RealPhotographs | None

    @property
    def judges(self) -> dict[str, dict[str, Any]]:
        """Which verifiers these are: how long each was trained, and a name of its weights."""
        return {
            name: {"steps": classifier.effort.steps, "fingerprint": classifier.fingerprint()}
            for name, classifier in self.classifiers.items()
        }


def make_yardstick(
    data: DataSet, extent: Extent, verifier_rows: Rows | None = None, display: Display | None = None
) -> Yardstick:
    """The yardstick of a data set.

    Args:
        verifier_rows: rows that the classifiers are trained on, never test rows; by default the set's training rows.

    Raises:
        ConfigError: if ImageNet features are asked for and their weights are not installed.
    """
    display, data = display or Quiet(), mixed(data)
    test, train = data.split("test"), data.split("train")
    classifiers = _classifiers(data, verifier_rows or train, display)
    real = {name: _look(classifier, test, MOST_REAL) for name, classifier in classifiers.items()}
    counts = [len(verdict.classes) for verdict in real.values()]
    rows = min([extent.generated, *(count for count in counts if count >= RARE * max(counts))])
    known = {name: _look(classifier, train, rows, shuffled=True) for name, classifier in classifiers.items()}
    return Yardstick(
        classifiers,
        real,
        rows,
        _ceilings(classifiers, test, real, known, rows),
        real_photographs(data, extent.pictures, display) if extent.photographs else None,
    )


def _classifiers(data: DataSet, rows: Rows, display: Display) -> dict[str, Classifier]:
    """A verifier for every source that has labelled training and test rows."""
    test = data.split("test")
    labels = [part.labels for part in (rows, test)]
    if any(part is None or len(part.unique()) < 2 for part in labels):  # of one class all images are right
        return {}
    names = [s.name for s in data.sources if bool(rows.present[s.name].any()) and int(test.present[s.name].sum()) > 1]
    classes = max(len(data.class_names), *(int(part.max()) + 1 for part in labels if part is not None))
    return {
        name: verifier_of(data, rows, name, classes, VERIFIER_SEED).to(device_named())
        for name in tracked(names, display, "training the verifiers", len(names))
    }


def _look(classifier: Classifier, rows: Rows, most: int, shuffled: bool = False) -> Verdict:
    """What a classifier sees in real images, at most so many: the first ones, or any."""
    index = rows.having([classifier.source.name])
    if shuffled:  # rows of a training split may be in any order
        index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(VERIFIER_SEED))]
    return look_at(classifier, rows, index[:most])


def look_at(classifier: Classifier, rows: Rows, index: Tensor) -> Verdict:
    """What a classifier sees in the real images of these rows."""
    verdicts = [classifier.look(rows.batch(part).values[classifier.source.name]) for part in parts(index)]
    return joined_verdicts(verdicts) if verdicts else classifier.look(torch.zeros(0, *classifier.source.shape))


def joined_verdicts(verdicts: list[Verdict]) -> Verdict:
    """One verdict of all images from those of parts of them."""
    return Verdict(torch.cat([v.probabilities for v in verdicts]), torch.cat([v.features for v in verdicts]))


def _ceilings(
    classifiers: Mapping[str, Classifier],
    test: Rows,
    real: Mapping[str, Verdict],
    known: Mapping[str, Verdict],
    rows: int,
) -> dict[str, Any]:
    """What a perfect model would score: the same figures of real rows."""
    if not classifiers or test.labels is None:
        return {}
    labels = {name: test.labels[test.having([name])[: len(verdict.classes)]] for name, verdict in real.items()}
    complete = test.having(list(classifiers))[:MOST_REAL]
    everyone = [look_at(classifier, test, complete) for classifier in classifiers.values()]
    return {
        "classifier_accuracy": {name: float((v.classes == labels[name]).float().mean()) for name, v in real.items()},
        "classifier_coherence": {name: conditional_coherence(v, labels[name]) for name, v in real.items()},
        "joint_coherence": joint_coherence(everyone) if len(complete) else None,
        "frechet_train_test": mean(
            [equal_frechet(known[name], real[name], rows) for name in real if len(known[name].features)]
        ),
    }


def equal_frechet(first: Verdict, second: Verdict, rows: int) -> float | None:
    """The Fréchet distance of the first `rows` images of both, or None for a source that has fewer."""
    if min(len(first.features), len(second.features)) < max(2, rows):
        return None
    return frechet_distance(first.features[:rows], second.features[:rows])


def mean(values: list[float | None]) -> float | None:
    """The mean of the figures that are known, or None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
