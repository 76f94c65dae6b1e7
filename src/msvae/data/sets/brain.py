"""Slices of an average brain: T1 with grey and white matter, or T1 with the regions of an atlas."""

import gzip

import numpy as np
from PIL import Image

from msvae.data.extras import extra
from msvae.data.fetch import Package
from msvae.data.sets.known import KnownSet, Option, Workshop
from msvae.source import Source

GAP = 4  # slices (millimetres) left out on both sides of a block
#: Slices held out, as shares of those that show brain, from below to above.
HELD_OUT = {"validation": ((0.32, 0.36), (0.66, 0.70)), "test": ((0.16, 0.21), (0.48, 0.53), (0.82, 0.87))}
LEAST_BRAIN = 0.02  # share of a slice's pixels
HARDLY_SEEN, FRAME_MARGIN = 25, 4
REGIONS, AREAS = 117, 49  # of the atlas AAL and of Brodmann, with 0 for none
MNI_FOLDER, ATLAS_FOLDER = "nilearn/datasets/data", "usr/share/mricron/templates"
MNI = {
    "t1": f"{MNI_FOLDER}/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "grey": f"{MNI_FOLDER}/mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "white": f"{MNI_FOLDER}/mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
}
ATLAS = {
    "t1": f"{ATLAS_FOLDER}/ch2.nii.gz",
    "regions": f"{ATLAS_FOLDER}/aal.nii.gz",
    "areas": f"{ATLAS_FOLDER}/brodmann.nii.gz",
}
CATEGORIES = {"regions": REGIONS, "areas": AREAS}
NILEARN = Package(
    client="pip",
    name="nilearn",
    version="0.14.1",
    members=tuple(MNI.values()),
    sha256="fb973d7109b4f5992af25311d9e3b0b70c1ebe4cf44cbfd2b0c23d0d5f48c11a",
    megabytes=11.5,
    licence="ICBM 152 (2009a): free to use with notice, V. Fonov et al., McConnell Brain Imaging Centre; package BSD-3",
)
MRICRON = Package(
    client="apt",
    name="mricron-data",
    version="1.2.20211006",
    members=tuple(ATLAS.values()),
    sha256="ee7be07c1353d884d77455bbac931ca8aa028fdb23f8b368695eb6a1d4f28cea",
    megabytes=16.1,
    licence="package BSD-3-Clause (C. Rorden); the terms of the atlases AAL and Brodmann are not stated",
)


def build(workshop: Workshop, *, volume: str, size: int) -> None:
    """Cut horizontal slices, a millimetre apart."""
    names, package = (MNI, NILEARN) if volume == "average" else (ATLAS, MRICRON)
    files = workshop.read(package)
    volumes = {name: _volume(files[path]) for name, path in names.items()}
    inside = (volumes["grey"] > 127) | (volumes["white"] > 127) if volume == "average" else volumes["regions"] > 0
    brain = np.flatnonzero(inside.mean(axis=(0, 1)) >= LEAST_BRAIN)
    heights = np.arange(brain[0], brain[-1] + 1)
    frame = _frame(volumes["t1"])
    images = {
        name: np.stack([_slice(values[frame][:, :, height], size, name in CATEGORIES) for height in heights])
        for name, values in volumes.items()
    }
    sources = [
        Source(name, (1, size, size), likelihood="categorical", categories=CATEGORIES[name])
        if name in CATEGORIES
        else Source(name, (1, size, size), likelihood="laplace", scale=0.1)
        for name in names
    ]
    columns = {"height": heights.astype(np.int32)}
    workshop.save(sources, images, slice_splits(len(heights)), columns=columns, shared_content=True)


def slice_splits(count: int) -> dict[str, np.ndarray]:
    """Slices of each split: blocks are held out, and slices near them are in no split."""
    height = np.arange(count)
    splits, free = {}, np.ones(count, dtype=bool)
    for split, blocks in HELD_OUT.items():
        chosen = np.zeros(count, dtype=bool)
        for first, last in blocks:
            low, high = round(first * count), round(last * count)
            chosen[low:high] = True
            free &= (height < low - GAP) | (height >= high + GAP)
        splits[split] = np.flatnonzero(chosen)
    return {"train": np.flatnonzero(free), **splits}


def _volume(content: bytes) -> np.ndarray:
    """Values (left to right, back to front, below to above)."""
    nibabel = extra("nibabel")
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)))
    return np.asarray(image.dataobj).astype(np.uint8)


def _frame(values: np.ndarray) -> tuple[slice, slice]:
    """The part of all slices in which something is seen, with a margin."""
    seen = np.argwhere(values > HARDLY_SEEN)
    found = ((seen[:, axis].min(), seen[:, axis].max()) for axis in (0, 1))
    left_right, back_front = (slice(max(0, low - FRAME_MARGIN), high + 1 + FRAME_MARGIN) for low, high in found)
    return left_right, back_front


def _slice(values: np.ndarray, size: int, classes: bool) -> np.ndarray:
    """(1, size, size) with the front above and the left at the left; padded to a square first."""
    side = max(values.shape)
    padding = [((side - length) // 2, side - length - (side - length) // 2) for length in values.shape]
    upright = np.ascontiguousarray(np.pad(values, padding).T[::-1])
    resampling = Image.Resampling.NEAREST if classes else Image.Resampling.BOX
    return np.asarray(Image.fromarray(upright).resize((size, size), resampling))[None]


SET = KnownSet(
    name="brain",
    what="horizontal slices of an average brain: T1, grey and white matter (or T1 and the regions of two atlases)",
    options={
        "volume": Option(
            "average", "average: ICBM 152; atlas: ch2 with AAL and Brodmann", choices=("average", "atlas")
        ),
        "size": Option(96, "pixels a side", 32, 256),
    },
    licence="ICBM 152: free to use with notice; ch2: BSD-3-Clause",
    split_rule="by blocks of slices: three blocks are test, two validation, 4 slices on both sides of a block are in "
    "no split, the others are training. All slices are of one brain, so figures say nothing about other people's",
    build=build,
    packages=(NILEARN, MRICRON),
    checksum="d0da3cb5240263eb276502006d27ff64a1a59777fd72a1320617fc0ed748a2c6",
)
