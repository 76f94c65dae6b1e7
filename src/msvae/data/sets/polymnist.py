"""PolyMNIST: five sources that share nothing but the digit's class, each on crops of its own photo.

    x = p (1 - a) + (1 - p) a,    p a 28x28 crop of the source's photo, a an MNIST digit, both in [0, 1]

so that a digit is drawn as the negative of its ground. Recipe after Sutter, Daunhawer & Vogt 2021 (MoPoE-VAE), with
photos that packages hold and with grounds that differ between the splits.
"""

import numpy as np

from msvae.data.fetch import Package
from msvae.data.sets.digits import MNIST, PARTS, images_and_classes, writers
from msvae.data.sets.known import SEED, KnownSet, Option, Workshop
from msvae.data.sets.pictures import photo
from msvae.data.store import SplitWriter
from msvae.source import Source
from msvae.training.progress import tracked

SIZE = 28
PHOTOS = {
    "m0": "coffee.png",
    "m1": "hubble_deep_field.jpg",
    "m2": "chelsea.png",
    "m3": "rocket.jpg",
    "m4": "astronaut.png",
}
#: Photos are cut into a grid of blocks; a crop lies within one, and these numbers of a block, (row + 3 column) mod 10,
#: belong to a split. Neighbours differ, so that the splits have one distribution and yet share no pixel.
BLOCK = 40
BLOCKS = {"train": (0, 2, 4, 6, 8), "validation": (9,), "test": (1, 3, 5, 7)}
VALIDATION_PART = 6  # one in six of MNIST's training digits
INNER = 20
LEAST_CONTRAST = 0.3
CHUNK = 500

PICTURES = Package(
    client="pip",
    name="scikit-image",
    version="0.26.0",
    members=tuple(f"skimage/data/{file}" for file in PHOTOS.values()),
    sha256="2e0224732b75974f9a268e2b527e2a59dce569fb3d232697c836000c2cfdb5d7",
    megabytes=13.7,
    licence="coffee, chelsea, rocket: CC0 (R. Michaelson, S. van der Walt, SpaceX); hubble: public domain (NASA); "
    "astronaut: public domain (NASA)",
)


def build(workshop: Workshop, *, train: int, validation: int, test: int, seed: int) -> None:
    """Draw all rows; the columns `digits` and `crops` tell which digit and which corner each image is made of."""
    files, photos = workshop.read(MNIST), workshop.read(PICTURES)
    random = np.random.RandomState(seed)  # its streams are frozen for good, those of newer generators are not
    ink, classes = {}, {}
    for part in PARTS:
        ink[part], classes[part] = images_and_classes(files, part)
    order = random.permutation(len(ink["train"]))
    held_out = len(order) // VALIDATION_PART
    pools = {
        "train": ("train", order[held_out:]),
        "validation": ("train", order[:held_out]),
        "test": ("t10k", np.arange(len(ink["t10k"]))),
    }
    rows = {"train": train, "validation": validation, "test": test}
    sources = [Source(name, (3, SIZE, SIZE), likelihood="laplace", scale=0.1) for name in PHOTOS]
    with workshop.store(sources, rows, labelled=True, class_names=[str(digit) for digit in range(10)]) as splits:
        for split, (part, pool) in pools.items():
            digits = writers(classes[part][pool], rows[split], len(PHOTOS), random)
            writer = splits[split]
            assert writer.labels is not None
            writer.labels[:] = classes[part][pool[digits[:, 0]]]
            writer.columns["digits"] = pool[digits].astype(np.int32)
            writer.columns["crops"] = np.zeros((rows[split], len(PHOTOS), 2), dtype=np.int16)
            for number, (name, file) in enumerate(
                tracked(PHOTOS.items(), workshop.display, f"drawing {split} rows", len(PHOTOS))
            ):
                ground = photo(photos[f"skimage/data/{file}"])
                corners = _corners(ground, BLOCKS[split], rows[split], random)
                writer.columns["crops"][:, number] = corners
                _draw(writer, name, ground, corners, ink[part][pool[digits[:, number]]])


def _corners(ground: np.ndarray, blocks: tuple[int, ...], rows: int, random: np.random.RandomState) -> np.ndarray:
    """Upper left corners of crops within blocks of a split on which a digit can be seen: (rows, 2).

    A crop is kept where its inner pixels are far from middle grey: mean of max_channel |1 - 2 p| > 0.3.
    """
    contrast = np.abs(1 - 2 * (ground / 255)).max(axis=2)
    sums = np.pad(contrast.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    means = (sums[INNER:, INNER:] - sums[:-INNER, INNER:] - sums[INNER:, :-INNER] + sums[:-INNER, :-INNER]) / INNER**2
    border = (SIZE - INNER) // 2
    seen = means[border:-border, border:-border] > LEAST_CONTRAST
    tops, lefts = np.indices(seen.shape)
    within = (tops % BLOCK <= BLOCK - SIZE) & (lefts % BLOCK <= BLOCK - SIZE)
    number = (tops // BLOCK + 3 * (lefts // BLOCK)) % 10
    places = np.argwhere(seen & within & np.isin(number, blocks))
    return places[random.randint(len(places), size=rows)]


def _draw(writer: SplitWriter, name: str, photo_pixels: np.ndarray, corners: np.ndarray, ink: np.ndarray) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(photo_pixels, (SIZE, SIZE), axis=(0, 1))
    for start in range(0, len(corners), CHUNK):
        part = slice(start, start + CHUNK)
        ground = windows[corners[part, 0], corners[part, 1]] / 255.0
        stroke = ink[part, None] / 255.0
        writer.values[name][part] = np.round(255 * (ground * (1 - stroke) + (1 - ground) * stroke))
    writer.present[name][:] = True


SET = KnownSet(
    name="polymnist",
    what="MNIST digits on crops of five photos, 28x28; sources share only the class of the digit",
    options={
        "train": Option(20_000, "training rows", 1, 60_000),
        "validation": Option(2_000, "validation rows", 1, 10_000),
        "test": Option(5_000, "test rows", 1, 10_000),
        "seed": SEED,
    },
    licence="photos CC0 and public domain; digits of MNIST, see the packages",
    split_rule="by handwritten digit and by place in the photo: training digits are 50,000 of MNIST's training digits, "
    "validation digits the other 10,000, test digits those of MNIST's test set; photos are cut into blocks of 40 "
    "pixels, of which half are for training, a tenth for validation and four tenths for test crops, interleaved; no "
    "pixel of a photo is in two splits",
    build=build,
    mixed=True,
    packages=(MNIST, PICTURES),
    checksum="63844c36ac3b0144bfe6a7b8acf39903e6703d1ec1b081d5873d97ca850065b8",
    recipe=2,
)
