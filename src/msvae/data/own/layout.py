"""Where a person's own data lie: which files hold which source of which row, in any of the accepted layouts.

DIR/SOURCE/ROW.png          a folder per source; the file's stem is the row, a stem that is absent a missing source
DIR/SOURCE.npz (.npy .h5 .zarr)     a file of arrays per source, or one for all; row i is the i-th image
DIR/*.tar                   shards: members ROW.SOURCE.png, and ROW.cls for a class
DIR/manifest.csv            a table of paths: row, [split], one column per source
"""

import csv
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from msvae.data.formats import array_format, arrays_in, image_format, read_column, split_name
from msvae.data.own.settings import SETTINGS_FILE, OwnSettings
from msvae.errors import DataError

LABELS_FILE, MANIFEST_FILE = "labels.csv", "manifest.csv"
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
CLASS_SUFFIX = ".cls"
SPECIAL_ARRAYS = ("labels", "split", "rows")
PRESENT = ".present"


@dataclass(frozen=True)
class Problem:
    """One file that cannot be used, and why."""

    source: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"Source {self.source!r}: {self.where}: {self.reason}."


@dataclass(frozen=True)
class Origin:
    """Where a source lies: a folder, a file of arrays (and the array in it), a column, or a kind of shard members."""

    path: str
    array: str | None = None


@dataclass(frozen=True)
class Holding:
    """One file (or archive member, or array) that holds one image of a source or several.

    Args:
        stem: the row, or what the rows of its images begin with; empty for arrays, whose rows are numbered.
        file: where it is; `member` of it for an archive.
        names: the rows of an array's images, where the file says them.
        present: which of an array's images are there, where the file says it.
    """

    source: str
    stem: str
    file: Path
    member: str | None = None
    names: tuple[str, ...] | None = None
    present: tuple[bool, ...] | None = None


@dataclass
class Layout:
    """What was found.

    Args:
        table: further columns of rows (or of stems): labels and splits.
        problems: what was refused while looking.
        ignored: files that belong to no source.
    """

    root: Path
    kind: str
    origins: dict[str, Origin]
    holdings: list[Holding] = field(default_factory=list)
    table: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def find_layout(path: Path, settings: OwnSettings | None, allow_outside: bool = False) -> Layout:
    """The sources of a folder (or of one file of arrays, shard or manifest) and all their files.

    Raises:
        DataError: if there is no source in it.
    """
    allow_outside = allow_outside or bool(settings and settings.allow_outside)
    given = {n: Origin(s.path, s.array) for n, s in settings.sources.items()} if settings else None
    if not path.exists():
        raise DataError(f"There is no file or folder {path}.")
    if path.is_file() and path.suffix.lower() == ".csv":
        layout = _manifest(path, given, allow_outside)
    elif path.is_file() and is_shard(path.name):
        layout = _shards(path.parent, [path], given)
    elif array_format(path.name) is not None and (path.is_file() or path.suffix.lower() == ".zarr"):
        layout = _folder(path.parent, given or _array_origins(path.parent, [path]), allow_outside)
    elif not path.is_dir():
        raise DataError(f"{path}: expected a folder, a file of arrays, a .tar shard or a .csv manifest.")
    elif (path / MANIFEST_FILE).is_file():
        layout = _manifest(path / MANIFEST_FILE, given, allow_outside)
    elif shards := sorted(file for file in path.iterdir() if is_shard(file.name)):
        layout = _shards(path, shards, given)
    else:
        layout = _folder(path, given or _folder_origins(path), allow_outside)
    labels = layout.root / LABELS_FILE
    if labels.is_file():
        for row, entry in read_table(labels).items():
            layout.table.setdefault(row, {}).update(entry)
    if not layout.origins or not (layout.holdings or layout.problems):
        raise DataError(
            f"{path} holds no images: expected a folder of image files per source, files of arrays, .tar shards, "
            f"or a {MANIFEST_FILE}. See docs/data.md."
        )
    layout.holdings.sort(key=lambda h: (str(h.file), h.source) if h.member is None else (str(h.file), ""))
    return layout


def row_name(text: str) -> str:
    """A row's name in one spelling: systems write accents in two ways."""
    return unicodedata.normalize("NFC", text)


def source_name(text: str) -> str:
    """A source's name from a folder's: other signs than letters, digits, `-` and `_` become `_`."""
    return "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in row_name(text))


def is_shard(name: str) -> bool:
    return name.lower().endswith(SHARD_SUFFIXES)


def is_outside(file: Path, root: Path) -> bool:
    """Whether a file, its links followed, lies out of the data folder."""
    return not file.resolve().is_relative_to(root.resolve())


