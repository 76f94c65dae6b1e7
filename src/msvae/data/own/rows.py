"""From files to rows: which rows a file holds, their images, and which split each row belongs to."""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np

from msvae.data.base import SPLITS
from msvae.data.formats import (
    File,
    Format,
    Header,
    UnreadableError,
    array_format,
    image_format,
    read_header,
    read_images,
)
from msvae.data.own.layout import Holding, Layout, numbered_row
from msvae.data.own.pixels import tiles
from msvae.data.own.settings import OwnSettings, SourceSettings
from msvae.errors import DataError, unknown

LARGEST_MEMBER = 1 << 30
ALIASES = {"val": "validation", "valid": "validation", "dev": "validation", "training": "train", "testing": "test"}


class Files:
    """Opens what holdings name; the archive that was read last stays open, since its members are read in order."""

    def __init__(self) -> None:
        self._archive: tuple[Path, tarfile.TarFile] | None = None

    def open(self, holding: Holding) -> tuple[File, Format]:
        """The file (or the bytes of a member) and its format.

        Raises:
            UnreadableError: if there is none.
        """
        known = (
            array_format(holding.file.name) if not holding.stem else image_format(holding.member or holding.file.name)
        )
        assert known is not None  # layouts list nothing else
        if holding.member is None:
            return holding.file, known
        if self._archive is None or self._archive[0] != holding.file:
            self.close()
            self._archive = (holding.file, tarfile.open(holding.file))  # noqa: SIM115
        try:
            member = self._archive[1].getmember(holding.member)
            if member.size > LARGEST_MEMBER:
                raise UnreadableError(f"a member of {member.size:,} bytes; at most {LARGEST_MEMBER:,} are read")
            stream = self._archive[1].extractfile(member)
            return BytesIO(stream.read() if stream else b""), known
        except (tarfile.TarError, OSError, EOFError, KeyError) as error:
            raise UnreadableError(f"it cannot be taken out of the archive ({error})") from None

    def close(self) -> None:
        if self._archive is not None:
            self._archive[1].close()
            self._archive = None


@contextmanager
def opened_files() -> Iterator[Files]:
    files = Files()
    try:
        yield files
    finally:
        files.close()


def needs_header(holding: Holding, settings: SourceSettings) -> bool:
    """Whether only the file itself says how many rows it holds."""
    if not holding.stem or settings.tile:
        return True
    known = image_format(holding.member or holding.file.name)
    return known is not None and known.name in ("TIFF", "NIfTI")


def rows_of(holding: Holding, settings: SourceSettings, header: Header | None) -> list[str]:
    """The rows that the images of a file belong to, in order; an empty name for an image that is marked absent."""
    if header is None:
        return [holding.stem]
    count = header.count
    if not holding.stem:
        names = list(holding.names or (numbered_row(number) for number in range(count or 0)))
        if holding.present is not None:
            names = [name if there else "" for name, there in zip(names, holding.present, strict=True)]
    elif count is None:
        names = [holding.stem]
    else:
        names = [f"{holding.stem}_{number:05d}" for number in range(count)]
    if settings.tile is None:
        return names
    if len(header.shape) != 3:
        raise UnreadableError("vectors cannot be cut into tiles")
    down, across = header.shape[1] // settings.tile, header.shape[2] // settings.tile
    if not down * across:
        raise UnreadableError(f"its size is {header.shape[2]}x{header.shape[1]}, less than a tile of {settings.tile}")
    grid = [f"{row:03d}x{column:03d}" for row in range(down) for column in range(across)]
    return [f"{name}_{place}" if name else "" for name in names for place in grid]


def images_of(files: Files, holding: Holding, settings: SourceSettings) -> Iterator[np.ndarray]:
    """The images of a file, in the order of `rows_of`.

    Raises:
        UnreadableError: if it is damaged or refused.
    """
    file, known = files.open(holding)
    for image in read_images(file, known, settings.reading()):
        if settings.tile is None:
            yield image
        else:
            yield from tiles(image, settings.tile)


def header_of(files: Files, holding: Holding, settings: SourceSettings) -> Header:
    """The header of a file.

    Raises:
        UnreadableError: if it is damaged or refused.
    """
    file, known = files.open(holding)
    header = read_header(file, known, settings.reading())
    if not holding.stem and holding.names is not None and len(holding.names) != header.count:
        raise UnreadableError(f"it has {header.count} images and {len(holding.names)} names of rows")
    return header


