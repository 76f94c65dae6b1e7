"""From the numbers in a file to those in a store: channels, range, size. For training and questions alike."""

import numpy as np
import torch
import torch.nn.functional as F

from msvae.data.formats import UnreadableError
from msvae.source import FileForm, Source

STEPS = {"uint8": 255, "uint16": 65535}
CLASS_STEPS = {"uint8": 256, "uint16": 65536}


def stored_dtype(source: Source) -> str:
    """How a source is kept on disk: whole numbers where they lose nothing, else float32.

    Class numbers are kept as they are; a span of at most 255 (65,535) whole numbers in 255 (65,535) steps.
    """
    form = form_of(source)
    if source.categories is not None:
        return "uint8" if source.categories <= CLASS_STEPS["uint8"] else "uint16"
    if form.dtype.startswith(("int", "uint")):
        for dtype, steps in STEPS.items():
            if form.high - form.low <= steps:
                return dtype
    return "float32"


def form_of(source: Source) -> FileForm:
    """What the files of a source hold; for sources that do not say, 8-bit images."""
    return source.files or FileForm()


def stored(image: np.ndarray, source: Source) -> np.ndarray:
    """One image of a file, (channels, height, width) or (features,), as it is kept: `source.shape`, `stored_dtype`.

    Raises:
        UnreadableError: saying what does not fit: channels, size, NaN, numbers out of the range.
    """
    form = form_of(source)
    if form.dtype.startswith(("int", "uint")) and not np.can_cast(image.dtype, form.dtype):
        raise UnreadableError(f"its numbers are {image.dtype}; expected {form.dtype} (see dtype)")
    if form.channels is not None:
        if max(form.channels) >= image.shape[0]:
            raise UnreadableError(f"it has {image.shape[0]} channels; channel {max(form.channels)} is wanted")
        image = image[list(form.channels)]
    if image.ndim != len(source.shape) or image.shape[0] != source.shape[0]:
        raise UnreadableError(f"it has {_words(image.shape)}; expected {_words(source.shape)}")
    image = _within_range(image, source, form)
    if image.shape != source.shape:
        image = fitted(image, source, form)
    dtype = stored_dtype(source)
    if source.categories is not None:
        return np.rint(image).astype(dtype)
    if dtype in STEPS:
        steps = STEPS[dtype]
        if (form.low, form.high) == (0, steps) and image.dtype == dtype:
            return image
        return np.rint((image.astype(np.float64) - form.low) * (steps / (form.high - form.low))).astype(dtype)
    if source.value_range == (form.low, form.high):
        return image.astype(np.float32)
    share = (image.astype(np.float64) - form.low) / (form.high - form.low)
    low, high = source.value_range
    return (low + share * (high - low)).astype(np.float32)


def _words(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"{shape[0]} features"
    return f"{shape[0]} channel{'s' if shape[0] != 1 else ''} of {shape[2]}x{shape[1]}"


def _within_range(image: np.ndarray, source: Source, form: FileForm) -> np.ndarray:
    """The image without NaN, its numbers within the range of the files."""
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        if np.isinf(image).any() and not form.clip:
            raise UnreadableError("it holds infinite numbers; set clip: true to take the ends of file_range for them")
        if np.isnan(image).any() and form.nan is None:
            raise UnreadableError("it holds NaN; say what stands for it with nan: NUMBER")
        image = np.nan_to_num(image, nan=form.nan or 0.0, posinf=form.high, neginf=form.low)
    lowest, highest = float(image.min()), float(image.max())
    if source.categories is not None:
        if lowest < 0 or highest >= source.categories or (image.dtype.kind == "f" and bool((image % 1).any())):
            odd = lowest if lowest < 0 else highest
            raise UnreadableError(f"it holds class {odd:g}; expected 0 to {source.categories - 1}")
    elif lowest < form.low or highest > form.high:
        if not form.clip:
            raise UnreadableError(
                f"its numbers are {lowest:g} to {highest:g}; expected {form.low:g} to {form.high:g} "
                "(widen file_range, or set clip: true)"
            )
        image = np.clip(image, form.low, form.high)
    return image


def fitted(image: np.ndarray, source: Source, form: FileForm) -> np.ndarray:
    """The image at the source's size, by the source's `fit`.

    Raises:
        UnreadableError: if the size is another one and `fit` is `exact`, or the image is too small to crop or too
            large to pad.
    """
    _, height, width = source.shape
    (top, bottom, left, right), scaled = placement(image.shape[1:], (height, width), form.fit)
    if scaled != image.shape[1:]:
        image = _scaled(image, scaled, source)
    image = image[:, max(0, -top) : scaled[0] - max(0, -bottom), max(0, -left) : scaled[1] - max(0, -right)]
    edges = ((0, 0), (max(0, top), max(0, bottom)), (max(0, left), max(0, right)))
    filler = form.fill if form.fill is not None else 0 if source.categories is not None else form.low
    return np.pad(image, edges, constant_values=filler) if any(map(any, edges)) else image


def placement(
    size: tuple[int, ...], wanted: tuple[int, int], fit: str
) -> tuple[tuple[int, int, int, int], tuple[int, ...]]:
    """Borders (top, bottom, left, right) to add (or, negative, to cut), and the size to scale to before.

    Raises:
        UnreadableError: as `fitted`.
    """
    height, width = size
    if fit == "exact" and (height, width) != wanted:
        raise UnreadableError(
            f"its size is {width}x{height}; expected {wanted[1]}x{wanted[0]} (or set fit: resize, crop, pad, ..)"
        )
    if fit == "resize":
        height, width = wanted
    elif fit in ("cover", "contain"):
        factors = (wanted[0] / height, wanted[1] / width)
        factor = max(factors) if fit == "cover" else min(factors)
        height, width = max(1, round(height * factor)), max(1, round(width * factor))
    spare = (wanted[0] - height, wanted[1] - width)
    if (fit == "crop" and max(spare) > 0) or (fit == "pad" and min(spare) < 0):
        raise UnreadableError(f"its size is {width}x{height}; it cannot be made {wanted[1]}x{wanted[0]} by fit: {fit}")
    top, left = spare[0] // 2, spare[1] // 2
    return (top, spare[0] - top, left, spare[1] - left), (height, width)


def _scaled(image: np.ndarray, size: tuple[int, ...], source: Source) -> np.ndarray:
    """Bilinear with antialiasing; class numbers by the nearest. Whole numbers stay whole."""
    values = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
    if source.categories is not None:
        return F.interpolate(values, size=list(size), mode="nearest-exact")[0].numpy()
    return F.interpolate(values, size=list(size), mode="bilinear", antialias=True)[0].numpy()


def tiles(image: np.ndarray, side: int) -> np.ndarray:
    """(tiles, channels, side, side), row by row; what is left at the right and the bottom is dropped."""
    channels, height, width = image.shape
    rows, columns = height // side, width // side
    cut = image[:, : rows * side, : columns * side].reshape(channels, rows, side, columns, side)
    return cut.transpose(1, 3, 0, 2, 4).reshape(rows * columns, channels, side, side)
