"""The Earth in layers: colour by day, lights by night, topography, and water as a class of every pixel."""

import numpy as np

from msvae.data.fetch import Package
from msvae.data.sets.dividing import corners, tiles
from msvae.data.sets.known import KnownSet, Option, Workshop
from msvae.data.sets.pictures import photo
from msvae.source import Source

WIDTH, HEIGHT, SIZE = 2048, 1024, 64
BANDS = 16  # of 22.5 degrees of longitude, counted from 180 degrees west
TOP, BOTTOM = 85, 853  # lines between 75 degrees north and 60 south; nearer the poles the map is stretched
MARGIN = 4  # pixels left out at every edge of a band
#: Which bands are held out, so that every part of the world is in training and some of each kind in test.
HELD_OUT = {"validation": (2, 11), "test": (4, 9, 13)}
MEASURED_STRIDE = 16
WATER = 128
FOLDER = "package/example/img"
LAYERS = {
    "day": f"{FOLDER}/earth-blue-marble.jpg",
    "night": f"{FOLDER}/earth-night.jpg",
    "topography": f"{FOLDER}/earth-topology.png",
    "water": f"{FOLDER}/earth-water.png",
}
GLOBE = Package(
    client="npm",
    name="three-globe",
    version="2.45.2",
    members=tuple(LAYERS.values()),
    sha256="639a5c7e16e0f06d58bc8e26d83ecb0a78ed7513893e29c7147784d8ae128778",
    megabytes=12.6,
    licence="package MIT (V. Asturiano); the origin of its images is not stated, they look like NASA's Blue Marble, "
    "Black Marble and topography, which are free to use",
)


def build(workshop: Workshop, *, stride: int, land: int) -> None:
    """Cut tiles of 64 pixels (11 degrees) out of all layers at 2048x1024."""
    files = workshop.read(GLOBE)
    layers = {
        name: photo(files[path], "RGB" if name in ("day", "night") else "L", (WIDTH, HEIGHT))
        for name, path in LAYERS.items()
    }
    layers["water"] = (layers["water"] >= WATER).astype(np.uint8)
    places, splits, count = [], {}, 0
    for split in ("train", "validation", "test"):
        found = np.concatenate(
            [_tiles_of_band(band, stride, split) for band in range(BANDS) if split_of(band) == split]
        )
        dry = 1 - tiles(layers["water"], found, SIZE).mean(axis=(1, 2, 3))
        found = found[100 * dry >= land]
        places.append(found)
        splits[split] = np.arange(count, count + len(found))
        count += len(found)
    everywhere = np.concatenate(places)
    middle = everywhere + SIZE / 2
    workshop.save(
        [
            Source("day", (3, SIZE, SIZE), likelihood="laplace", scale=0.1),
            Source("night", (3, SIZE, SIZE), likelihood="laplace", scale=0.1),
            Source("topography", (1, SIZE, SIZE), likelihood="laplace", scale=0.1),
            Source("water", (1, SIZE, SIZE), likelihood="categorical", categories=2),
        ],
        {name: tiles(layer, everywhere, SIZE) for name, layer in layers.items()},
        splits,
        columns={
            "latitude": (90 - 180 * middle[:, 0] / HEIGHT).astype(np.float32),
            "longitude": (360 * middle[:, 1] / WIDTH - 180).astype(np.float32),
        },
        shared_content=True,
    )


def split_of(band: int) -> str:
    """The split of a band of longitude."""
    return next((split for split, bands in HELD_OUT.items() if band in bands), "train")


def _tiles_of_band(band: int, stride: int, split: str) -> np.ndarray:
    wide = WIDTH // BANDS
    step = stride if split == "train" else MEASURED_STRIDE
    return corners(TOP, band * wide + MARGIN, BOTTOM, (band + 1) * wide - MARGIN, SIZE, step)


SET = KnownSet(
    name="earth",
    what="tiles of the Earth, 64x64: colour by day, lights by night, topography, and water as a class of every pixel",
    options={
        "stride": Option(8, "pixels between training tiles (64: none overlap)", 4, 64),
        "land": Option(10, "least per cent of land in a tile", 0, 100),
    },
    licence="package MIT; the origin of the images is not stated",
    split_rule="by bands of 22.5 degrees of longitude with a margin of 4 pixels: bands 4, 9 and 13 from 180 degrees "
    "west are test, 2 and 11 validation, the others training; no pixel is in two splits",
    build=build,
    packages=(GLOBE,),
    checksum="8d56532a560b56b7c55fac2295fbe2c4856b331e27105e226aa447d6da4f2281",
)
