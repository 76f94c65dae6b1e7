"""A data set on disk: one memory-mapped array per split and source, so that memory does not grow with its rows.

    folder/store.json                    name, sources, card, class names, sizes of the splits, format version
    folder/SPLIT/SOURCE.npy              (rows, *shape) uint8, uint16 or float32; never read where absent
    folder/SPLIT/SOURCE.present.npy      (rows,) bool
    folder/SPLIT/labels.npy              (rows,) int64, where the set has labels (beside a source of that name:
                                         class.labels.npy)
    folder/SPLIT/column.NAME.npy         (rows, ...) any further column: captions, boxes, masks, file names

A store is written beside its place and moved there when it is whole: a killed writer leaves no half set.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import torch

from msvae.data.base import DataSet, Rows
from msvae.errors import DataError
from msvae.files import replace_folder
from msvae.source import Source

FORMAT_VERSION = 1
INDEX = "store.json"
VERIFIERS = "verifiers"  # a folder of what was trained to judge the set, beside its splits
DTYPES = ("uint8", "uint16", "float32")
HASHED_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class SplitWriter:
    """The arrays of one split, to be filled; what is never written stays zero and takes no space on disk.

    Args:
        values: `{source: (rows, *shape)}` memory-mapped.
        present: `{source: (rows,) bool}`, all False at first.
        labels: (rows,) int64, or None.
        columns: further columns by name; set what the set has.
    """

    values: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    labels: np.ndarray | None
    columns: dict[str, np.ndarray] = field(default_factory=dict)


@contextmanager
def new_store(
    folder: Path,
    name: str,
    sources: Sequence[Source],
    rows: Mapping[str, int],
    *,
    dtypes: Mapping[str, str] | None = None,
    labelled: bool = False,
    shared_content: bool = False,
    class_names: Sequence[str] = (),
    card: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, SplitWriter]]:
    """Write a set: `with new_store(...) as splits: splits["train"].values["radar"][7] = image`.

    Args:
        rows: number of rows of every split.
        dtypes: `{source: "uint8" | "uint16" | "float32"}`, uint8 by default. Whole numbers stand for the value range
            in 255 or 65,535 steps (class numbers for themselves), floats for themselves.

    Raises:
        DataError: if the disk is full or the folder cannot be written; then nothing is left behind, and what stood
            at `folder` stays.
    """
    folder = Path(folder)
    kinds = {source.name: (dtypes or {}).get(source.name, "uint8") for source in sources}
    for source, kind in kinds.items():
        if kind not in DTYPES:
            raise DataError(f"Source {source!r}: expected values stored as {', '.join(DTYPES)}; got {kind}.")
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        splits = {split: _new_split(partial / split, sources, count, kinds, labelled) for split, count in rows.items()}
        yield splits
        for split, writer in splits.items():
            _finish_split(partial / split, writer)
        index = {
            "format": FORMAT_VERSION,
            "name": name,
            "sources": [source.to_dict() for source in sources],
            "rows": dict(rows),
            "labelled": labelled,
            "shared_content": shared_content,
            "class_names": list(class_names),
            "card": dict(card or {}),
        }
        partial.chmod(0o755)  # mkdtemp's folders are for their owner alone, caches may be shared
        (partial / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8")
        replace_folder(folder, partial)
    except OSError as error:
        raise DataError(f"Cannot write the data set {name!r} into {folder}: {error.strerror or error}.") from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def write_row(array: np.ndarray, row: int, image: np.ndarray) -> None:
    """Write one image into an array of a `SplitWriter` through its file.

    A full disk is an OSError here; an assignment to mapped memory would end the process instead.
    """
    if not isinstance(array, np.memmap) or array.filename is None:
        array[row] = image
        return
    content = np.ascontiguousarray(image, dtype=array.dtype)
    if content.shape != array.shape[1:]:
        raise DataError(f"{array.filename}: expected an image of shape {array.shape[1:]}, got {content.shape}.")
    with Path(array.filename).open("r+b") as file:
        file.seek(array.offset + row * content.nbytes)
        file.write(content.data)


def open_store(folder: Path) -> DataSet:
    """The set in a folder, memory-mapped: opening it reads no image.

    Raises:
        DataError: if there is none, a file is missing or truncated, or the format is newer than this version.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except OSError:
        raise DataError(f"There is no data set in {folder} ({INDEX} is missing).") from None
    except ValueError:
        raise DataError(f"The data set in {folder} is damaged: {INDEX} is no JSON.") from None
    if index.get("format") != FORMAT_VERSION:
        raise DataError(
            f"The data set in {folder} has format {index.get('format')}; this version reads {FORMAT_VERSION}."
        )
    try:
        sources = tuple(Source.from_dict(fields) for fields in index["sources"])
        splits = {split: _open_split(folder / split, sources, count, index) for split, count in index["rows"].items()}
        return DataSet(
            name=index["name"],
            splits=splits,
            shared_content=index["shared_content"],
            class_names=tuple(index["class_names"]),
            card=index["card"],
        )
    except KeyError as error:
        raise DataError(f"The data set in {folder} is damaged: {INDEX} lacks {error}.") from None


