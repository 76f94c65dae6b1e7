"""A folder per source, or a file of arrays per source or for all."""

import os
from pathlib import Path, PurePosixPath

from msvae.data.formats import array_format, arrays_in, image_format, read_column, split_name
from msvae.data.own.layout import (
    LABELS_FILE,
    Holding,
    Layout,
    Origin,
    Problem,
    is_outside,
    numbered_row,
    row_name,
    source_name,
)
from msvae.data.own.settings import SETTINGS_FILE
from msvae.errors import DataError

SPECIAL_ARRAYS = ("labels", "split", "rows")
SPREAD_FILE = "spread.npz"  # that `msvae impute` writes beside its images: no images
PRESENT = ".present"


def folder_origins(root: Path) -> dict[str, Origin]:
    """A source per folder that holds an image file, and per file of arrays."""
    origins: dict[str, Origin] = {}
    for entry in sorted(root.iterdir()):
        if entry.name.startswith(".") or array_format(entry.name):
            continue
        if (
            entry.is_dir()
            and os.access(entry, os.R_OK | os.X_OK)
            and any(image_format(file.name) for file in entry.iterdir())
        ):
            name = source_name(entry.name)
            if name in origins:
                raise DataError(f"{root}: the folders {origins[name].path!r} and {entry.name!r} make the same source.")
            origins[name] = Origin(entry.name)
    files = sorted(
        file
        for file in root.iterdir()
        if array_format(file.name) and not file.name.startswith(".") and file.name != SPREAD_FILE
    )
    return {**origins, **array_origins(root, files)}


def array_origins(root: Path, files: list[Path]) -> dict[str, Origin]:
    """A source per array of images: called after it, or after its file where that holds no other."""
    origins: dict[str, Origin] = {}
    for file in files:
        known = array_format(file.name)
        assert known is not None
        try:
            found = arrays_in(file, known)
        except DataError as error:
            raise DataError(f"{file} cannot be read: {error}.") from None
        images = [
            n for n, (shape, kind) in found.items() if len(shape) >= 2 and kind != "text" and n not in SPECIAL_ARRAYS
        ]
        for array in images:
            alone = len(images) == 1
            name = source_name(split_name(file.name)[0] if (alone and len(files) > 1) or not array else array)
            if name in origins:
                raise DataError(f"{root}: {origins[name].path!r} and {file.name!r} both hold a source {name!r}.")
            origins[name] = Origin(file.name, array or None)
    return origins


def folder_layout(root: Path, origins: dict[str, Origin], allow_outside: bool) -> Layout:
    """The files of sources that are folders or files of arrays."""
    layout = Layout(root, "folders", origins)
    for name, origin in origins.items():
        place = root / origin.path
        if not place.exists():
            raise DataError(f"Source {name!r}: there is no {place}.")
        if not allow_outside and is_outside(place, root):
            raise DataError(f"Source {name!r}: {place} leads out of {root}; set allow_outside: true to follow it.")
        if array_format(place.name):
            layout.kind = "arrays"
            layout.holdings.append(_array_holding(name, origin, place, layout))
        elif place.is_dir():
            _list_folder(layout, name, place, allow_outside)
        else:
            raise DataError(f"Source {name!r}: {place} is neither a folder nor a file of arrays.")
    used = {part for origin in origins.values() for part in PurePosixPath(origin.path).parts[:1]}
    known = {*used, SETTINGS_FILE, LABELS_FILE}
    layout.ignored += sorted(e.name for e in root.iterdir() if e.name not in known and not e.name.startswith("."))
    return layout


def _list_folder(layout: Layout, name: str, place: Path, allow_outside: bool) -> None:
    stems: dict[str, Path] = {}
    for file in sorted(place.iterdir()):
        if file.name.startswith("."):
            continue
        where = (file.relative_to(layout.root) if file.is_relative_to(layout.root) else file).as_posix()
        if image_format(file.name) is None or (file.is_dir() and not file.is_symlink()):
            layout.ignored.append(where)
            continue
        stem = row_name(split_name(file.name)[0])
        if file.is_symlink() and not allow_outside and is_outside(file, layout.root):
            reason = "a link out of the data folder; set allow_outside: true to follow it"
            layout.problems.append(Problem(name, where, reason))
        elif stem in stems:
            reason = f"the row {stem!r} has {stems[stem].name} too; keep one of them"
            layout.problems.append(Problem(name, where, reason))
        else:
            stems[stem] = file
            layout.holdings.append(Holding(name, stem, file))


def _array_holding(name: str, origin: Origin, file: Path, layout: Layout) -> Holding:
    """An array of images, with the names and the presence of its rows where its file has them."""
    known = array_format(file.name)
    assert known is not None
    try:
        found = arrays_in(file, known)
        told = [
            n for n, (shape, _) in found.items() if len(shape) == 1 and (n in SPECIAL_ARRAYS or n.endswith("present"))
        ]
        columns = {n: read_column(file, known, n) for n in told}
    except DataError as error:
        raise DataError(f"Source {name!r}: {file} cannot be read: {error}.") from None
    names = tuple(row_name(str(row)) for row in columns["rows"]) if "rows" in columns else None
    flags = columns.get(f"{origin.array}{PRESENT}", columns.get("present"))
    length = found[origin.array or ""][0][0] if (origin.array or "") in found else 0
    for what, values in (("rows", names), ("presence", flags)):
        if values is not None and len(values) != length:
            raise DataError(f"Source {name!r}: {file} has {length} images, and {len(values)} {what}.")
    for column in ("labels", "split"):
        for number, value in enumerate(columns.get(column, ())):
            row = names[number] if names else numbered_row(number)
            layout.table.setdefault(row, {})["label" if column == "labels" else column] = str(value)
    present = None if flags is None else tuple(bool(flag) for flag in flags)
    return Holding(name, "", file, None, names, present)
