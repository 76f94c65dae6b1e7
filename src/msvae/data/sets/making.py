"""`msvae data get`: build a known set once, whole or not at all, and compare it with its pinned checksum."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msvae.data.cache import locked
from msvae.data.sets.known import KnownSet, Workshop
from msvae.data.store import VERIFIERS, open_store, store_checksum
from msvae.errors import DataError
from msvae.training.progress import Display, Quiet


@dataclass(frozen=True)
class Built:
    """A set in the cache.

    Args:
        folder: where it is.
        fresh: whether it was built now; otherwise it stood there and nothing was done.
        checksum: of its arrays.
        expected: the pinned checksum, None for options without one.
        seconds: of building.
        megabytes: on disk.
    """

    folder: Path
    fresh: bool
    checksum: str
    expected: str | None
    seconds: float
    megabytes: float

    @property
    def as_pinned(self) -> bool | None:
        return None if self.expected is None else self.checksum == self.expected


def get_set(
    known: KnownSet,
    options: Mapping[str, Any] | None = None,
    *,
    from_folder: Path | None = None,
    again: bool = False,
    display: Display | None = None,
) -> Built:
    """Build a set into the cache, or find it there.

    Two processes may call this at the same time: one builds, the other waits and finds it built. What a killed
    process left behind is removed by the next one.

    Args:
        options: of the set; the defaults where not given.
        from_folder: of archives that were downloaded before; then nothing is downloaded.
        again: build it anew even if it is there.

    Raises:
        ConfigError: for a wrong option.
        DataError: for an embedded set, for packages that cannot be had, or a disk that cannot be written.
    """
    if known.embedded:
        raise DataError(f"Data set {known.name!r} is part of msvae; there is nothing to get.")
    began = time.perf_counter()
    chosen = known.complete(options or {})
    folder = known.folder(chosen)
    display = display or Quiet()
    with locked(folder):
        for left in folder.parent.glob(f".{folder.name}.*.part*"):
            shutil.rmtree(left, ignore_errors=True)
        fresh = again or not _is_whole(folder)
        if fresh:
            with _verifiers_kept(folder, display):
                known.build(Workshop(known, chosen, folder, display, from_folder), **chosen)
        checksum = store_checksum(folder)
    expected = (known.checksum or None) if chosen == known.defaults else None
    built = Built(folder, fresh, checksum, expected, time.perf_counter() - began, _megabytes(folder))
    if built.as_pinned is False:
        display.note(
            f"Warning: {known.name} differs from the set of this recipe: its checksum is {checksum}, expected "
            f"{expected}. Other versions of the image libraries may cause this; do not compare figures across the two."
        )
    return built


@contextmanager
def _verifiers_kept(folder: Path, display: Display) -> Iterator[None]:
    """Trained verifiers come back to a set that is built anew, if its rows are those that they know: training them took
    longer than the building."""
    kept = folder / VERIFIERS
    if not kept.is_dir():
        yield
        return
    before, aside = store_checksum(folder), folder.with_name(f".{folder.name}.{VERIFIERS}")
    shutil.rmtree(aside, ignore_errors=True)
    kept.replace(aside)
    try:
        yield
    finally:
        if store_checksum(folder) == before:
            aside.replace(kept)
        else:
            shutil.rmtree(aside, ignore_errors=True)
            display.note(
                "Its verifiers are gone, since they were of other rows: make them again (msvae data verifier)."
            )


def _is_whole(folder: Path) -> bool:
    try:
        open_store(folder)
    except DataError:
        return False
    return True


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
