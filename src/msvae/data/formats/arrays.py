"""NumPy files. One `.npy` in a source's folder is one image; one `.npy` or `.npz` beside others holds whole sources, a
row per image, read from the file one after the other. Objects are never unpickled."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

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


def _described(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type from the head of a .npy stream, which then stands before the numbers."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    number_type(dtype)
    return shape, fortran, dtype


@contextmanager
def _stream(file: File, array: str | None) -> Iterator[Any]:
    """The .npy stream of an array: the file itself, or a member of an .npz."""
    if isinstance(file, Path) and file.suffix.lower() == ".npz":
        with zipfile.ZipFile(file) as archive:
            there = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            name = there[0] if array is None and len(there) == 1 else array
            if name not in there:
                raise UnreadableError(
                    f"it holds the arrays {', '.join(there) or 'none'}; say which one with array: NAME"
                )
            with archive.open(f"{name}.npy") as stream:
                yield stream
    elif isinstance(file, Path):
        with file.open("rb") as stream:
            yield stream
    else:
        file.seek(0)
        yield file


def one_header(file: File, reading: Reading) -> Header:
    with _stream(file, None) as stream:
        shape, _, dtype = _described(stream)
    refuse_giants(shape)
    return Header(None, image_shape(shape, reading.channels_last), number_type(dtype))


def one_image(file: File, reading: Reading) -> Iterator[np.ndarray]:
    one_header(file, reading)
    with _stream(file, None) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    yield as_image(as_numbers(array), reading.channels_last)


def arrays(file: File) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and types of the arrays in a file, those of no numbers as `text`."""
    names: list[str | None] = [None]
    if isinstance(file, Path) and file.suffix.lower() == ".npz":
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    found = {}
    for name in names:
        with _stream(file, name) as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
        found[name or ""] = (shape, number_type(dtype) if dtype.kind in "buif" else "text")
    return found


def rows_header(file: File, reading: Reading) -> Header:
    with _stream(file, reading.array) as stream:
        shape, _, dtype = _described(stream)
    if len(shape) < 2:
        raise UnreadableError(f"an array of shape {shape}; expected a row per image")
    refuse_giants(shape[1:])
    return Header(int(shape[0]), image_shape(shape[1:], reading.channels_last), number_type(dtype))


def rows(file: File, reading: Reading) -> Iterator[np.ndarray]:
    rows_header(file, reading)
    with _stream(file, reading.array) as stream:
        shape, fortran, dtype = _described(stream)
        if fortran:
            if not isinstance(file, Path) or file.suffix.lower() == ".npz":
                raise UnreadableError("an array in Fortran order; save it in C order")
            for row in np.load(file, mmap_mode="r", allow_pickle=False):
                yield as_image(as_numbers(row), reading.channels_last)
            return
        size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        for number in range(shape[0]):
            content = stream.read(size)
            if len(content) < size:
                raise UnreadableError(f"it ends within row {number} of {shape[0]}")
            yield as_image(as_numbers(np.frombuffer(content, dtype).reshape(shape[1:])), reading.channels_last)


def column(file: File, name: str) -> np.ndarray:
    with _stream(file, name) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


FORMAT = Format("NumPy image", (".npy",), one_header, one_image, answers="npy")
ROWS = Format("NumPy arrays", (".npy", ".npz"), rows_header, rows, arrays, column, answers="npy")
