"""A Landsat-7 scene: visible light, near infrared and shortwave infrared of the same ground."""

import io

import numpy as np

from msvae.data.extras import extra
from msvae.data.fetch import Package
from msvae.data.sets.dividing import corners, tiles
from msvae.data.sets.known import KnownSet, Option, Workshop
from msvae.source import Source

SIZE = 32  # 912 metres
GRID = 4  # blocks a side
MARGIN = 2  # pixels left out at every edge of a block
HELD_OUT = {"validation": ((0, 2), (3, 1)), "test": ((0, 0), (1, 3), (2, 1))}
MEASURED_STRIDE = 8
BANDS = {"visible": (2, 1, 0), "near-infrared": (3,), "shortwave": (4, 5)}  # places in the file of bands 1 to 5 and 7
SHOWN_PERCENTILES = (0.5, 99.5)
SCENE = "usr/lib/R/site-library/stars/tif/L7_ETMs.tif"
STARS = Package(
    client="apt",
    name="r-cran-stars",
    version="0.6",
    members=(SCENE,),
    sha256="f63a1c02b576473114e9e99d2beb908f0f660db111d80b5a7e7b618d2636d568",
    megabytes=3.8,
    licence="package Apache-2.0 (E. Pebesma); Landsat-7 images are public domain (USGS)",
)


def build(workshop: Workshop, *, stride: int) -> None:
    """Cut tiles out of the blocks; every band is stretched by what training blocks hold."""
    scene = extra("tifffile").imread(io.BytesIO(workshop.read(STARS)[SCENE]))
    height, width = scene.shape[:2]
    places, splits, count = [], {}, 0
    for split in ("train", "validation", "test"):
        step = stride if split == "train" else MEASURED_STRIDE
        found = np.concatenate([corners(*area, SIZE, step) for area in areas(height, width)[split]])
        places.append(found)
        splits[split] = np.arange(count, count + len(found))
        count += len(found)
    known = np.concatenate(
        [scene[a:c, b:d].reshape(-1, scene.shape[2]) for a, b, c, d in areas(height, width)["train"]]
    )
    low, high = np.percentile(known, SHOWN_PERCENTILES, axis=0)
    stretched = np.round(255 * ((scene - low) / (high - low)).clip(0, 1)).astype(np.uint8)
    workshop.notes["stretch"] = {
        "0 means": [float(value) for value in low],
        "1 means": [float(value) for value in high],
        "bands": [1, 2, 3, 4, 5, 7],
    }
    everywhere = np.concatenate(places)
    workshop.save(
        [Source(name, (len(b), SIZE, SIZE), likelihood="laplace", scale=0.1) for name, b in BANDS.items()],
        {name: tiles(stretched[..., list(bands)], everywhere, SIZE) for name, bands in BANDS.items()},
        splits,
        columns={"corner": everywhere.astype(np.int32)},
        shared_content=True,
    )


def areas(height: int, width: int) -> dict[str, list[tuple[int, int, int, int]]]:
    """Top, left, bottom and right of the blocks of every split."""
    found: dict[str, list[tuple[int, int, int, int]]] = {"train": [], "validation": [], "test": []}
    for row in range(GRID):
        for column in range(GRID):
            split = next((name for name, blocks in HELD_OUT.items() if (row, column) in blocks), "train")
            edges = (height * row, width * column, height * (row + 1), width * (column + 1))
            top, left, bottom, right = (edge // GRID for edge in edges)
            found[split].append((top + MARGIN, left + MARGIN, bottom - MARGIN, right - MARGIN))
    return found


SET = KnownSet(
    name="landsat",
    what="tiles of a Landsat-7 scene, 32x32: visible light (3 bands), near infrared, shortwave infrared (2 bands)",
    options={"stride": Option(4, "pixels between training tiles (32: none overlap)", 1, 32)},
    licence="public domain (USGS), packed under Apache-2.0",
    split_rule="by blocks of a 4x4 grid over the scene with margins of 2 pixels: three blocks are test, two "
    "validation, eleven training; no pixel is in two splits",
    build=build,
    packages=(STARS,),
    checksum="3a944101b090866486f4164e2129ddfde306069d4c4e3f49765013eee7adf862",
)