def store_checksum(folder: Path) -> str:
    """SHA-256 over names and contents of all arrays of a store; equal for equal sets on any machine."""
    digest = hashlib.sha256()
    for file in sorted(Path(folder).rglob("*.npy")):
        digest.update(str(file.relative_to(folder).as_posix()).encode())
        with file.open("rb") as stream:
            while chunk := stream.read(HASHED_AT_ONCE):
                digest.update(chunk)
    return digest.hexdigest()


def _labels_file(sources: Sequence[Source]) -> str:
    return "class.labels.npy" if any(source.name == "labels" for source in sources) else "labels.npy"


def _new_split(
    folder: Path, sources: Sequence[Source], rows: int, kinds: Mapping[str, str], labelled: bool
) -> SplitWriter:
    folder.mkdir()

    def fresh(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.lib.format.open_memmap(folder / name, mode="w+", dtype=np.dtype(dtype), shape=(rows, *shape))

    return SplitWriter(
        {source.name: fresh(f"{source.name}.npy", source.shape, kinds[source.name]) for source in sources},
        {source.name: fresh(f"{source.name}.present.npy", (), "bool") for source in sources},
        fresh(_labels_file(sources), (), "int64") if labelled else None,
    )


def _finish_split(folder: Path, writer: SplitWriter) -> None:
    for array in (*writer.values.values(), *writer.present.values(), writer.labels):
        if isinstance(array, np.memmap):
            array.flush()
    for name, column in writer.columns.items():
        np.save(folder / f"column.{quote(name, safe=' ')}.npy", column, allow_pickle=False)  # such as `km/h`


def _open_split(folder: Path, sources: tuple[Source, ...], rows: int, index: Mapping[str, Any]) -> Rows:
    def stored(name: str) -> np.ndarray:
        path = folder / name
        try:
            # copy-on-write: torch wants writable memory, and the file must never change
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        except FileNotFoundError:
            raise DataError(f"The data set in {folder.parent} is damaged: {folder.name}/{name} is missing.") from None
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}).") from None
        if len(array) != rows:
            raise DataError(f"{path}: expected {rows} rows, got {len(array)}.")
        return array

    values = {}
    for source in sources:
        array = stored(f"{source.name}.npy")
        if array.shape[1:] != source.shape or array.dtype.name not in DTYPES:
            raise DataError(
                f"Source {source.name!r}: {folder / source.name}.npy holds {array.dtype} {array.shape[1:]}; "
                f"expected {source.shape} as {', '.join(DTYPES)}."
            )
        values[source.name] = torch.from_numpy(array)
    return Rows(
        sources,
        values,
        {source.name: torch.from_numpy(np.array(stored(f"{source.name}.present.npy"))) for source in sources},
        torch.from_numpy(np.array(stored(_labels_file(sources)))) if index["labelled"] else None,
        {
            unquote(file.name.removeprefix("column.").removesuffix(".npy")): stored(file.name)
            for file in sorted(folder.glob("column.*.npy"))
        },
    )
