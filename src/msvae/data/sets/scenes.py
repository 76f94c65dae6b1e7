"""Composed scenes: one to three things on a photo, with edges, depth order, masks and boxes known by construction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from msvae.data.fetch import Package
from msvae.data.sets.dividing import divide_groups
from msvae.data.sets.emoji_drawings import NOTO, catalogue, iconify_drawings
from msvae.data.sets.known import SEED, KnownSet, Option, Workshop
from msvae.data.sets.pictures import channels_first, drawing, photo_within
from msvae.source import Source
from msvae.training.progress import tracked

SIZE, MOST = 64, 3
SMALLEST, LARGEST = 20, 40
LEAST_VISIBLE = 0.25
OPAQUE = 128
PHOTO_SIDE = 320
EDGE_GAIN = 2.5
CLASSES = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Smileys & Emotion", "Travel & Places")
WALLPAPERS = Package(
    client="apt",
    name="lomiri-wallpapers-16.04",
    version="20.04",
    members=("usr/share/backgrounds/*.jpg",),
    sha256="a4c6b466c49b5209e0ff409b6ffff79477ccda1d58f4b88105c1cafdd13468bf",
    megabytes=15.8,
    licence="CC BY 4.0 (A. Berasategi, Freespace, A. Mudgal, J. Mede), CC BY-SA 4.0 (P. Nerlich, S. Klootwijk, Bolly), "
    "CC0 (C. Engelhardt)",
)


@dataclass(frozen=True)
class Scene:
    """One composed picture.

    Args:
        picture: (SIZE, SIZE, 3) uint8.
        order: (SIZE, SIZE) uint8; 0 is ground, then objects from the farthest to the nearest.
        kept: which of the given objects are in it, from the farthest to the nearest.
    """

    picture: np.ndarray
    order: np.ndarray
    kept: tuple[int, ...]


def compose(ground: np.ndarray, objects: Sequence[np.ndarray], places: Sequence[tuple[int, int]]) -> Scene:
    """Paste objects (red, green, blue, opacity) on a ground, the first the farthest.

    An object of which less than a quarter is seen behind the others is left out, the most hidden first.
    """
    kept = list(range(len(objects)))
    while True:
        picture, order = ground.astype(np.float64), np.zeros(ground.shape[:2], dtype=np.uint8)
        solid = []
        for number, which in enumerate(kept):
            thing, (top, left) = objects[which], places[which]
            where = (slice(top, top + len(thing)), slice(left, left + thing.shape[1]))
            opacity = thing[..., 3:] / 255.0
            picture[where] = picture[where] * (1 - opacity) + thing[..., :3] * opacity
            inside = thing[..., 3] >= OPAQUE
            order[where][inside] = number + 1
            solid.append(int(inside.sum()))
        seen = [float((order == number + 1).sum()) / max(1, solid[number]) for number in range(len(kept))]
        hidden = int(np.argmin(seen))
        if seen[hidden] >= LEAST_VISIBLE:
            return Scene(np.round(picture).astype(np.uint8), order, tuple(kept))
        kept.pop(hidden)


def edges(picture: np.ndarray) -> np.ndarray:
    """Length of the gradient of the mean of the channels, by central differences: (height, width) uint8."""
    down, across = np.gradient(picture.mean(axis=2) / 255)
    return np.round(255 * np.minimum(1, EDGE_GAIN * np.hypot(down, across))).astype(np.uint8)


def boxes(order: np.ndarray) -> np.ndarray:
    """Left, top, right and bottom (exclusive) of what is seen of each object: (3, 4), -1 where there is none."""
    found = np.full((MOST, 4), -1, dtype=np.int16)
    for number in range(MOST):
        lines, columns = np.nonzero(order == number + 1)
        if len(lines):
            found[number] = (columns.min(), lines.min(), columns.max() + 1, lines.max() + 1)
    return found


def build(workshop: Workshop, *, train: int, validation: int, test: int, seed: int) -> None:
    """Compose all scenes; photos and objects are dealt to the splits first."""
    random = np.random.RandomState(seed)
    noto, files = workshop.read(NOTO), workshop.read(WALLPAPERS)
    drawings = iconify_drawings(noto)
    things = [e for e in catalogue(noto) if e.group in CLASSES and not e.toned and e.code in drawings]
    shown = tracked(things, workshop.display, "drawing objects", len(things))
    drawn = [drawing(drawings[thing.code], SIZE) for thing in shown]
    kinds = np.array([CLASSES.index(thing.group) for thing in things])
    grounds = {name.rpartition("/")[2]: photo_within(content, PHOTO_SIDE) for name, content in files.items()}
    object_splits = divide_groups([thing.base for thing in things], random)
    photo_splits = divide_groups(sorted(grounds), random)
    codes = np.array([thing.code for thing in things])
    with workshop.store(
        [
            Source("photo", (3, SIZE, SIZE), likelihood="laplace", scale=0.1),
            Source("edges", (1, SIZE, SIZE), likelihood="laplace", scale=0.1),
            Source("order", (1, SIZE, SIZE), likelihood="categorical", categories=MOST + 1),
        ],
        {"train": train, "validation": validation, "test": test},
        shared_content=True,
        class_names=CLASSES,
    ) as splits:
        for split, rows in (("train", train), ("validation", validation), ("test", test)):
            names = [sorted(grounds)[place] for place in photo_splits[split]]
            columns: dict[str, list[np.ndarray]] = {key: [] for key in ("boxes", "classes", "classes_map", "object")}
            columns["ground"] = []
            for row in tracked(range(rows), workshop.display, f"composing {split} rows", rows):
                name = names[random.randint(len(names))]
                chosen = _choose(object_splits[split], kinds, random)
                scene = _scene(grounds[name], [drawn[place] for place in chosen], random)
                seen = [chosen[place] for place in scene.kept]
                classes = np.array([*kinds[seen], *[-1] * (MOST - len(seen))], dtype=np.int8)
                values = splits[split].values
                values["photo"][row] = channels_first(scene.picture)
                values["edges"][row] = edges(scene.picture)
                values["order"][row] = scene.order
                columns["boxes"].append(boxes(scene.order))
                columns["classes"].append(classes)
                columns["classes_map"].append(np.array([0, *(classes + 1)], dtype=np.uint8)[scene.order])
                columns["object"].append(np.array([*codes[seen], *[""] * (MOST - len(seen))], dtype=codes.dtype))
                columns["ground"].append(np.array(name))
            for present in splits[split].present.values():
                present[:] = True
            splits[split].columns.update({key: np.stack(found) for key, found in columns.items()})


def _choose(pool: np.ndarray, kinds: np.ndarray, random: np.random.RandomState) -> list[int]:
    """One to three objects of a split, every class as often as the others."""
    chosen = []
    for _ in range(random.randint(1, MOST + 1)):
        of_kind = pool[kinds[pool] == random.randint(len(CLASSES))]
        chosen.append(int(of_kind[random.randint(len(of_kind))]))
    return chosen


def _scene(ground: np.ndarray, drawn: Sequence[np.ndarray], random: np.random.RandomState) -> Scene:
    """A random crop of the photo, half of the time mirrored, and objects of random size wholly within it."""
    top, left = (random.randint(length - SIZE + 1) for length in ground.shape[:2])
    crop = ground[top : top + SIZE, left : left + SIZE]
    crop = crop[:, ::-1] if random.randint(2) else crop
    objects, places = [], []
    for thing in drawn:
        side = random.randint(SMALLEST, LARGEST + 1)
        objects.append(np.asarray(Image.fromarray(thing).resize((side, side), Image.Resampling.LANCZOS)))
        places.append((random.randint(SIZE - side + 1), random.randint(SIZE - side + 1)))
    return compose(crop, objects, places)


SET = KnownSet(
    name="scenes",
    what="composed scenes, 64x64: one to three emoji on a photo, its edges, and the depth order of every pixel",
    options={
        "train": Option(10_000, "training rows", 1, 60_000),
        "validation": Option(1_000, "validation rows", 1, 10_000),
        "test": Option(2_000, "test rows", 1, 10_000),
        "seed": SEED,
    },
    licence="mixed: Apache-2.0 (Noto), CC BY 4.0, CC BY-SA 4.0 and CC0 (photos)",
    split_rule="by identity: a photo, and an emoji in all its genders and directions, are in one split, dealt at "
    "random with the seed, 70 % to training, 10 % to validation, 20 % to test",
    build=build,
    packages=(NOTO, WALLPAPERS),
    checksum="c50b0155319c28782e8ffa90e3ca1f8db4fcc2837fd1a3ff6ebe5020175734c2",
)
