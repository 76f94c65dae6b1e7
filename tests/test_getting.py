"""`msvae data get`: whole or not at all, once for all processes, and named when something is odd."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Command
from msvae.config import DataConfig
from msvae.data import SETS, KnownSet, known_set, load_data
from msvae.data.extras import extra
from msvae.data.fetch import Package
from msvae.data.sets import Option, get_set
from msvae.data.sets.known import SEED, Workshop
from msvae.data.store import VERIFIERS, open_store
from msvae.errors import ConfigError, DataError
from msvae.source import Source
from msvae.training.progress import Quiet

Build = Callable[..., None]
PACKAGE = Package("npm", "x", "1", (), "", 0.0, "CC0, somebody")


class Notes(Quiet):
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def _draw(workshop: Workshop, *, rows: int, bright: bool, kind: str, seed: int) -> None:
    images = np.full((rows, 1, 8, 8), 200 if bright else 20, dtype=np.uint8)
    images[:, 0, 0, 0] = seed
    numbers = np.arange(rows)
    workshop.save([Source("grey", (1, 8, 8))], {"grey": images}, {"train": numbers, "test": numbers[:1]})


def _known(build: Build = _draw, checksum: str = "") -> KnownSet:
    options = {
        "rows": Option(4, "rows", 1, 9),
        "bright": Option(True, "light"),
        "kind": Option("a", "which", choices=("a", "b")),
        "seed": SEED,
    }
    return KnownSet("greys", "greys", options, "CC0", "none", build, (PACKAGE,), checksum)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSVAE_CACHE", str(tmp_path / "cache"))


def _left(known: KnownSet) -> list[str]:
    return sorted(path.name for path in known.folder({}).parent.iterdir() if not path.name.endswith(".lock"))


def test_a_set_is_built_once_and_opened_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    known = _known()
    monkeypatch.setitem(SETS, "greys", known)
    with pytest.raises(DataError, match=r"not built yet.*msvae data get greys --set rows=5"):
        load_data(DataConfig(name="greys", options={"rows": 5}))
    assert get_set(known, {"rows": 5}).fresh
    assert not get_set(known, {"rows": 5}).fresh
    data = load_data(DataConfig(name="greys", options={"rows": 5}))
    assert len(data.split("train")) == 5
    assert data.card["options"] == {"rows": 5, "bright": True, "kind": "a", "seed": 0}
    assert data.card["packages"] == {"npm x 1": "CC0, somebody"}
    with pytest.raises(DataError, match="not built"):
        load_data(DataConfig(name="greys"))


def test_other_options_are_other_folders_and_defaults_are_none() -> None:
    known = _known()
    folders = {known.folder(o) for o in ({}, {"rows": 5}, {"rows": 6}, {"bright": False}, {"rows": 5, "seed": 1})}
    assert len(folders) == 5
    assert known.folder({}) == known.folder({"rows": 4, "bright": True, "seed": 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": 5}, "Did you mean 'rows'"),
        ({"rows": 0}, "expected 1 to 9; got 0"),
        ({"rows": 10}, "expected 1 to 9; got 10"),
        ({"rows": "5"}, "expected 1 to 9; got '5'"),
        ({"rows": True}, "expected 1 to 9; got True"),
        ({"bright": 1}, "expected true or false; got 1"),
        ({"kind": "c"}, "Unknown choice 'c'; known: a, b"),
        ({"seed": -1}, "got -1"),
    ],
)
def test_bad_options_are_named_before_anything_is_written(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_set(_known(), options)
    assert not _known().folder({}).parent.exists()


def test_another_checksum_than_the_pinned_one_is_told_with_both() -> None:
    first = get_set(_known())
    assert first.as_pinned is None
    notes = Notes()
    assert get_set(_known(checksum="0" * 64), display=notes).as_pinned is False
    assert first.checksum in notes.lines[0]
    assert "0" * 64 in notes.lines[0]
    notes = Notes()
    assert get_set(_known(checksum=first.checksum), display=notes).as_pinned is True
    assert notes.lines == []
    assert get_set(_known(checksum="0" * 64), {"rows": 5}).as_pinned is None


def test_trained_verifiers_stay_when_a_set_is_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known = _known()
    folder = get_set(known).folder
    (folder / VERIFIERS).mkdir()
    (folder / VERIFIERS / "verifiers.json").write_text("{}")
    assert get_set(known, again=True).fresh
    assert (folder / VERIFIERS / "verifiers.json").exists()

    def breaks(workshop: Workshop, **options: object) -> None:
        raise DataError("no network")

    with pytest.raises(DataError, match="no network"):
        get_set(_known(breaks), again=True)
    assert (folder / VERIFIERS / "verifiers.json").exists()
    assert _left(known) == [folder.name]

    def otherwise(workshop: Workshop, **options: object) -> None:
        _draw(workshop, rows=4, bright=False, kind="a", seed=1)

    notes = Notes()
    get_set(_known(otherwise), again=True, display=notes)
    assert not (folder / VERIFIERS).exists()
    assert "of other rows" in notes.lines[0]
    assert _left(known) == [folder.name]


def test_a_build_that_fails_leaves_nothing() -> None:
    def full(workshop: Workshop, **options: object) -> None:
        with workshop.store([Source("grey", (1, 8, 8))], {"train": 3}):
            raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left on device"):
        get_set(_known(full))
    assert _left(_known()) == []
    good = get_set(_known()).checksum
    with pytest.raises(DataError, match="No space left"):
        get_set(_known(full), again=True)
    assert get_set(_known()).checksum == good


def test_a_disk_without_room_is_named_before_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(DataError, match=r"needs 20 MB.*1 MB free.*MSVAE_CACHE"):
        get_set(_known())
    assert _left(_known()) == []


def test_what_a_killed_build_left_is_removed_and_a_damaged_set_built_anew() -> None:
    known = _known()
    rubbish = known.folder({}).parent / ".default.abc123.part"
    rubbish.mkdir(parents=True)
    (rubbish / "big.npy").write_bytes(b"x" * 100)
    get_set(known)
    assert _left(known) == ["default"]
    (known.folder({}) / "train" / "grey.npy").write_bytes(b"")
    assert get_set(known).fresh
    assert len(open_store(known.folder({})).split("train")) == 4


def test_two_who_build_at_the_same_time_build_once() -> None:
    calls = []

    def slow(workshop: Workshop, **options: object) -> None:
        calls.append(1)
        time.sleep(0.3)
        _draw(workshop, **options)  # pyright: ignore[reportArgumentType]

    known, built = _known(slow), []
    threads = [threading.Thread(target=lambda: built.append(get_set(known))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert sorted(found.fresh for found in built) == [False, False, True]
    assert len({found.checksum for found in built}) == 1


def test_an_embedded_set_has_nothing_to_get() -> None:
    with pytest.raises(DataError, match="part of msvae"):
        get_set(known_set("colours"))


def test_a_missing_reader_names_the_extra() -> None:
    with pytest.raises(DataError, match=r'no_such_reader.*pip install "msvae\[data\]"'):
        extra("no_such_reader")


def test_every_known_set_says_what_it_is_and_pins_what_it_is_made_from() -> None:
    for name, known in SETS.items():
        assert known.name == name
        assert known.what
        assert known.licence
        assert known.split_rule
        for option, spec in known.options.items():
            spec.check(option, spec.default)
        assert known.embedded or len(known.checksum) == 64
        for package in known.packages:
            assert len(package.sha256) == 64, package
            assert package.members
            assert package.licence


@pytest.mark.parametrize("name", [name for name, known in SETS.items() if not known.embedded])
def test_a_set_that_is_really_built_is_the_pinned_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs where somebody has built it: in the cache that MSVAE_TESTED_CACHE names."""
    tested = os.environ.get("MSVAE_TESTED_CACHE")
    if not tested:
        pytest.skip("MSVAE_TESTED_CACHE names no cache with built sets")
    monkeypatch.setenv("MSVAE_CACHE", tested)
    if not known_set(name).folder({}).exists():
        pytest.skip(f"{name} is not built in {tested}")
    assert get_set(known_set(name)).as_pinned


def test_the_command_tells_of_a_set_that_is_not_built(msvae: Command) -> None:
    told = json.loads(msvae("data", "info", "polymnist", "--json").stdout)
    assert not told["built"]
    assert told["options"]["train"] == 20_000
    assert told["option ranges"]["train"] == "training rows: 1 to 60000"
