"""TIFF, through tifffile: any bit depth, any number of bands (GeoTIFF too), many pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from msvae.data.formats.base import (
    File,
    Format,
    Header,
    Reading,
    UnreadableError,
    as_numbers,
    number_type,
    optional,
    refuse_giants,
)

SEPARATED = 5  # the photometric tag of CMYK
ONE_IMAGE = ("YX", "YXS", "SYX", "CYX", "YXC")


@contextmanager
def _opened(file: File) -> Iterator[Any]:
    try:
        with optional("tifffile").TiffFile(file) as tiff:
            if not tiff.pages:
                raise UnreadableError("it has no page")
            if tiff.pages[0].photometric == SEPARATED:
                raise UnreadableError("its colours are CMYK; save it as grey or RGB")
            yield tiff
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise UnreadableError(f"{error}; pip install imagecodecs") from None
        raise


def _laid_out(tiff: Any) -> tuple[int, bool, bool]:
    """Images in the file, whether each is a page of its own, and whether channels come last."""
    series = tiff.series[0]
    axes = str(series.axes)
    tail = next((known for known in sorted(ONE_IMAGE, key=len, reverse=True) if axes.endswith(known)), None)
    if tail is None or len(tiff.series) > 1:
        shapes = sorted({tuple(part.shape) for part in tiff.series})
        raise UnreadableError(f"its pages are no images of one size: axes {axes}, shapes {shapes[:3]}")
    count = int(np.prod(series.shape[: len(axes) - len(tail)], dtype=np.int64))
    page = tuple(series.shape[len(axes) - len(tail) :])
    pagewise = len(series.pages) == count and all(p is not None for p in series.pages)
    refuse_giants(page if pagewise else series.shape)
    return count, pagewise, tail in ("YXS", "YXC")


def header(file: File, reading: Reading) -> Header:
    with _opened(file) as tiff:
        count, _, last = _laid_out(tiff)
        series = tiff.series[0]
        axes = len(str(series.axes))
        bands = 1 if str(series.axes).endswith("YX") and str(series.axes)[-3:] not in ONE_IMAGE else 0
        shape = tuple(int(size) for size in series.shape)
        page = (1, *shape[-2:]) if bands or axes == 2 else shape[-3:]
        page = (page[2], page[0], page[1]) if last else page
        if reading.pages == "channels":
            count, page = 1, (page[0] * count, *page[1:])
        dtype = number_type(np.dtype(series.dtype))
    return Header(None if count == 1 else count, page, dtype)


def images(file: File, reading: Reading) -> Iterator[np.ndarray]:
    with _opened(file) as tiff:
        count, pagewise, last = _laid_out(tiff)
        series = tiff.series[0]
        one = series.shape[-2:] if str(series.axes)[-3:] not in ONE_IMAGE else series.shape[-3:]
        whole = None if pagewise else series.asarray().reshape(count, *one)

        def page(number: int) -> np.ndarray:
            array = whole[number] if whole is not None else series.pages[number].asarray()
            if array.dtype != series.dtype:
                raise UnreadableError("its pages differ in their type of numbers")
            array = array.reshape(one)
            return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0) if last else array

        if reading.pages == "channels":
            yield as_numbers(np.concatenate([page(number) for number in range(count)]))
        else:
            for number in range(count):
                yield as_numbers(page(number))


FORMAT = Format("TIFF", (".tif", ".tiff"), header, images, answers="tiff")
