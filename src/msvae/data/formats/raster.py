"""PNG, JPEG, WebP and BMP, through Pillow: 8 bits with 1 to 4 channels, or 16 bits of grey."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from msvae.data.formats.base import File, Format, Header, Reading, UnreadableError, as_numbers, refuse_giants

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
CHANNELS = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 3, "PA": 4}
GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION, TURNED = 274, (5, 6, 7, 8)
TARGETS = {"grey": "L", "rgb": "RGB", "rgba": "RGBA"}


@contextmanager
def _opened(file: File) -> Iterator[Image.Image]:
    with Image.open(file, formats=FORMATS) as image:
        refuse_giants(image.size)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a JPEG with previews or depth behind the image, as phones write
            raise UnreadableError(f"it is animated ({frames} frames); an image holds one")
        if image.mode not in CHANNELS and image.mode not in GREY_16:
            raise UnreadableError(f"its colours are {image.mode}; save it as grey, RGB or RGBA")
        if image.mode not in GREY_16 and any(";16" in str(tile[3]) for tile in image.tile):
            raise UnreadableError("it has 16 bits a channel in colour, which PNG readers cut to 8; save it as TIFF")
        yield image


def _mode(image: Image.Image, reading: Reading) -> str:
    """The mode that the values are taken from."""
    if reading.classes:
        return image.mode
    if reading.colour != "as_is":
        if image.mode in GREY_16:
            raise UnreadableError(f"16 bits of grey are not turned into {reading.colour}; take colour: as_is")
        return TARGETS[reading.colour]
    if image.mode in ("P", "PA"):
        return "RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB"
    return image.mode


def header(file: File, reading: Reading) -> Header:
    with _opened(file) as image:
        mode = _mode(image, reading)
        turned = image.getexif().get(ORIENTATION) in TURNED
        width, height = reversed(image.size) if turned else image.size
        note = "palette" if image.mode in ("P", "PA") else ""
        channels = 1 if mode in GREY_16 or (reading.classes and mode == "P") else CHANNELS[mode]
        return Header(None, (channels, height, width), "uint16" if mode in GREY_16 else "uint8", note)


def images(file: File, reading: Reading) -> Iterator[np.ndarray]:
    with _opened(file) as image:
        image.load()
        mode = _mode(image, reading)
        upright = ImageOps.exif_transpose(image)
        if mode in ("L", "RGB") and reading.colour != "as_is" and not reading.classes:
            upright = on_white(upright).convert(mode)
        elif upright.mode != mode:
            upright = upright.convert(mode)
        array = np.asarray(upright)
    if mode == "1" and not reading.classes:
        array = array.astype(np.uint8) * np.uint8(255)
    yield as_numbers(array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0))


def on_white(image: Image.Image) -> Image.Image:
    """The picture without transparency, on white paper."""
    if not image.has_transparency_data:
        return image
    paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


FORMAT = Format("PNG, JPEG, WebP, BMP", (".png", ".jpg", ".jpeg", ".webp", ".bmp"), header, images)
