"""Archives whose members are named after row and source."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msvae.data.formats import image_format, split_name
from msvae.data.own.layout import Holding, Layout, Origin, Problem, refuse_unknown_origins, row_name, source_name
from msvae.errors import DataError

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
CLASS_SUFFIX = ".cls"


def is_shard(name: str) -> bool:
    return name.lower().endswith(SHARD_SUFFIXES)


def shards_layout(root: Path, files: list[Path], given: dict[str, Origin] | None) -> Layout:
    """Members `ROW.SOURCE.png`: the row ends at the first dot of the file name."""
    layout = Layout(root, "shards", given or {})
    seen: set[tuple[str, str]] = set()
    by_path: dict[str, list[str]] = {}
    for name, origin in (given or {}).items():
        by_path.setdefault(origin.path, []).append(name)
    middles: set[str] = set()
    for file in files:
        for member, text in _members(file):
            pure = PurePosixPath(member)
            where = f"{file.name}:{member}"
            if pure.is_absolute() or ".." in pure.parts:
                layout.problems.append(Problem("?", where, "a path that leads out of the archive"))
                continue
            key, _, rest = pure.name.partition(".")
            if not key:  # hidden: systems put such files beside others
                continue
            row = row_name("-".join([*pure.parts[:-1], key]))
            if f".{rest}" == CLASS_SUFFIX:
                layout.table.setdefault(row, {})["label"] = text
                continue
            middle = split_name(pure.name)[0].partition(".")[2]
            middles.add(middle)
            names = by_path.get(middle, []) if given else [source_name(middle)] if middle else []
            if image_format(pure.name) is None or not names:
                layout.ignored.append(where)
                continue
            for name in names:
                if (row, name) in seen:
                    layout.problems.append(Problem(name, where, f"the row {row!r} has this source twice"))
                    continue
                seen.add((row, name))
                layout.origins.setdefault(name, Origin(middle))
                layout.holdings.append(Holding(name, row, file, member))
    refuse_unknown_origins(layout, middles, "kind of members")
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