def splits_of(
    rows: Sequence[str], stem_of: Mapping[str, str], layout: Layout, settings: OwnSettings
) -> tuple[dict[str, str], str]:
    """The split of every row, and the rule in words.

    A column `split` of the labels decides. Without it the stems (files, volumes, large images) are put into a seeded
    random order and cut by the shares, so that all rows of one file are in one split. Fewer than three stems are cut
    into blocks of successive rows instead.

    Raises:
        DataError: for a split that is none, a row without one, or too few rows.
    """
    said = {row: _entry(layout, row, stem_of[row]).get("split", "") for row in rows}
    if any(said.values()):
        return _said_splits(said), "as the column 'split' says"
    stems = sorted({stem_of[row] for row in rows})
    shares = ", ".join(f"{split} {share:.0%}" for split, share in settings.split.items())
    if len(rows) < len(settings.split):
        raise DataError(
            f"{layout.root} has {len(rows)} rows; the splits {shares} need more. "
            "(tile: SIDE in sources.yaml cuts large images into rows.)"
        )
    if len(stems) >= len(settings.split):
        order = sorted(stems, key=lambda stem: hashlib.blake2b(f"{settings.split_seed}/{stem}".encode()).digest())
        of_stem = _cut(order, settings.split)
        what = "rows" if len(stems) == len(rows) else "files, with all their rows,"
        rule = f"{shares} of the {what} in a random order of seed {settings.split_seed}"
        return {row: of_stem[stem_of[row]] for row in rows}, rule
    rule = f"{shares} in blocks of successive rows, since there are only {len(stems)} files: blocks may be alike"
    return _cut(list(rows), settings.split), rule


def _entry(layout: Layout, row: str, stem: str) -> dict[str, str]:
    return next((layout.table[name] for name in _called(row, stem) if layout.table.get(name)), {})


def _called(row: str, stem: str) -> list[str]:
    """What the labels may call a row: by its name, its file's, or its number in an array without names."""
    return [row, stem, *([str(int(row))] if row.isdecimal() and row == numbered_row(int(row)) else [])]


def _said_splits(said: Mapping[str, str]) -> dict[str, str]:
    result = {}
    for row, word in said.items():
        split = ALIASES.get(word.lower(), word.lower())
        if split not in SPLITS:
            what = f"has the split {word!r}" if word else "has no split in the labels, where others have"
            raise DataError(f"Row {row!r} {what}; expected one of {', '.join(SPLITS)}.")
        result[row] = split
    if "train" not in result.values():
        raise DataError("No row has the split 'train'.")
    return result


def _cut(order: Sequence[str], shares: Mapping[str, float]) -> dict[str, str]:
    """The order cut by shares, at least one for each; the training rows get what rounding leaves."""
    counts = {split: max(1, round(share * len(order))) for split, share in shares.items() if split != "train"}
    while sum(counts.values()) >= len(order):
        counts[max(counts, key=lambda split: counts[split])] -= 1
    counts["train"] = len(order) - sum(counts.values())
    result, start = {}, 0
    for split in [split for split in SPLITS if split in counts]:
        result.update(dict.fromkeys(order[start : start + counts[split]], split))
        start += counts[split]
    return result


def labels_of(
    rows: Sequence[str], stem_of: Mapping[str, str], layout: Layout, settings: OwnSettings
) -> tuple[np.ndarray | None, tuple[str, ...], dict[str, np.ndarray], list[str]]:
    """Class numbers, class names, further columns, and what a person should know.

    Classes are numbered as `class_names` says, else in the order of their names; whole numbers stay. Without a class
    for every row there are no class numbers, and the column is kept as text.
    """
    entries = [_entry(layout, row, stem_of[row]) for row in rows]
    names = list(dict.fromkeys(column for entry in entries for column in entry if column != "split"))
    columns = {column: np.array([entry.get(column, "") for entry in entries]) for column in names}
    notes = []
    known = {name for row in rows for name in _called(row, stem_of[row])}
    lost = [row for row in layout.table if row not in known]
    if lost:
        notes.append(f"{len(lost)} rows of the labels have no image: {', '.join(lost[:5])}{', ..' * (len(lost) > 5)}")
    if settings.label is not None and settings.label not in columns:
        raise DataError(
            f"There is no label column {settings.label!r}; the columns are: {', '.join(columns) or 'none'}."
        )
    label = settings.label or ("label" if "label" in columns else None)
    if label is None:
        return None, (), columns, notes
    unlabelled = [row for row, value in zip(rows, columns[label], strict=True) if not value]
    if unlabelled:
        notes.append(f"{len(unlabelled)} rows have no {label!r}, so there are no classes: {', '.join(unlabelled[:5])}")
        return None, (), columns, notes
    values = sorted(set(columns[label].tolist()))
    if settings.class_names is not None:
        for value in values:
            if value not in settings.class_names:
                raise DataError(f"Column {label!r}: {unknown('class', value, settings.class_names)}")
        values = list(settings.class_names)
    elif all(_is_number(value) for value in values) and max(map(int, values)) < 10 * len(values):
        values = [str(number) for number in range(max(map(int, values)) + 1)]
    of_value = {value: number for number, value in enumerate(values)}
    return (
        np.array([of_value[value] for value in columns[label].tolist()], dtype=np.int64),
        tuple(values),
        _without(columns, label),
        notes,
    )


def _is_number(value: str) -> bool:
    """Whether a class is a plain whole number; `007` is a name."""
    return value.isdecimal() and value.isascii() and str(int(value)) == value


def _without(columns: Mapping[str, np.ndarray], label: str) -> dict[str, np.ndarray]:
    return {name: column for name, column in columns.items() if name != label}
