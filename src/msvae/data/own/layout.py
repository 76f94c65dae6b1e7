"""What is found of a person's own data: which files hold which source of which row."""

import csv
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from msvae.errors import DataError, unknown

LABELS_FILE = "labels.csv"


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


def row_name(text: str) -> str:
    """A row's name in one spelling: systems write accents in two ways."""
    return unicodedata.normalize("NFC", text)


def source_name(text: str) -> str:
    """A source's name from a folder's: other signs than letters, digits, `-` and `_` become `_`."""
    return "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in row_name(text))


def numbered_row(number: int) -> str:
    """The name of a row that has none."""
    return f"{number:07d}"


def is_outside(file: Path, root: Path) -> bool:
    """Whether a file, its links followed, lies out of the data folder; links that go round in a ring lead nowhere."""
    try:
        return not file.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return True


def refuse_unknown_origins(layout: Layout, known: Iterable[str], what: str) -> None:
    """A source whose `path` is none of what there is would be absent from all rows.

    Raises:
        DataError: naming it, and what there is.
    """
    there = sorted(name for name in known if name)
    for name, origin in layout.origins.items():
        if origin.path not in there:
            raise DataError(f"Source {name!r}: {unknown(what, origin.path, there)}")


def read_table(path: Path, key: str = "row") -> dict[str, dict[str, str]]:
    """A CSV file by its column `row`.

    Raises:
        DataError: if it cannot be read, has no such column, or a row twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            lines.fieldnames = [column.strip() for column in lines.fieldnames or ()] or None
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
