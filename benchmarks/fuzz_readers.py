"""Damaged and hostile files against every reader: nothing but msvae's own errors may come out.

    python benchmarks/fuzz_readers.py --minutes 10

Valid files of every format are cut, overwritten, spliced and stretched; tables, settings and archives too. Children do
the work, so that a crash of a C library is seen as one. Prints the figures as JSON; exits with 1 on any finding.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from msvae.data.formats import Reading, array_format, arrays_in, image_format, read_header, read_images
from msvae.data.own.finding import find_layout
from msvae.data.own.layout import read_table
from msvae.data.own.settings import OwnSettings, SourceSettings, read_settings
from msvae.errors import MsvaeError

SECONDS_AN_EXAMPLE = 20
MEMORY = 6 << 30
EXAMPLES_A_CHILD = 400
SVG = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><circle cx="12" cy="12" r="9" fill="#357"/>
<path d="M2 2 L20 9 Z" stroke="red" transform="rotate(3)"/><text x="3" y="9">a</text></svg>"""
YAML = b"""sources:
  photo: {path: photo, shape: [3, 8, 8], file_range: [0, 255], fit: exact}
split: {train: 0.8, test: 0.2}
"""


def seeds() -> dict[str, list[bytes]]:
    """Small valid files by their endings."""
    noise = np.random.default_rng(0)
    found: dict[str, list[bytes]] = {}

    def add(ending: str, content: bytes) -> None:
        found.setdefault(ending, []).append(content)

    colour = noise.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    for ending, name in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".bmp", "BMP")):
        for picture in (Image.fromarray(colour), Image.fromarray(colour[..., 0])):
            stream = io.BytesIO()
            picture.save(stream, name)
            add(ending, stream.getvalue())
    for picture in (Image.fromarray(colour).convert("P"), Image.fromarray(noise.integers(0, 65536, (9, 9), np.uint16))):
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        add(".png", stream.getvalue())
    import h5py
    import nibabel
    import tifffile

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for array in (colour, colour.astype(np.uint16) * 99, noise.random((4, 9, 8), np.float32)):
            colours = "rgb" if array.dtype.kind == "u" else "minisblack"
            tifffile.imwrite(place / "x.tif", array, photometric=colours)
            add(".tif", (place / "x.tif").read_bytes())
        tifffile.imwrite(place / "x.tif", colour, photometric="rgb", compression="zlib", tile=(16, 16))
        add(".tif", (place / "x.tif").read_bytes())
        volume = nibabel.Nifti1Image(noise.integers(0, 900, (7, 6, 5)).astype(np.int16), np.eye(4))
        for ending in (".nii", ".nii.gz"):
            nibabel.save(volume, place / f"x{ending}")
            add(ending, (place / f"x{ending}").read_bytes())
        np.save(place / "x.npy", colour)
        add(".npy", (place / "x.npy").read_bytes())
        np.savez_compressed(place / "x.npz", images=colour[None], present=np.array([True]))
        add(".npz", (place / "x.npz").read_bytes())
        with h5py.File(place / "x.h5", "w") as file:
            file.create_dataset("photo", data=colour[None], chunks=True, compression="gzip")
            file["labels"] = np.array([1])
        add(".h5", (place / "x.h5").read_bytes())
    add(".svg", SVG)
    add(".csv", b"row,split,photo,label\n1,train,a/1.png,x\n2,test,../b.png,y\n")
    add(".yaml", YAML)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("1.photo.png", "../2.photo.png", "1.cls"):
            member = tarfile.TarInfo(name)
            member.size = len(found[".png"][0])
            archive.addfile(member, io.BytesIO(found[".png"][0]))
    add(".tar", stream.getvalue())
    return found


def damaged(content: bytes, other: bytes, choose: Any) -> bytes:
    """The bytes after one to four accidents; `choose(low, high)` gives whole numbers."""
    mutable = bytearray(content)
    for _ in range(choose(1, 4)):
        length = len(mutable)
        if length == 0:
            break
        at = choose(0, length - 1)
        # heads say sizes and types: most accidents happen there
        at = at if choose(0, 2) == 0 else min(at, choose(0, 400))
        kind = choose(0, 6)
        if kind == 0:
            del mutable[at:]
        elif kind == 1:
            mutable[at] ^= 1 << choose(0, 7)
        elif kind == 2:
            mutable[at : at + choose(1, 8)] = bytes(choose(0, 255) for _ in range(choose(1, 8)))
        elif kind == 3:
            mutable[at : at + 4] = [b"\xff" * 4, b"\x00" * 4, b"\x7f" + b"\xff" * 3][choose(0, 2)]
        elif kind == 4:
            del mutable[at : at + choose(1, 64)]
        elif kind == 5:
            mutable[at:at] = mutable[at : at + choose(1, 64)]
        else:
            start = choose(0, max(0, len(other) - 1))
            mutable[at : at + 32] = other[start : start + 32]
    return bytes(mutable)


