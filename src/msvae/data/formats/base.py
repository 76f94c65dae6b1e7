"""The contract of a file format: a header, and the images one after the other; and what every reader refuses."""

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from msvae.errors import DataError

File = Path | BytesIO
TALKATIVE = ("tifffile", "nibabel.global")
MOST_VALUES = 1 << 28  # of one image: larger ones are no pictures but attacks or mistakes


class UnreadableError(DataError):
    """A file that is no image of its format, is damaged, or holds what the format's reader refuses."""


@dataclass(frozen=True)
class Reading:
    """How files are read; each format takes what concerns it.

    Args:
        colour: `as_is`, `grey`, `rgb` or `rgba`.
        classes: whether numbers are classes: a palette is then left alone.
        axis: along which a volume is cut.
        pages: `rows`: every page of a file is an image; `channels`: all pages are the channels of one.
        size: (height, width) that drawings are made for; their proportions are kept.
        array: which array of a file.
        channels_last: whether the channels of arrays come last; None: guessed from the shape.
    """

    colour: str = "as_is"
    classes: bool = False
    axis: int = 2
    pages: str = "rows"
    size: tuple[int, int] | None = None
    array: str | None = None
    channels_last: bool | None = None


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its values are read.

    Args:
        count: images in it; None for a file that is one image, however it is named.
        shape: of each image: (channels, height, width) or (features,).
        dtype: of its numbers, one of `msvae.source.FILE_DTYPES`.
        note: what a person should know of it, such as `palette`.
        affine: of the cut images of a volume.
    """

    count: int | None
    shape: tuple[int, ...]
    dtype: str
    note: str = ""
    affine: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Format:
    """One file format.

    Args:
        name: as tables and errors call it.
        suffixes: endings of its files, in lower case.
        header: reads a file's header.
        images: reads its images in order, each (channels, height, width) or (features,).
        arrays: for files that hold whole sources, a row per image: shapes and types of their arrays by name.
        column: of such files, a whole array of one axis; texts as str.
        answers: the format that answers are written in (see `msvae.source.FileForm`).
    """

    name: str
    suffixes: tuple[str, ...]
    header: Callable[[File, Reading], Header]
    images: Callable[[File, Reading], Iterator[np.ndarray]]
    arrays: Callable[[File], dict[str, tuple[tuple[int, ...], str]]] | None = None
    column: Callable[[File, str], np.ndarray] | None = None
    answers: str = "png"


def optional(package: str) -> ModuleType:
    """A package of the extra `data`, imported when it is first needed.

    Raises:
        DataError: naming the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise DataError(f'Reading this needs the package {package}: pip install "msvae[data]".') from None


@contextmanager
def guarded() -> Iterator[None]:
    """Turns whatever a parser does on a damaged file into one error; what it warns of and logs is not for the user.

    Raises:
        UnreadableError: with the parser's words.
    """
    try:
        with warnings.catch_warnings(), _quiet_parsers():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (DataError, KeyboardInterrupt, GeneratorExit):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; it may be an attack") from None
    except MemoryError:
        raise UnreadableError("it does not fit into memory") from None
    except FileNotFoundError:
        raise UnreadableError("there is no such file") from None
    except Exception as error:  # parsers raise anything on hostile bytes: struct.error, IndexError, zlib.error, ..
        words = " ".join(str(error).split())[:200]
        raise UnreadableError(f"{type(error).__name__}: {words}" if words else type(error).__name__) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of parsers in Rust, which is no Exception
            raise
        raise UnreadableError("its parser gave up on it") from None


@contextmanager
def _quiet_parsers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.disabled = was


def number_type(dtype: np.dtype) -> str:
    """The name under which numbers of that type are kept.

    Raises:
        UnreadableError: for anything but real numbers; objects are never unpickled.
    """
    if dtype.kind == "b":
        return "uint8"
    if dtype.kind not in "uif":
        raise UnreadableError(f"it holds {dtype}, expected numbers (objects are never unpickled)")
    if dtype.kind == "f":
        return "float64" if dtype.itemsize > 4 else "float32"
    if dtype.kind == "u":
        return {1: "uint8", 2: "uint16"}.get(dtype.itemsize, "float64")
    return "int16" if dtype.itemsize <= 2 else "int32" if dtype.itemsize == 4 else "float64"


def refuse_giants(shape: tuple[int, ...]) -> None:
    """Raises UnreadableError for an image that would fill the memory, before a byte of it is read, or for none."""
    values = 1
    for size in shape:
        values *= int(size)
    if values > MOST_VALUES:
        raise UnreadableError(f"an image of shape {tuple(shape)}; at most {MOST_VALUES:,} values are read")
    if values < 1:
        raise UnreadableError(f"an image of shape {tuple(shape)} holds nothing")


def as_image(array: np.ndarray, channels_last: bool | None) -> np.ndarray:
    """(channels, height, width) or (features,) from an array of one to three axes."""
    if array.ndim == 2:
        return array[None]
    return np.moveaxis(array, -1, 0) if array.ndim == 3 and are_last(array.shape, channels_last) else array


def image_shape(shape: tuple[int, ...], channels_last: bool | None) -> tuple[int, ...]:
    """The shape that `as_image` gives.

    Raises:
        UnreadableError: for arrays without axes, or with more than three.
    """
    if len(shape) not in (1, 2, 3):
        raise UnreadableError(f"an array of shape {shape}, expected (channels, height, width) or (height, width)")
    if len(shape) == 2:
        return (1, *shape)
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 and are_last(shape, channels_last) else shape


def are_last(shape: tuple[int, ...], channels_last: bool | None) -> bool:
    """Whether the channels of one image come last: as said, or if that makes 1 to 4 of them and else there are more."""
    return shape[-1] <= 4 < shape[0] if channels_last is None else channels_last


def as_numbers(array: np.ndarray) -> np.ndarray:
    """The array in the type that `number_type` names, in the machine's byte order."""
    return np.ascontiguousarray(array, dtype=np.dtype(number_type(array.dtype)))
