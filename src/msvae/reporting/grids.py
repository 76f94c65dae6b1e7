"""Pictures of many images: strips, labelled contact sheets, triangles of weights."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from msvae.data.images import to_pixels
from msvae.errors import DataError
from msvae.source import Source

GAP = 4
SMALLEST_TILE = 64
PAPER, INK = (255, 255, 255), (60, 60, 67)
CLASS_COLOURS = np.array(
    [(38, 70, 83), (233, 196, 106), (42, 157, 143), (231, 111, 81), (110, 64, 170), (130, 200, 120), (200, 60, 120)],
    dtype=np.uint8,
)


def tile(image: Float[Tensor, "channels height width"], source: Source) -> Image.Image:
    """One image as RGB, at least 64 pixels wide; classes get colours, odd channel counts show their first three."""
    if not source.is_image:
        raise DataError(f"Source {source.name!r} is a vector; there is no picture of it.")
    if source.categories is not None:
        classes = to_pixels(image[None], source)[0]
        pixels = CLASS_COLOURS[classes % len(CLASS_COLOURS)]
    else:
        shown = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
        pixels = np.moveaxis((source.normalise(shown).clamp(0, 1) * 255).round().byte().cpu().numpy(), 0, -1)
    picture = Image.fromarray(pixels)
    factor = max(1, -(-SMALLEST_TILE // max(picture.size)))
    resampling = Image.Resampling.NEAREST if source.categories is not None else Image.Resampling.BICUBIC
    return picture.resize((picture.width * factor, picture.height * factor), resampling)


def strip(images: Float[Tensor, "rows channels height width"], source: Source) -> Image.Image:
    """Images side by side."""
    tiles = [tile(image, source) for image in images]
    width = sum(t.width + GAP for t in tiles) - GAP
    canvas = Image.new("RGB", (width, tiles[0].height), PAPER)
    left = 0
    for picture in tiles:
        canvas.paste(picture, (left, 0))
        left += picture.width + GAP
    return canvas


def contact_sheet(images: Mapping[str, Tensor], sources: Mapping[str, Source]) -> Image.Image:
    """A labelled strip per source, one under the other; at most 32 rows of each are shown.

    Args:
        images: `{label: (rows, channels, height, width)}`.
        sources: `{label: source}`.
    """
    strips = {label: strip(tensor[:32], sources[label]) for label, tensor in images.items() if sources[label].is_image}
    font = ImageFont.load_default(size=14)
    margin = max(int(font.getlength(label)) for label in strips) + 3 * GAP
    width = margin + max(picture.width for picture in strips.values()) + GAP
    height = sum(picture.height + GAP for picture in strips.values()) + GAP
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    top = GAP
    for label, picture in strips.items():
        draw.text((GAP, top + picture.height / 2), label, INK, font, anchor="lm")
        canvas.paste(picture, (margin, top))
        top += picture.height + GAP
    return canvas


def triangle_weights(names: Sequence[str], steps: int = 6) -> list[list[dict[str, float]]]:
    """Weights of three sources over a triangle, line by line from the first source's corner to the other two."""
    first, second, third = names
    lines = []
    for line in range(steps + 1):
        lines.append(
            [
                {
                    first: (steps - line) / steps,
                    second: (line - column) / steps,
                    third: column / steps,
                }
                for column in range(line + 1)
            ]
        )
    return lines


def triangle(lines: Sequence[Sequence[Tensor]], source: Source) -> Image.Image:
    """Images on a triangle, one more on every line."""
    tiles = [[tile(image, source) for image in line] for line in lines]
    side, tall = tiles[0][0].size
    width = len(lines) * (side + GAP)
    canvas = Image.new("RGBA", (width, len(lines) * (tall + GAP)), (0, 0, 0, 0))
    for number, line in enumerate(tiles):
        left = (width - len(line) * (side + GAP)) // 2
        for column, picture in enumerate(line):
            canvas.paste(picture, (left + column * (side + GAP), number * (tall + GAP)))
    return canvas
