"""Packages made by hand, and sets built from them."""

import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from msvae.data.base import DataSet, check_data
from msvae.data.fetch import Package
from msvae.data.sets import SETS, KnownSet
from msvae.data.sets.known import Workshop
from msvae.data.store import open_store
from msvae.training.progress import Quiet

Files = Mapping[str, Mapping[str, bytes]]


class HandMade(Workshop):
    """A workshop whose packages are made by the test."""

    files: Files = {}  # noqa: RUF012

    def read(self, package: Package) -> dict[str, bytes]:
        return dict(self.files[package.name])


def built_from(name: str, files: Files, folder: Path, **options: object) -> DataSet:
    known: KnownSet = SETS[name]
    chosen = known.complete(options)
    workshop = HandMade(known, chosen, folder / name, Quiet())
    object.__setattr__(workshop, "files", files)
    known.build(workshop, **chosen)
    data = open_store(folder / name)
    check_data(data)
    assert set(data.splits) == {"train", "validation", "test"}
    assert data.card["split rule"] == known.split_rule
    return data


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def mnist_files(folder: str, seed: int = 0, train: int = 360, test: int = 120) -> dict[str, bytes]:
    files = {}
    for number, (part, count) in enumerate((("train", train), ("t10k", test))):
        files[f"{folder}/{part}-images-idx3-ubyte"] = idx(noise(count, 28, 28, seed=seed + number))
        files[f"{folder}/{part}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    return files


def no_value_twice(data: DataSet, column: str) -> None:
    """No value of the column is in two splits."""
    seen = [set(np.ravel(rows.columns[column]).tolist()) - {""} for rows in data.splits.values()]
    assert all(seen)
    assert sum(map(len, seen)) == len(set().union(*seen))


GROUPS = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Smileys & Emotion", "Travel & Places")
TONED = [f"1f9{n:02x}{end}" for n in range(40, 60) for end in ("", "-1f3fb", "-1f3ff", "-200d-2640-fe0f")]


def iconify_files(codes: list[str], colour: str) -> dict[str, bytes]:
    names = {code: f"thing-{place}" for place, code in enumerate(codes)}
    body = f'<rect x="4" y="4" width="24" height="24" fill="{colour}"/>'
    icons = {"width": 32, "height": 32, "icons": {name: {"body": body} for name in names.values()}}
    groups = {group: list(names.values())[place :: len(GROUPS)] for place, group in enumerate(GROUPS)}
    return {
        "package/icons.json": json.dumps(icons).encode(),
        "package/chars.json": json.dumps(names).encode(),
        "package/metadata.json": json.dumps({"categories": groups}).encode(),
    }