def attack(folder: Path, ending: str, content: bytes, choose: Any) -> str:
    """Read the bytes in every way a user could; returns `read` or `refused`, and raises on anything else."""
    file = folder / f"x{ending}"
    file.write_bytes(content)
    try:
        if ending == ".csv":
            read_table(file)
            find_layout(file, None)
        elif ending == ".yaml":
            settings = read_settings(file)
            if settings is not None:
                for name, described in settings.sources.items():
                    described.source(name)
        elif ending == ".tar":
            _read_shard(file)
        else:
            _read(file, content, choose)
    except MsvaeError:
        return "refused"
    return "read"


def _read_shard(file: Path) -> None:
    from msvae.data.own.cache import trial

    layout = find_layout(file, None)
    described = SourceSettings(path="photo", shape=(3, 12, 10), file_range=(0, 255))
    settings = OwnSettings(sources=dict.fromkeys(layout.origins, described), split={"train": 1.0})
    trial(layout, settings, lambda title, done, total: None)


def _read(file: Path, content: bytes, choose: Any) -> None:
    reading = Reading(
        colour=("as_is", "grey", "rgb", "rgba")[choose(0, 3)],
        classes=choose(0, 5) == 0,
        axis=choose(0, 2),
        pages=("rows", "channels")[choose(0, 1)],
        size=(16, 12) if choose(0, 1) else None,
    )
    known = image_format(file.name)
    if known is not None:
        for source in (file, io.BytesIO(content)):
            header = read_header(source, known, reading)
            images = list(read_images(source, known, reading))
            assert header.count is None or len(images) == header.count
            for image in images:
                assert image.dtype.name == header.dtype, (image.dtype, header)
                assert image.shape == header.shape, (image.shape, header)
    known = array_format(file.name)
    if known is not None:
        for name, (shape, kind) in arrays_in(file, known).items():
            if len(shape) < 2 or kind == "text":
                continue
            chosen = Reading(array=name or None)
            header = read_header(file, known, chosen)
            assert sum(1 for _ in read_images(file, known, chosen)) == header.count


def _child(seed: int, deadline: float, channel: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def too_long(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {SECONDS_AN_EXAMPLE} s")

    signal.signal(signal.SIGALRM, too_long)
    source = random.Random(seed)
    valid = seeds()
    everything = [content for contents in valid.values() for content in contents]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(EXAMPLES_A_CHILD):
            if time.monotonic() > deadline:
                break
            ending = source.choice(list(valid))
            content = damaged(source.choice(valid[ending]), source.choice(everything), source.randint)
            channel.send(("trying", ending, content))
            signal.alarm(SECONDS_AN_EXAMPLE)
            try:
                counts[f"{ending} {attack(Path(folder), ending, content, source.randint)}"] += 1
            except BaseException as error:
                channel.send(("found", ending, content, f"{type(error).__name__}: {error}"))
            finally:
                signal.alarm(0)
    channel.send(("done", dict(counts)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for files that broke a reader")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    findings: list[str] = []
    began = time.monotonic()
    deadline, seed = began + 60 * options.minutes, options.seed
    spawn = multiprocessing.get_context("spawn" if sys.platform == "win32" else "fork")
    while time.monotonic() < deadline:
        here, there = spawn.Pipe(duplex=False)
        child = spawn.Process(target=_child, args=(seed, deadline, there))
        child.start()
        there.close()
        last: tuple[str, bytes] = ("", b"")
        finished = False
        while True:
            try:
                if not here.poll(3 * SECONDS_AN_EXAMPLE):  # a loop in a C library, which no signal ends
                    child.kill()
                    break
                message = here.recv()
            except EOFError:
                break
            if message[0] == "trying":
                last = message[1:]
            elif message[0] == "done":
                counts.update(message[1])
                finished = True
            else:
                _keep(options.keep, findings, message[1], message[2], message[3])
        child.join()
        if not finished:
            _keep(options.keep, findings, last[0], last[1], f"the process ended with {child.exitcode}")
        seed += 1
    answer = {
        "seconds": round(time.monotonic() - began, 1),
        "examples": sum(counts.values()) + len(findings),
        "by_format": dict(sorted(counts.items())),
        "findings": findings,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(answer, indent=1))
    return 1 if findings else 0


def _keep(folder: Path, findings: list[str], ending: str, content: bytes, words: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{len(findings):04d}{ending}"
    file.write_bytes(content)
    findings.append(f"{file}: {words}"[:300])
    print(findings[-1], file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
