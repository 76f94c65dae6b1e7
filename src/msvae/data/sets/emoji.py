"""Emoji: one thing drawn by five or six vendors. What is tested is the same thing drawn in another style."""

from collections.abc import Callable

import numpy as np

from msvae.data.sets.dividing import divide_groups
from msvae.data.sets.emoji_drawings import (
    FLUENT,
    FLUENT_3D,
    NOTO,
    OPENMOJI,
    TWEMOJI,
    Emoji,
    catalogue,
    file_drawings,
    iconify_drawings,
)
from msvae.data.sets.known import SEED, KnownSet, Option, Workshop
from msvae.data.sets.pictures import channels_first, drawing, on_white, photo
from msvae.errors import DataError
from msvae.source import Source
from msvae.training.progress import tracked

SIZE = 64


def build(workshop: Workshop, *, tones: bool, flags: bool, three_d: bool, seed: int) -> None:
    """Draw every emoji that all five sets of SVG drawings have; the 3D set lacks some of them."""
    noto, openmoji = workshop.read(NOTO), workshop.read(OPENMOJI)
    flat = {
        "noto": iconify_drawings(noto),
        "twemoji": iconify_drawings(workshop.read(TWEMOJI)),
        "fluent": iconify_drawings(workshop.read(FLUENT)),
        "openmoji": {c: svg.decode() for c, svg in file_drawings(openmoji, "package/color/svg/").items()},
        "outline": {c: svg.decode() for c, svg in file_drawings(openmoji, "package/black/svg/").items()},
    }
    chosen = [
        emoji
        for emoji in catalogue(noto)
        if all(emoji.code in drawn for drawn in flat.values())
        and (tones or not emoji.toned)
        and (flags or emoji.group != "Flags")
    ]
    if not chosen:
        raise DataError("Data set 'emoji': the packages have no emoji in common.")
    images = {name: _drawn(workshop, name, chosen, lambda code, d=drawn: _svg(d[code])) for name, drawn in flat.items()}
    present = {}
    if three_d:
        files = file_drawings(workshop.read(FLUENT_3D), "package/assets/")
        present["three_d"] = np.array([emoji.code in files for emoji in chosen])
        images["three_d"] = _drawn(workshop, "three_d", chosen, lambda code: _webp(files.get(code)))
    groups = sorted({emoji.group for emoji in chosen})
    workshop.save(
        [Source(name, (3, SIZE, SIZE), likelihood="laplace", scale=0.1) for name in images],
        images,
        divide_groups([emoji.base for emoji in chosen], np.random.RandomState(seed)),
        labels=np.array([groups.index(emoji.group) for emoji in chosen], dtype=np.int64),
        columns={key: np.array([getattr(emoji, key) for emoji in chosen]) for key in ("name", "code", "base")},
        present=present,
        class_names=groups,
    )


def _svg(svg: str) -> np.ndarray:
    return on_white(drawing(svg, SIZE))


def _webp(content: bytes | None) -> np.ndarray:
    if content is None:
        return np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    return on_white(photo(content, "RGBA", (SIZE, SIZE)))


def _drawn(workshop: Workshop, source: str, chosen: list[Emoji], draw: Callable[[str], np.ndarray]) -> np.ndarray:
    shown = tracked(chosen, workshop.display, f"drawing {source}", len(chosen))
    return np.stack([channels_first(draw(emoji.code)) for emoji in shown])


SET = KnownSet(
    name="emoji",
    what="the same emoji in five drawings (Noto, Twemoji, Fluent, OpenMoji in colour and as outline), 64x64 on white",
    options={
        "tones": Option(False, "all skin tones, which doubles the rows"),
        "flags": Option(True, "the few flags that all drawings have"),
        "three_d": Option(False, "a sixth source, Fluent in 3D, which lacks some emoji; 16 MB more to download"),
        "seed": SEED,
    },
    licence="mixed: Apache-2.0 (Noto), CC BY 4.0 (Twemoji), MIT (Fluent), CC BY-SA 4.0 (OpenMoji)",
    split_rule="by base: an emoji in all its skin tones, genders and directions is in one split; bases are dealt at "
    "random with the seed, 70 % of rows to training, 10 % to validation, 20 % to test",
    build=build,
    packages=(NOTO, TWEMOJI, FLUENT, OPENMOJI, FLUENT_3D),
    checksum="0432f164cb71814ef0d660e50b3007fd80afee96d793367297d5ad5130ab1d17",
)
