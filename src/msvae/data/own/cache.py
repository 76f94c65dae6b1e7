"""Own data, decoded once: files become a store in the user's cache folder, shared by all processes.

The store's name holds a fingerprint of the files (paths, sizes, times of change) and of the settings, so that changed
files are decoded anew. The data set's card holds another fingerprint, of the decoded images themselves: copying or
touching the files does not change it.
"""

import glob
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from msvae.data.base import SPLITS, DataSet
from msvae.data.cache import cache_folder, locked
from msvae.data.formats import UnreadableError
from msvae.data.own.layout import Holding, Layout, Problem
from msvae.data.own.pixels import placement, stored, stored_dtype
from msvae.data.own.rows import Files, header_of, images_of, labels_of, needs_header, opened_files, rows_of, splits_of
from msvae.data.own.settings import OwnSettings
from msvae.data.own.survey import where_of
from msvae.data.store import new_store, open_store, write_row
from msvae.errors import DataError, SourceError
from msvae.files import remove_folder
from msvae.source import Source
from msvae.training.progress import Tell

DECODER_VERSION = 3  # changes whenever the same files would be decoded to other numbers
KEPT_STORES = 2
SHOWN_PROBLEMS = 8
SPARE_BYTES = 1 << 24
log = logging.getLogger("msvae.data")


