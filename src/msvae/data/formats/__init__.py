"""File formats: one short file each, one registry. A new one is a file and a line here."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

from msvae.data.formats import arrays, chunked, nifti, raster, svg, tiff
from msvae.data.formats.base import File, Format, Header, Reading, UnreadableError, guarded

#: Formats of which a source's folder holds a file per row (or per volume).
IMAGE_FORMATS: tuple[Format, ...] = (raster.FORMAT, tiff.FORMAT, nifti.FORMAT, svg.FORMAT, arrays.FORMAT)
#: Formats of which one file holds a whole source, or all.
ARRAY_FORMATS: tuple[Format, ...] = (arrays.ROWS, chunked.HDF5, chunked.ZARR)


def split_name(name: str) -> tuple[str, str]:
    """Stem and ending of a file name; `.nii.gz` is one ending."""
    lower = name.lower()
    ending = ".nii.gz" if lower.endswith(".nii.gz") else Path(lower).suffix
    return name[: len(name) - len(ending)], ending


def image_format(name: str) -> Format | None:
    """The format of an image file by its name, or None."""
    ending = split_name(name)[1]
    return next((known for known in IMAGE_FORMATS if ending in known.suffixes), None)


def array_format(name: str) -> Format | None:
    """The format of a file of arrays by its name, or None."""
    ending = split_name(name)[1]
    return next((known for known in ARRAY_FORMATS if ending in known.suffixes), None)


def read_header(file: File, known: Format, reading: Reading) -> Header:
    """The header of a file.

    Raises:
        UnreadableError: if it is damaged or refused.
        DataError: if a package is missing.
    """
    with guarded():
        _begin(file)
        return known.header(file, reading)


def read_images(file: File, known: Format, reading: Reading) -> Iterator[np.ndarray]:
    """The images of a file, one after the other.

    Raises:
        UnreadableError: if it is damaged or refused.
        DataError: if a package is missing.
    """
    with guarded():
        _begin(file)
        stream = known.images(file, reading)
    while True:
        with guarded():
            image = next(stream, None)
        if image is None:
            return
        yield image


def arrays_in(file: Path, known: Format) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and types of the arrays in a file; texts have the type `text`.

    Raises:
        UnreadableError: if it is damaged or refused.
    """
    with guarded():
        _begin(file)
        return known.arrays(file) if known.arrays else {}


def read_column(file: Path, known: Format, name: str) -> np.ndarray:
    """A whole array of one axis out of a file of arrays.

    Raises:
        UnreadableError: if it is damaged or refused.
    """
    with guarded():
        assert known.column is not None
        return known.column(file, name)


def _begin(file: File) -> None:
    """Bytes are read from their start; nothing to read is refused."""
    if isinstance(file, BytesIO):
        file.seek(0)
    if (file.getbuffer().nbytes if isinstance(file, BytesIO) else file.stat().st_size) == 0:
        raise UnreadableError("it is empty")


__all__ = [
    "ARRAY_FORMATS",
    "IMAGE_FORMATS",
    "File",
    "Format",
    "Header",
    "Reading",
    "UnreadableError",
    "array_format",
    "arrays_in",
    "image_format",
    "read_column",
    "read_header",
    "read_images",
    "split_name",
]
