"""SVG drawings, rendered by resvg on white paper; proportions are kept, so a wanted size is fitted, not filled."""

import re
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from msvae.data.formats.base import File, Format, Header, Reading, UnreadableError, optional
from msvae.data.formats.raster import on_white

DEFAULT_SIDE = 64
LARGEST_FILE = 1 << 24
MODES = {"as_is": "RGB", "grey": "L", "rgb": "RGB", "rgba": "RGBA"}
REFERENCE = re.compile(r"""href\s*=\s*["']\s*(?!\s*(#|data:))""", re.IGNORECASE)


def _rendered(file: File, reading: Reading) -> Image.Image:
    content = file.getvalue() if isinstance(file, BytesIO) else _text(file)
    text = content.decode("utf-8")
    if "<!ENTITY" in text:
        raise UnreadableError("it defines entities, which are not expanded")
    if re.search(r"<image\b", text) and REFERENCE.search(text):
        raise UnreadableError("it refers to other files, which are not read")
    height, width = reading.size or (DEFAULT_SIDE, DEFAULT_SIDE)
    resvg = optional("resvg_py")
    png = bytes(resvg.svg_to_bytes(svg_string=text, width=width, skip_system_fonts=True))
    image = Image.open(BytesIO(png), formats=("PNG",))
    if image.height > height:
        image.close()
        png = bytes(resvg.svg_to_bytes(svg_string=text, height=height, skip_system_fonts=True))
        image = Image.open(BytesIO(png), formats=("PNG",))
    return image


def _text(file: File) -> bytes:
    assert not isinstance(file, BytesIO)
    if file.stat().st_size > LARGEST_FILE:
        raise UnreadableError(f"a drawing of more than {LARGEST_FILE:,} bytes")
    return file.read_bytes()


def header(file: File, reading: Reading) -> Header:
    with _rendered(file, reading) as image:
        return Header(None, (len(MODES[reading.colour]), image.height, image.width), "uint8", "drawing")


def images(file: File, reading: Reading) -> Iterator[np.ndarray]:
    with _rendered(file, reading) as image:
        mode = MODES[reading.colour]
        picture = image.convert("RGBA") if mode == "RGBA" else on_white(image).convert(mode)
        array = np.asarray(picture)
    yield array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0).copy()


FORMAT = Format("SVG", (".svg",), header, images)
