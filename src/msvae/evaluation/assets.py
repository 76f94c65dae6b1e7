"""Verifiers of a known set: trained once and thoroughly, kept with the built set, used by every evaluation on it.

SET/verifiers/verifiers.json           sources, classes, effort, seed, accuracy, hashes of the files
SET/verifiers/SOURCE.safetensors       weights of one source's classifier
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from msvae.data.base import DataSet, Rows
from msvae.data.cache import locked
from msvae.data.sets import SETS, KnownSet
from msvae.data.store import VERIFIERS
from msvae.errors import CheckpointError, DataError, MsvaeError
from msvae.evaluation.verifier import THOROUGH, Classifier, Effort, train_classifier
from msvae.files import read_json, sha256, write_folder, write_json
from msvae.source import source_named
from msvae.training.progress import Display, Quiet

FORMAT_VERSION = 1
INDEX = "verifiers.json"
CHUNK = 512


@dataclass(frozen=True)
class Verifiers:
    """The verifiers of a set.

    Args:
        folder: where they are kept.
        accuracy: `{source: {split: share of right classes}}` on validation and test rows; training uses neither.
    """

    folder: Path
    accuracy: dict[str, dict[str, float]]


def make_verifiers(
    known: KnownSet,
    options: Mapping[str, Any] | None = None,
    *,
    effort: Effort = THOROUGH,
    seed: int = 0,
    display: Display | None = None,
) -> Verifiers:
    """Train a verifier for every source of a built set, on its training rows alone, and keep them with the set.

    Raises:
        DataError: if the set is embedded, is not built, or has no labels.
        CheckpointError: if they cannot be written; older ones stay then.
    """
    if known.embedded:
        raise DataError(f"Data set {known.name!r} is drawn anew every time; evaluation trains its verifiers.")
    data = known.open(options or {})
    train = data.split("train")
    if train.labels is None:
        raise DataError(f"Data set {known.name!r} has no labels; verifiers need them.")
    classes = max(len(data.class_names), int(train.labels.max()) + 1)
    made, accuracy = {}, {}
    for source in data.sources:
        model = train_classifier(train, source.name, classes, seed, effort=effort, display=display or Quiet())
        made[source.name] = model
        measured = {split: right_share(model, data.split(split)) for split in ("validation", "test")}
        accuracy[source.name] = {split: share for split, share in measured.items() if share is not None}
    folder = known.folder(options or {}) / VERIFIERS

    def fill(target: Path) -> None:
        for name, model in made.items():
            save_file(model.state_dict(), target / f"{name}.safetensors")
        index = {
            "format": FORMAT_VERSION,
            "classes": classes,
            "effort": asdict(effort),
            "seed": seed,
            "accuracy": accuracy,
            "files": {name: sha256(target / f"{name}.safetensors") for name in made},
        }
        write_json(target / INDEX, index)

    with locked(folder.parent):
        write_folder(folder, fill)
    return Verifiers(folder, accuracy)


def right_share(model: Classifier, rows: Rows) -> float | None:
    """Share of a split's images of the model's source whose class is seen, or None without any."""
    alone = rows.only([model.source.name])
    if alone.labels is None or len(alone) == 0:
        return None
    right = 0
    for index in torch.arange(len(alone)).split(CHUNK):
        classes = model.look(alone.batch(index).values[model.source.name]).classes
        right += int((classes == alone.labels[index]).sum())
    return right / len(alone)


def verifier_of(data: DataSet, rows: Rows, name: str, classes: int, seed: int) -> Classifier:
    """The kept verifier of a source, or one trained now on the given rows.

    Raises:
        CheckpointError: if kept verifiers are damaged.
    """
    return kept_verifier(data, name, classes) or train_classifier(rows, name, classes, seed)


def kept_verifier(data: DataSet, name: str, classes: int) -> Classifier | None:
    """The verifier that was made for this source of a known set with these options, or None.

    Raises:
        CheckpointError: if it is damaged.
    """
    folder = _folder_of(data)
    if folder is None or not (folder / INDEX).exists():
        return None
    index = read_json(folder / INDEX)
    if index.get("format") != FORMAT_VERSION or index.get("classes") != classes or name not in index.get("files", {}):
        return None
    path = folder / f"{name}.safetensors"
    try:
        if sha256(path) != index["files"][name]:
            raise CheckpointError(f"{path} is damaged; make the verifiers again: msvae data verifier {data.name}.")
        model = Classifier(source_named(data.sources, name), classes, Effort(**index["effort"]))
        model.load_state_dict(load_file(path))
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path} does not hold a verifier of source {name!r} ({error}).") from None
    return model.eval()


def _folder_of(data: DataSet) -> Path | None:
    """Where verifiers of a set opened from the cache are; None for sets that are not from there."""
    known, options = SETS.get(data.name), data.card.get("options")
    if known is None or known.embedded or data.card.get("recipe") != known.recipe:
        return None
    try:
        return known.folder(options or {}) / VERIFIERS
    except MsvaeError:
        return None
