"""HDF5 files (h5py) and Zarr folders (zarr): whole sources as arrays, a row per image, read in chunks of rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from msvae.data.extras import extra
from msvae.data.formats.base import (
    File,
    Format,
    Header,
    Reading,
    UnreadableError,
    as_image,
    as_numbers,
    image_shape,
    number_type,
    refuse_giants,
)

BYTES_AT_ONCE = 1 << 24
Opener = Callable[[File], Any]


@contextmanager
def _hdf5(file: File) -> Iterator[Any]:
    h5py = extra("h5py")
    with h5py.File(file, "r") as content:
        if content.visititems_links(lambda name, link: name if isinstance(link, h5py.ExternalLink) else None):
            raise UnreadableError("it links to other files, which are not read")
        yield content


@contextmanager
def _zarr(file: File) -> Iterator[Any]:
    if not isinstance(file, Path):
        raise UnreadableError("Zarr folders are read from a folder alone")
    content = extra("zarr").open(store=str(file), mode="r")
    yield content if hasattr(content, "keys") else {"": content}


def _walk(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names of all arrays, in groups too."""
    for name in sorted(group.keys()):
        item = group[name]
        if hasattr(item, "keys"):
            yield from _walk(item, f"{prefix}{name}/")
        elif hasattr(item, "shape") and hasattr(item, "dtype"):
            yield f"{prefix}{name}", item


def arrays(opened: Opener, file: File) -> dict[str, tuple[tuple[int, ...], str]]:
    with opened(file) as content:
        return {
            name: (tuple(item.shape), number_type(item.dtype) if item.dtype.kind in "buif" else "text")
            for name, item in _walk(content)
        }


def _header(item: Any, reading: Reading) -> Header:
    shape = tuple(int(size) for size in item.shape)
    if getattr(item, "is_virtual", False) or getattr(item, "external", None):
        raise UnreadableError("its numbers lie in other files, which are not read")
    if len(shape) < 2:
        raise UnreadableError(f"an array of shape {shape}; expected a row per image")
    refuse_giants(shape[1:])
    return Header(shape[0], image_shape(shape[1:], reading.channels_last), number_type(item.dtype))


def header(opened: Opener, file: File, reading: Reading) -> Header:
    with opened(file) as content:
        return _header(content[reading.array or ""], reading)


def rows(opened: Opener, file: File, reading: Reading) -> Iterator[np.ndarray]:
    with opened(file) as content:
        item = content[reading.array or ""]
        head = _header(item, reading)
        size = int(np.prod(item.shape[1:], dtype=np.int64)) * item.dtype.itemsize
        step = max(1, BYTES_AT_ONCE // size)
        for start in range(0, head.count or 0, step):
            for row in np.asarray(item[start : start + step]):
                yield as_image(as_numbers(row), reading.channels_last)


def column(opened: Opener, file: File, name: str) -> np.ndarray:
    with opened(file) as content:
        values = np.asarray(content[name][:])
    if values.dtype.kind in "OST":
        return np.array([value.decode() if isinstance(value, bytes) else str(value) for value in values])
    return values


def _format(name: str, suffixes: tuple[str, ...], opened: Opener) -> Format:
    return Format(
        name,
        suffixes,
        partial(header, opened),
        partial(rows, opened),
        partial(arrays, opened),
        partial(column, opened),
        answers="npy",
    )


HDF5 = _format("HDF5", (".h5", ".hdf5"), _hdf5)
ZARR = _format("Zarr", (".zarr",), _zarr)
