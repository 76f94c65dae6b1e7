"""The embedded set `colours`: real handwritten digits, drawn by a blue, a yellow and a green source.

The handwriting is scikit-learn's `load_digits` (1797 digits of the UCI Optical Recognition set, 8x8, BSD): nothing is
downloaded. Each digit is scaled up to a smooth stroke and drawn three times at 32x32: blue ink on paper, a thin yellow
neon tube in the dark, and a broad soft green brush.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msvae.data.base import DataSet, complete_rows
from msvae.data.sets.known import SEED, KnownSet, Option
from msvae.source import Source

SIZE = 32
DRAWING_SIZE = 64  # strokes are drawn at twice the size, then averaged down
SOURCE_NAMES = ("blue", "yellow", "green")
PAIRINGS = ("content", "class")
SPLIT_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
WHAT = "handwritten digits as blue ink, yellow neon and green brush, 32x32"
LICENCE = "BSD-3-Clause (scikit-learn), CC BY 4.0 (UCI)"
SPLIT_RULE = (
    "by handwritten digit, at random with the seed: 70 % train, 10 % validation, 20 % test; "
    "all variants of a digit are in one split"
)


def build(pairing: str = "content", variants: int = 4, seed: int = 0) -> DataSet:
    """The set, the same for the same arguments.

    Args:
        pairing: `content`: the same handwritten digit in all three sources; `class`: another writer's digit of the
            same class in each, so that only the class is shared.
        variants: how often each training digit is drawn, each time a little turned, sheared, scaled and shifted.
            Validation and test digits are drawn once.
        seed: of the splits, the variants and the class pairing.
    """
    sources = [Source(name, (3, SIZE, SIZE), likelihood="laplace", scale=0.1) for name in SOURCE_NAMES]
    drawn = _drawn(pairing, variants, seed)
    return DataSet(
        name="colours",
        splits={
            split: complete_rows(sources, {name: part.copy() for name, part in images.items()}, labels.copy())
            for split, (images, labels) in drawn.items()
        },
        shared_content=pairing == "content",
        class_names=tuple(str(digit) for digit in range(10)),
        card={
            "what": WHAT,
            "pairing": pairing,
            "origin": "scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits)",
            "licence": LICENCE,
            "split rule": SPLIT_RULE,
        },
    )


@lru_cache(maxsize=2)
def _drawn(pairing: str, variants: int, seed: int) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """Images by source, and labels, of every split; kept, since training, tests and report ask for the same ones."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    writing = torch.from_numpy(pixels / 16.0).float().unflatten(1, (8, 8))
    labels = torch.from_numpy(target).long()
    generator = torch.Generator().manual_seed(seed)
    splits = {}
    for split, index in _split_indices(len(labels), generator).items():
        copies = variants if split == "train" else 1
        strokes = _strokes(writing[index].repeat(copies, 1, 1), generator)
        splits[split] = _images(strokes, labels[index], pairing, generator), labels[index].repeat(copies).numpy()
    return splits


def _split_indices(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    order = torch.randperm(count, generator=generator)
    first = round(SPLIT_SHARES["train"] * count)
    second = first + round(SPLIT_SHARES["validation"] * count)
    return {"train": order[:first], "validation": order[first:second], "test": order[second:]}


def _strokes(writing: Tensor, generator: torch.Generator) -> Tensor:
    """8x8 ink counts -> smooth ink fields (rows, 1, 64, 64) in [0, 1], each a little turned and shifted."""
    rows = len(writing)

    def spread(width: float) -> Tensor:
        return (torch.rand(rows, generator=generator) * 2 - 1) * width

    angle, shear, scale = spread(0.15), spread(0.15), 1.22 + spread(0.08)
    shift_x, shift_y = spread(0.05), spread(0.05)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    affine = torch.stack(
        [
            torch.stack([cosine, shear - sine, shift_x], dim=1),
            torch.stack([sine, cosine, shift_y], dim=1),
        ],
        dim=1,
    )
    affine[:, :, :2] *= scale[:, None, None]
    grid = F.affine_grid(affine, [rows, 1, DRAWING_SIZE, DRAWING_SIZE], align_corners=False)
    return F.grid_sample(writing[:, None], grid, mode="bicubic", align_corners=False).clamp(0, 1)


@dataclass(frozen=True)
class Look:
    """How a source draws: where ink begins, how soft its edge is, and which colours ground and ink have."""

    threshold: float
    softness: float
    broadening: int
    ground: tuple[float, float, float]
    ink: tuple[float, float, float]
    glow: float = 0.0
    rim: float = 0.0


LOOKS = {
    "blue": Look(0.48, 0.06, 1, ground=(0.97, 0.95, 0.90), ink=(0.08, 0.20, 0.66)),
    "yellow": Look(0.58, 0.06, 1, ground=(0.09, 0.06, 0.16), ink=(1.00, 0.86, 0.20), glow=0.65),
    "green": Look(0.40, 0.10, 3, ground=(0.90, 0.96, 0.90), ink=(0.20, 0.66, 0.36), rim=0.45),
}


def _draw(strokes: Tensor, look: Look) -> Tensor:
    """Ink fields -> colour images (rows, 3, 32, 32) uint8."""
    if look.broadening > 1:
        strokes = F.max_pool2d(strokes, look.broadening, stride=1, padding=look.broadening // 2)
    ink = F.avg_pool2d(torch.sigmoid((strokes - look.threshold) / look.softness), DRAWING_SIZE // SIZE)
    cover = torch.maximum(ink, look.glow * _blurred(ink)) if look.glow else ink
    ground = torch.tensor(look.ground).view(1, 3, 1, 1)
    colour = torch.tensor(look.ink).view(1, 3, 1, 1)
    shade = 1 - look.rim * 4 * ink * (1 - ink)  # a brush leaves a darker rim
    images = ground * (1 - cover) + colour * shade * cover
    return (images * 255).round().to(torch.uint8)


def _blurred(maps: Tensor) -> Tensor:
    """Three box blurs of 5 pixels, close to a Gaussian."""
    for _ in range(3):
        maps = F.avg_pool2d(maps, 5, stride=1, padding=2)
    return maps


def _images(strokes: Tensor, labels: Tensor, pairing: str, generator: torch.Generator) -> dict[str, np.ndarray]:
    circle = _class_circle(labels, generator)
    copies = len(strokes) // len(labels)
    images: dict[str, np.ndarray] = {}
    order = torch.arange(len(labels))
    for name in SOURCE_NAMES:
        rows = torch.cat([order + copy * len(labels) for copy in range(copies)])
        images[name] = torch.cat([_draw(chunk, LOOKS[name]) for chunk in strokes[rows].split(500)]).numpy()
        if pairing == "class":
            order = circle[order]
    return images


def _class_circle(labels: Tensor, generator: torch.Generator) -> Tensor:
    """For every digit another one of its class; following it leads through the whole class in a random order."""
    successor = torch.arange(len(labels))
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        successor[members] = members.roll(-1)
    return successor


SET = KnownSet(
    name="colours",
    what=WHAT,
    options={
        "pairing": Option("content", "content: one digit in all sources; class: another one in each", choices=PAIRINGS),
        "variants": Option(4, "how often each training digit is drawn", 1, 100),
        "seed": SEED,
    },
    licence=LICENCE,
    split_rule=SPLIT_RULE,
    build=build,
    mixed=True,
)
