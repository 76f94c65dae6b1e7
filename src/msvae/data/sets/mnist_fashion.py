"""MNIST and Fashion-MNIST: a digit and a piece of clothing of the class with the digit's number."""

import numpy as np

from msvae.data.fetch import Package
from msvae.data.sets.digits import MNIST, PARTS, images_and_classes
from msvae.data.sets.known import SEED, KnownSet, Option, Workshop
from msvae.source import Source

SIZE = 28
VALIDATION_PART = 6
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
FASHION = Package(
    client="apt",
    name="dataset-fashion-mnist",
    version="0.0~git20200523",
    members=("usr/share/datasets/fashion-mnist/*-ubyte.gz",),
    sha256="c47c615c92718861105372a3c3cd2718986b1e05ee1cb7a60197f76ad86938e0",
    megabytes=30.9,
    licence="MIT, Zalando SE",
)


def build(workshop: Workshop, *, train: int, validation: int, test: int, seed: int) -> None:
    """Pair every digit with a piece of clothing; the columns tell which images of the two sets a row is made of."""
    random = np.random.RandomState(seed)
    wanted = {"train": train, "validation": validation, "test": test}
    pixels: dict[str, list[np.ndarray]] = {"digit": [], "clothing": []}
    origin: dict[str, list[np.ndarray]] = {"digit": [], "clothing": []}
    labels: list[np.ndarray] = []
    files = {"digit": workshop.read(MNIST), "clothing": workshop.read(FASHION)}
    for part in PARTS:
        both = {name: images_and_classes(content, part) for name, content in files.items()}
        orders = {name: random.permutation(len(classes)) for name, (_, classes) in both.items()}
        for split in ("train", "validation") if part == "train" else ("test",):
            pools = {name: _pool(order, split) for name, order in orders.items()}
            digits = pools["digit"][: wanted[split]]
            classes = both["digit"][1][digits]
            chosen = {"digit": digits, "clothing": _partners(classes, both["clothing"][1], pools["clothing"])}
            labels.append(classes)
            for name, index in chosen.items():
                pixels[name].append(both[name][0][index][:, None])
                origin[name].append(index.astype(np.int32))
    ends = np.cumsum([len(part) for part in labels])
    workshop.save(
        [Source(name, (1, SIZE, SIZE), likelihood="laplace", scale=0.1) for name in pixels],
        {name: np.concatenate(parts) for name, parts in pixels.items()},
        {
            split: np.arange(end - len(part), end)
            for split, end, part in zip(("train", "validation", "test"), ends, labels, strict=True)
        },
        labels=np.concatenate(labels).astype(np.int64),
        columns={f"{name}_number": np.concatenate(parts) for name, parts in origin.items()},
        class_names=[f"{number} {clothing}" for number, clothing in enumerate(CLOTHES)],
    )


def _pool(order: np.ndarray, split: str) -> np.ndarray:
    """The images of a split: those of the official test set, or a part of the others."""
    held_out = len(order) // VALIDATION_PART
    return {"train": order[held_out:], "validation": order[:held_out], "test": order}[split]


def _partners(classes: np.ndarray, other_classes: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """An image of the other set for every row, of the same class, in the order of the pool; none twice before all."""
    chosen = np.empty(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        members = pool[other_classes[pool] == label]
        rows = np.flatnonzero(classes == label)
        chosen[rows] = np.resize(members, len(rows))
    return chosen


SET = KnownSet(
    name="mnist-fashion",
    what="an MNIST digit and a Fashion-MNIST image of the class with that number, 28x28 grey; only the class is shared",
    options={
        "train": Option(20_000, "training rows", 1, 50_000),
        "validation": Option(2_000, "validation rows", 1, 10_000),
        "test": Option(5_000, "test rows", 1, 10_000),
        "seed": SEED,
    },
    licence="Fashion-MNIST: MIT, Zalando SE; MNIST: no licence stated",
    split_rule="by image: test rows are made of the two official test sets, validation rows of a sixth of the official "
    "training images, training rows of the others",
    build=build,
    mixed=True,
    packages=(MNIST, FASHION),
    checksum="4e51ed51a351655da37a555450339ceb1d2c46de4c63485073ab879be4afa36c",
)
