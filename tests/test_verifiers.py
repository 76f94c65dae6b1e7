"""Verifiers that are kept with a built set: what evaluation gets, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from msvae.config import DataConfig
from msvae.data import DataSet, load_data
from msvae.data.fetch import Package
from msvae.data.sets import SETS, KnownSet, Option, colours, get_set
from msvae.data.sets.known import Workshop
from msvae.data.store import VERIFIERS
from msvae.errors import CheckpointError, DataError
from msvae.evaluation.assets import INDEX, kept_verifier, make_verifiers, verifier_of
from msvae.evaluation.verifier import Effort, _warped
from msvae.source import Source

SMALL = Effort(steps=60, batch_size=32, width=4, warped=True)


def _build(workshop: Workshop, *, labelled: bool) -> None:
    """Bright and dark pictures; of the test rows every second label is wrong on purpose."""
    labels = np.arange(90) % 2
    images = np.where(labels == 1, 220, 30)[:, None, None, None] + np.zeros((1, 8, 8), dtype=int)
    told = labels.copy()
    told[80:] = [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    workshop.save(
        [Source("grey", (1, 8, 8)), Source("other", (1, 8, 8))],
        {"grey": images.astype(np.uint8), "other": images.astype(np.uint8)},
        {"train": np.arange(70), "validation": np.arange(70, 80), "test": np.arange(80, 90)},
        labels=told if labelled else None,
        class_names=["dark", "bright"],
    )


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownSet:
    monkeypatch.setenv("MSVAE_CACHE", str(tmp_path / "cache"))
    package = Package("npm", "x", "1", (), "", 0.0, "")
    made = KnownSet("shades", "", {"labelled": Option(True, "")}, "", "", _build, (package,))
    monkeypatch.setitem(SETS, "shades", made)
    return made


def _opened(**options: object) -> DataSet:
    return load_data(DataConfig(name="shades", options=options))


def test_verifiers_are_trained_on_training_rows_and_measured_on_the_others(known: KnownSet) -> None:
    get_set(known)
    made = make_verifiers(known, effort=SMALL)
    for name in ("grey", "other"):
        assert made.accuracy[name]["validation"] == 1.0
        assert made.accuracy[name]["test"] == 0.5  # of these labels five are wrong
    assert json.loads((made.folder / INDEX).read_text())["accuracy"] == made.accuracy
    assert {path.name for path in made.folder.iterdir()} == {INDEX, "grey.safetensors", "other.safetensors"}


def test_evaluation_gets_the_kept_verifier(known: KnownSet) -> None:
    get_set(known)
    data = _opened()
    assert kept_verifier(data, "grey", 2) is None
    make_verifiers(known, effort=SMALL)
    kept = kept_verifier(data, "grey", 2)
    assert kept is not None
    images = data.split("test").all().values["grey"]
    first = verifier_of(data, data.split("train"), "grey", 2, seed=5).look(images)
    torch.testing.assert_close(first.probabilities, kept.look(images).probabilities)
    assert not kept.training
    only = data.only(["grey"]).with_missing(0.5, seed=1)
    assert kept_verifier(only, "grey", 2) is not None
    assert kept_verifier(data, "grey", 3) is None


def test_other_options_and_other_sets_have_verifiers_of_their_own(known: KnownSet) -> None:
    get_set(known)
    get_set(known, {"labelled": False})
    make_verifiers(known, effort=SMALL)
    assert kept_verifier(_opened(labelled=False), "grey", 2) is None
    stranger = DataSet("shades", _opened().splits, shared_content=False)
    assert kept_verifier(stranger, "grey", 2) is None
    get_set(known, again=True)
    assert kept_verifier(_opened(), "grey", 2) is not None  # of the same rows


def test_sets_without_labels_or_files_are_refused(known: KnownSet) -> None:
    with pytest.raises(DataError, match="msvae data get shades"):
        make_verifiers(known)
    get_set(known, {"labelled": False})
    with pytest.raises(DataError, match="no labels"):
        make_verifiers(known, {"labelled": False})
    with pytest.raises(DataError, match="drawn anew"):
        make_verifiers(colours.SET)


@pytest.mark.parametrize("damage", ["cut", "gone", "index"])
def test_damaged_verifiers_are_named(known: KnownSet, damage: str) -> None:
    get_set(known)
    folder = make_verifiers(known, effort=SMALL).folder
    assert folder.name == VERIFIERS
    file = folder / "grey.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "gone":
        file.unlink()
    else:
        (folder / INDEX).write_text("{")
    with pytest.raises(CheckpointError, match=r"damaged|does not hold"):
        kept_verifier(_opened(), "grey", 2)


def test_warping_moves_every_image_on_its_own_and_keeps_classes_whole() -> None:
    torch.manual_seed(0)
    images = torch.zeros(6, 1, 16, 16)
    images[:, :, 6:10, 6:10] = 1
    warped = _warped(images, Source("grey", (1, 16, 16)))
    assert warped.shape == images.shape
    assert len({tuple(image.flatten().tolist()) for image in warped}) == 6
    still = _warped(images, Source("grey", (1, 16, 16)), turn=0.0, scale=0.0, shift=0.0)
    torch.testing.assert_close(still, images, atol=1e-5, rtol=0)
    moved = _warped(images, Source("classes", (1, 16, 16), likelihood="categorical", categories=2))
    assert set(moved.unique().tolist()) == {0.0, 1.0}
