"""Where a person's own data lie: which files hold which source of which row, in any of the accepted layouts.

DIR/SOURCE/ROW.png          a folder per source; the file's stem is the row, a stem that is absent a missing source
DIR/SOURCE.npz (.npy .h5 .zarr)     a file of arrays per source, or one for all; row i is the i-th image
DIR/*.tar                   shards: members ROW.SOURCE.png, and ROW.cls for a class
DIR/manifest.csv            a table of paths: row, [split], one column per source
"""

from pathlib import Path

from msvae.data.formats import array_format
from msvae.data.own.folders import array_origins, folder_layout, folder_origins
from msvae.data.own.layout import LABELS_FILE, Layout, Origin, read_table
from msvae.data.own.manifest import manifest_layout
from msvae.data.own.settings import OwnSettings
from msvae.data.own.shards import is_shard, shards_layout
from msvae.errors import DataError

MANIFEST_FILE = "manifest.csv"


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
        layout = manifest_layout(path, given, allow_outside)
    elif path.is_file() and is_shard(path.name):
        layout = shards_layout(path.parent, [path], given)
    elif array_format(path.name) is not None and (path.is_file() or path.suffix.lower() == ".zarr"):
        layout = folder_layout(path.parent, given or array_origins(path.parent, [path]), allow_outside)
        layout.ignored.clear()  # what else lies beside the file
    elif not path.is_dir():
        raise DataError(f"{path}: expected a folder, a file of arrays, a .tar shard or a .csv manifest.")
    elif (path / MANIFEST_FILE).is_file():
        layout = manifest_layout(path / MANIFEST_FILE, given, allow_outside)
    else:
        layout = _lying_in(path, given, allow_outside)
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


def _lying_in(path: Path, given: dict[str, Origin] | None, allow_outside: bool) -> Layout:
    """Archives of rows, unless sources lie beside them: then these are something else."""
    origins = given or folder_origins(path)
    shards = sorted(file for file in path.iterdir() if is_shard(file.name))
    if shards and not any((path / origin.path).exists() for origin in origins.values()):
        return shards_layout(path, shards, given)
    return folder_layout(path, origins, allow_outside)
