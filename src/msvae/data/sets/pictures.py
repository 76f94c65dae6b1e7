"""Pictures out of files: photos and drawings as arrays (height, width, channels) uint8."""

import io

import numpy as np
from PIL import Image

from msvae.data.extras import extra


def photo(content: bytes, mode: str = "RGB", size: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels of an image file; averaged down to (width, height) `size` if given."""
    with Image.open(io.BytesIO(content)) as image:
        if size is not None:
            image.draft(mode, (2 * size[0], 2 * size[1]))
        picture = image.convert(mode)
    return np.asarray(picture if size is None else picture.resize(size, Image.Resampling.BOX))


def photo_within(content: bytes, side: int) -> np.ndarray:
    """The pixels of an image file, averaged down so that the longer side has that many."""
    with Image.open(io.BytesIO(content)) as image:
        longest = max(image.size)
        size = (max(1, image.width * side // longest), max(1, image.height * side // longest))
    return photo(content, "RGB", size)


def drawing(svg: str, size: int) -> np.ndarray:
    """An SVG drawing as (size, size, 4): red, green, blue and opacity; its view box is scaled to fit and centred."""
    resvg = extra("resvg_py")
    drawn = photo(bytes(resvg.svg_to_bytes(svg_string=svg, width=size, height=size)), "RGBA")
    spare = [size - length for length in drawn.shape[:2]]
    return np.pad(drawn, [*((gap // 2, gap - gap // 2) for gap in spare), (0, 0)])


def on_white(rgba: np.ndarray) -> np.ndarray:
    """A drawing on white paper: (height, width, 3)."""
    opacity = rgba[..., 3:] / 255.0
    return np.round(rgba[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)


def channels_first(picture: np.ndarray) -> np.ndarray:
    """(..., height, width[, channels]) of one picture as (channels, height, width)."""
    return picture[None] if picture.ndim == 2 else np.moveaxis(picture, -1, 0)