def read_table(path: Path, key: str = "row") -> dict[str, dict[str, str]]:
    """A CSV file by its column `row`.

    Raises:
        DataError: if it cannot be read, has no such column, or a row twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            if lines.fieldnames is None or key not in lines.fieldnames:
                raise DataError(
                    f"{path}: expected a column {key!r}, got {', '.join(lines.fieldnames or ()) or 'none'}."
                )
            table: dict[str, dict[str, str]] = {}
            for number, line in enumerate(lines, start=2):
                if None in line or None in line.values():
                    raise DataError(f"{path}, line {number}: it has not as many fields as the first line.")
                row = row_name(line.pop(key).strip())
                if not row or row in table:
                    raise DataError(f"{path}, line {number}: the row {row!r} is empty or there twice.")
                table[row] = {column: value.strip() for column, value in line.items()}
            return table
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}).") from None


def _folder_origins(root: Path) -> dict[str, Origin]:
    """A source per folder that holds an image file, and per file of arrays."""
    origins: dict[str, Origin] = {}
    for entry in sorted(root.iterdir()):
        if entry.name.startswith(".") or array_format(entry.name):
            continue
        if entry.is_dir() and any(image_format(file.name) for file in entry.iterdir()):
            name = source_name(entry.name)
            if name in origins:
                raise DataError(f"{root}: the folders {origins[name].path!r} and {entry.name!r} make the same source.")
            origins[name] = Origin(entry.name)
    files = sorted(file for file in root.iterdir() if array_format(file.name) and not file.name.startswith("."))
    return {**origins, **_array_origins(root, files)}


def _array_origins(root: Path, files: list[Path]) -> dict[str, Origin]:
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


def _folder(root: Path, origins: dict[str, Origin], allow_outside: bool) -> Layout:
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
    used = {PurePosixPath(origin.path).parts[0] for origin in origins.values()}
    known = {*used, SETTINGS_FILE, LABELS_FILE}
    layout.ignored += sorted(e.name for e in root.iterdir() if e.name not in known and not e.name.startswith("."))
    return layout


def _list_folder(layout: Layout, name: str, place: Path, allow_outside: bool) -> None:
    stems: dict[str, Path] = {}
    for file in sorted(place.iterdir()):
        if file.name.startswith("."):
            continue
        where = file.relative_to(layout.root).as_posix()
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
        columns = {n: read_column(file, known, n) for n, (shape, _) in found.items() if len(shape) == 1 and n}
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


def numbered_row(number: int) -> str:
    """The name of a row that has none."""
    return f"{number:07d}"


def _manifest(path: Path, given: dict[str, Origin] | None, allow_outside: bool) -> Layout:
    table = read_table(path)
    root = path.parent
    first: dict[str, str] = {}
    for entry in table.values():
        first.update({column: value for column, value in entry.items() if value and column not in first})
    origins = given or {source_name(c): Origin(c) for c, v in first.items() if image_format(v) is not None}
    layout = Layout(root, "manifest", origins)
    columns = {origin.path for origin in origins.values()}
    for row, entry in table.items():
        layout.table[row] = {column: value for column, value in entry.items() if column not in columns}
        for name, origin in origins.items():
            if not entry.get(origin.path):
                continue
            file = root / entry[origin.path]
            if "\0" in str(file):
                reason = f"row {row!r}: no path"
            elif not allow_outside and is_outside(file, root):
                reason = f"row {row!r}: the path leads out of the data folder; set allow_outside: true to follow it"
            elif image_format(file.name) is None:
                reason = f"row {row!r}: no image file"
            else:
                layout.holdings.append(Holding(name, row, file))
                continue
            layout.problems.append(Problem(name, entry[origin.path], reason))
    return layout


def _shards(root: Path, files: list[Path], given: dict[str, Origin] | None) -> Layout:
    """Members `ROW.SOURCE.png`: the row ends at the first dot of the file name."""
    layout = Layout(root, "shards", given or {})
    seen: set[tuple[str, str]] = set()
    by_path = {origin.path: name for name, origin in (given or {}).items()}
    for file in files:
        for member, text in _members(file):
            pure = PurePosixPath(member)
            where = f"{file.name}:{member}"
            if pure.is_absolute() or ".." in pure.parts:
                layout.problems.append(Problem("?", where, "a path that leads out of the archive"))
                continue
            key, _, rest = pure.name.partition(".")
            row = row_name("-".join([*pure.parts[:-1], key]).removeprefix("./"))
            if f".{rest}" == CLASS_SUFFIX:
                layout.table.setdefault(row, {})["label"] = text
                continue
            middle = split_name(rest)[0]
            if image_format(pure.name) is None or not middle:
                layout.ignored.append(where)
                continue
            name = by_path.get(middle) if given else source_name(middle)
            if name is None:
                layout.ignored.append(where)
            elif (row, name) in seen:
                layout.problems.append(Problem(name, where, f"the row {row!r} has this source twice"))
            else:
                seen.add((row, name))
                layout.origins.setdefault(name, Origin(middle))
                layout.holdings.append(Holding(name, row, file, member))
    layout.origins = dict(sorted(layout.origins.items())) if not given else layout.origins
    return layout


def _members(file: Path) -> Iterator[tuple[str, str]]:
    """Names of the plain files in an archive, and the text of those that hold a class; links are not followed."""
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                if member.isfile():
                    stream = archive.extractfile(member) if member.name.endswith(CLASS_SUFFIX) else None
                    yield member.name, stream.read(1000).decode("utf-8", "replace").strip() if stream else ""
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{file} cannot be read as a tar archive ({error}).") from None