def files_fingerprint(layout: Layout, settings: Mapping[str, Any]) -> str:
    """SHA-256 over names, sizes and times of change of all files, over what they are said to hold, labels and splits,
    and over the settings."""
    digest = hashlib.sha256(json.dumps([DECODER_VERSION, settings], sort_keys=True, default=str).encode())
    said = [[str(part) for part in (h.source, h.stem, h.file, h.member, h.names, h.present)] for h in layout.holdings]
    digest.update(json.dumps([said, layout.table]).encode())
    for file in dict.fromkeys(holding.file for holding in layout.holdings):
        for part in (file, *sorted(file.rglob("*"))) if file.is_dir() else (file,):
            if not part.exists():  # as a manifest may name; reading it says so
                continue
            status = part.stat()
            digest.update(f"{part}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    digest.update("\n".join(str(problem) for problem in layout.problems).encode())
    return digest.hexdigest()


def cached(layout: Layout, path: Path, key: str, settings_of: Callable[[], OwnSettings], tell: Tell) -> DataSet:
    """The decoded set, decoding it first if no process has.

    Args:
        key: of files and settings.
        settings_of: gives the settings; asked only when something has to be decoded.

    Raises:
        DataError: for files that cannot be used, naming them, or a full disk; then nothing is left behind.
    """
    place = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    prefix = f"{path.stem or 'data'}-{place}-"
    room = cache_folder() / "own"
    folder = room / f"{prefix}{key[:16]}"
    data = opened(folder)
    if data is None:
        with locked(room / f"{prefix}store"):
            for remains in room.glob(f".{glob.escape(prefix)}*.part"):  # of a process that was killed: the lock is ours
                shutil.rmtree(remains, ignore_errors=True)
            if opened(folder) is None:
                decode(folder, path.stem or "data", layout, settings_of(), tell)
            _forget_older(room, prefix, folder)
        data = open_store(folder)
    for note in data.card.get("notes", ()):
        log.warning("%s: %s", path, note)
    return data


def opened(folder: Path) -> DataSet | None:
    """The store in a folder, None where there is none, or one that lacks files."""
    try:
        return open_store(folder)
    except DataError:
        return None


def _forget_older(room: Path, prefix: str, current: Path) -> None:
    stores = sorted(room.glob(f"{glob.escape(prefix)}*"), key=lambda store: store.stat().st_mtime, reverse=True)
    for older in [store for store in stores if store != current][KEPT_STORES - 1 :]:
        remove_folder(older)


@dataclass(frozen=True)
class Trial:
    """What decoding would give.

    Args:
        have: the sources that each row has.
        split_of, rule: the split of each row, and why.
    """

    problems: list[Problem]
    have: dict[str, frozenset[str]]
    split_of: dict[str, str]
    rule: str
    class_names: tuple[str, ...]
    notes: list[str]


def trial(layout: Layout, settings: OwnSettings, tell: Tell) -> Trial:
    """Decode everything and keep nothing."""
    with opened_files() as files:
        listed, problems = _listed(files, layout, settings)
        sources = {name: _source(files, name, layout, settings) for name in layout.origins}
        stem_of = _stems(listed)
        have: dict[str, set[str]] = {}
        for holding, row, _ in _decoded(files, listed, layout, settings, sources, problems, tell, stem_of):
            have.setdefault(row, set()).add(holding.source)
    usable = sorted(have)
    split_of, rule = splits_of(usable, stem_of, layout, settings) if usable else ({}, "there is no row")
    _, class_names, _, notes = labels_of(usable, stem_of, layout, settings)
    return Trial(problems, {row: frozenset(have[row]) for row in usable}, split_of, rule, class_names, notes)


class _EmptyRows(Exception):
    """Rows that turned out to have no image that can be used."""

    def __init__(self, rows: Sequence[str], problems: Sequence[Problem]) -> None:
        self.rows, self.problems = frozenset(rows), list(problems)


def decode(folder: Path, name: str, layout: Layout, settings: OwnSettings, tell: Tell) -> None:
    """Write the store of a layout; rows of which no image can be used are left out.

    Raises:
        DataError: naming the files that cannot be used (unless they count as missing), or for a full disk.
    """
    lost: frozenset[str] = frozenset()
    known: list[Problem] = []
    while True:
        try:
            return _decode(folder, name, layout, settings, tell, lost, known)
        except _EmptyRows as empty:
            lost, known = lost | empty.rows, empty.problems


def _decode(
    folder: Path,
    name: str,
    layout: Layout,
    settings: OwnSettings,
    tell: Tell,
    lost: frozenset[str],
    known: Sequence[Problem],
) -> None:
    """Write the store; rows that are `lost` are left out, for the reasons that are `known`."""
    with opened_files() as files:
        listed, problems = _listed(files, layout, settings)
        sources = [_source(files, name, layout, settings) for name in layout.origins]
        stem_of = {row: stem for row, stem in _stems(listed).items() if row not in lost}
        usable = sorted(stem_of)
        if not usable:
            raise DataError(f"{layout.root}: no file can be used. {_worded(problems)}")
        split_of, rule = splits_of(usable, stem_of, layout, settings)
        rows = {
            split: [row for row in usable if split_of[row] == split] for split in SPLITS if split in split_of.values()
        }
        position = {row: (split, number) for split, members in rows.items() for number, row in enumerate(members)}
        labels, class_names, columns, notes = labels_of(usable, stem_of, layout, settings)
        _refuse_full_disk(folder, sources, len(usable))
        card: dict[str, Any] = {
            "what": f"own data in {layout.root}",
            "split_rule": rule,
            "path": str(layout.root),
            "notes": notes,
        }
        with new_store(
            folder,
            name,
            sources,
            {split: len(members) for split, members in rows.items()},
            dtypes={source.name: stored_dtype(source) for source in sources},
            labelled=labels is not None,
            shared_content=settings.shared_content,
            class_names=class_names,
            card=card,
        ) as splits:
            digest = hashlib.blake2b(digest_size=16)
            by_name = {source.name: source for source in sources}
            for holding, row, image in _decoded(files, listed, layout, settings, by_name, problems, tell, position):
                split, number = position[row]
                write_row(splits[split].values[holding.source], number, image)
                splits[split].present[holding.source][number] = True
                digest.update(f"{split}/{row}/{holding.source}".encode() + image.tobytes())
            problems = list(dict.fromkeys([*known, *problems]))
            if problems and not settings.skip_unreadable:
                raise DataError(_refusal(layout, problems))
            if problems:
                notes.append(f"{len(problems)} files count as missing. {_worded(problems)}")
            if lost:
                notes.append(f"{len(lost)} rows are left out, since none of their files can be used.")
            empty = [
                row
                for split, members in rows.items()
                for row, has_one in zip(members, np.any(list(splits[split].present.values()), axis=0), strict=True)
                if not has_one
            ]
            if empty:
                raise _EmptyRows(empty, problems)
            index = {row: number for number, row in enumerate(usable)}
            for split, members in rows.items():
                chosen = np.array([index[row] for row in members])
                if labels is not None:
                    target = splits[split].labels
                    assert target is not None
                    target[:] = labels[chosen]
                    digest.update(labels[chosen].tobytes())
                splits[split].columns["row"] = np.array(members)
                splits[split].columns.update({column: values[chosen] for column, values in columns.items()})
            card["fingerprint"] = digest.hexdigest()
            card["rows_with"] = {
                source.name: int(sum(int(part.present[source.name].sum()) for part in splits.values()))
                for source in sources
            }


def _stems(listed: Sequence[tuple[Holding, list[str]]]) -> dict[str, str]:
    """The file that each row is of: rows of one volume belong together, also where another source has single images."""
    stems: dict[str, str] = {}
    for holding, rows in listed:
        for row in rows:
            if row and stems.get(row, row) == row:
                stems[row] = holding.stem or row
    return stems


def _listed(
    files: Files, layout: Layout, settings: OwnSettings
) -> tuple[list[tuple[Holding, list[str]]], list[Problem]]:
    """Every file with the rows that its images belong to; a row that has a source twice is a problem."""
    listed, problems = [], list(layout.problems)
    taken: dict[tuple[str, str], Holding] = {}
    for holding in layout.holdings:
        described = settings.sources[holding.source]
        try:
            header = header_of(files, holding, described) if needs_header(holding, described) else None
            rows = rows_of(holding, described, header)
        except UnreadableError as error:
            problems.append(Problem(holding.source, where_of(layout, holding), str(error)))
            continue
        times = Counter(row for row in rows if row)
        twice = next((row for row in times if times[row] > 1 or (holding.source, row) in taken), None)
        if twice is not None:
            other = taken.get((holding.source, twice))
            there = "in it twice" if other is None else f"in {where_of(layout, other)} too"
            reason = f"the row {twice!r} is {there}"
            problems.append(Problem(holding.source, where_of(layout, holding), reason))
            continue
        taken.update(dict.fromkeys(((holding.source, row) for row in rows if row), holding))
        listed.append((holding, rows))
    return listed, problems


def _decoded(
    files: Files,
    listed: Sequence[tuple[Holding, list[str]]],
    layout: Layout,
    settings: OwnSettings,
    sources: Mapping[str, Source],
    problems: list[Problem],
    tell: Tell,
    wanted: Mapping[str, Any],
) -> Iterator[tuple[Holding, str, np.ndarray]]:
    """Every image as it is stored; what cannot be used is added to the problems."""
    done, total = 0, sum(len(rows) for _, rows in listed)
    for holding, rows in listed:
        described, source = settings.sources[holding.source], sources[holding.source]
        where = where_of(layout, holding)
        try:
            for row, image in zip_longest(rows, images_of(files, holding, described)):
                tell("decoding the files once", done, total)
                done += 1
                if row is None or image is None:
                    raise UnreadableError("it does not hold as many images as its header says")
                if row not in wanted:
                    continue
                try:
                    usable = stored(image, source)
                except UnreadableError as error:
                    about = "" if len(rows) == 1 else f"row {row!r}: "
                    problems.append(Problem(holding.source, where, f"{about}{error}"))
                else:
                    yield holding, row, usable
        except UnreadableError as error:
            problems.append(Problem(holding.source, where, str(error)))
    tell("decoding the files once", total, total)


def _source(files: Files, name: str, layout: Layout, settings: OwnSettings) -> Source:
    """The source, with the affine of its images after cutting and scaling."""
    described = settings.sources[name]
    try:
        source = described.source(name)
        if described.affine is None or described.tile is not None:
            return source
        for holding in (holding for holding in layout.holdings if holding.source == name):
            try:
                size = header_of(files, holding, described).shape[1:]
                return described.source(name, fitted_affine(described.affine, size, source))
            except UnreadableError:  # it is named where the files are listed
                continue
        return source
    except SourceError as error:
        raise DataError(f"Source {name!r} of {layout.root}: {error}") from None


def fitted_affine(affine: Sequence[float], size: tuple[int, ...], source: Source) -> tuple[float, ...]:
    """The affine of images that were scaled, cut or padded: voxel i' of the result lies at i = i' scale + shift."""
    assert source.files is not None
    wanted = (source.shape[1], source.shape[2])
    (top, _, left, _), scaled = placement(size, wanted, source.files.fit)
    change = np.eye(4)
    axes = [axis for axis in range(3) if axis != source.files.axis]
    for axis, before, after, border in zip(axes, size, scaled, (top, left), strict=True):
        change[axis, axis] = before / after
        change[axis, 3] = (0.5 - border) * before / after - 0.5
    return tuple(float(number) for number in (np.array(affine).reshape(4, 4) @ change).flatten())


def _refuse_full_disk(folder: Path, sources: Sequence[Source], rows: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = rows * sum(source.value_count * np.dtype(stored_dtype(source)).itemsize for source in sources)
    free = shutil.disk_usage(folder.parent).free
    if needed + SPARE_BYTES > free:
        raise DataError(
            f"The decoded images need up to {needed / 1e9:.2f} GB in {folder.parent}; {free / 1e9:.2f} GB are free. "
            "Set MSVAE_CACHE to a folder with more room."
        )


def _refusal(layout: Layout, problems: Sequence[Problem]) -> str:
    return (
        f"{layout.root}: {len(problems)} files cannot be used. {_worded(problems)} Mend or remove them "
        f"(msvae data check {layout.root} lists all), or set skip_unreadable: true in sources.yaml "
        "(--set data.options.skip_unreadable=true) to count them as missing."
    )


def _worded(problems: Sequence[Problem]) -> str:
    more = f" And {len(problems) - SHOWN_PROBLEMS} more." if len(problems) > SHOWN_PROBLEMS else ""
    return " ".join(str(problem) for problem in problems[:SHOWN_PROBLEMS]) + more
