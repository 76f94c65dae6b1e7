"""A stereo pair: tiles of the left and the right picture and the disparity, from which depth follows."""

import io

import numpy as np

from msvae.data.fetch import Package
from msvae.data.sets.dividing import corners, tiles
from msvae.data.sets.known import KnownSet, Option, Workshop
from msvae.data.sets.pictures import photo
from msvae.source import Source

SIZE = 64
REACH = 24.0  # pixels of disparity on both sides of a tile's own
LEAST_KNOWN = 0.75
#: Bands of lines of a split: disparity runs along lines, so what is in other lines is nowhere in these.
BANDS = {"train": ((0, 180), (288, 400)), "validation": ((408, 500),), "test": ((188, 280),)}
MEASURED_STRIDE = 8
FOLDER = "skimage/data"
FILES = {name: f"{FOLDER}/motorcycle_{name}" for name in ("left.png", "right.png", "disp.npz")}
MOTORCYCLE = Package(
    client="pip",
    name="scikit-image",
    version="0.26.0",
    members=tuple(FILES.values()),
    sha256="f0e6705b35e132de68a3a6f688571ee267bd562339beaf82b34948a7dfcc1084",
    megabytes=13.7,
    licence="Middlebury stereo data 2014, CC0, D. Scharstein et al.",
)


def build(workshop: Workshop, *, stride: int) -> None:
    """Cut tiles whose left and right halves show the same: the right one is moved by the tile's median disparity."""
    files = workshop.read(MOTORCYCLE)
    left, right = photo(files[FILES["left.png"]]), photo(files[FILES["right.png"]])
    disparity = next(iter(np.load(io.BytesIO(files[FILES["disp.npz"]])).values()))
    known = np.isfinite(disparity)
    places, splits, count = [], {}, 0
    for split, bands in BANDS.items():
        step = stride if split == "train" else MEASURED_STRIDE
        found = np.concatenate([corners(top, 0, bottom, left.shape[1], SIZE, step) for top, bottom in bands])
        found = found[tiles(known, found, SIZE).mean(axis=(1, 2, 3)) >= LEAST_KNOWN]
        found = found[_shift(disparity, found) <= found[:, 1]]
        places.append(found)
        splits[split] = np.arange(count, count + len(found))
        count += len(found)
    everywhere = np.concatenate(places)
    shift = _shift(disparity, everywhere)
    relative = tiles(np.where(known, disparity, np.nan), everywhere, SIZE) - shift[:, None, None, None]
    unknown = ~np.isfinite(relative)
    scaled = np.where(unknown, 0.5, (relative / REACH).clip(-1, 1) / 2 + 0.5)
    workshop.save(
        [
            Source("left", (3, SIZE, SIZE), likelihood="laplace", scale=0.1),
            Source("right", (3, SIZE, SIZE), likelihood="laplace", scale=0.1),
            Source("disparity", (1, SIZE, SIZE), likelihood="laplace", scale=0.1, value_range=(-REACH, REACH)),
        ],
        {
            "left": tiles(left, everywhere, SIZE),
            "right": tiles(right, everywhere - np.stack([0 * shift, shift], axis=1), SIZE),
            "disparity": np.round(255 * scaled).astype(np.uint8),
        },
        splits,
        columns={"corner": everywhere.astype(np.int32), "shift": shift.astype(np.int32), "unknown": unknown},
    )


def _shift(disparity: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The median disparity of every tile, in whole pixels."""
    cut = tiles(np.where(np.isfinite(disparity), disparity, np.nan), places, SIZE)
    return np.round(np.nanmedian(cut.reshape(len(cut), -1), axis=1)).astype(np.int64)


SET = KnownSet(
    name="stereo",
    what="tiles of a stereo pair, 64x64: left, right (moved by a tile's median disparity) and the disparity about that",
    options={"stride": Option(8, "pixels between training tiles", 2, 64)},
    licence="CC0, Middlebury stereo data 2014",
    split_rule="by bands of lines of the one scene there is, 8 lines apart: lines 188 to 280 are test, 408 to 500 "
    "validation, the others training; disparity runs along lines, so no pixel of either picture is in two splits",
    build=build,
    packages=(MOTORCYCLE,),
    checksum="697098669807ebd8c3f2b8880001271c5d3e9dae69dbf9c17cd09a23561ed1a6",
)
