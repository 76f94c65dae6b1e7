"""Image files in, image files out: folders of PNG files that fit a source."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from msvae.errors import DataError
from msvae.source import Source, SourceBatch, source_named

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def image_files(path: Path) -> list[Path]:
    """The image files that a path means: itself, or those in a folder, by name.

    Raises:
        DataError: if there is none.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"The folder {path} holds no image ({', '.join(SUFFIXES)}).")
        return files
    if not path.exists():
        raise DataError(f"There is no file or folder {path}.")
    return [path]


def read_images(files: Sequence[Path], source: Source) -> Float[Tensor, "rows *shape"]:
    """Images of one source from 8-bit files, in the source's value range.

    Raises:
        DataError: naming the source and the file that cannot be read, or whose size or channels do not fit.
    """
    return torch.stack([_read(file, source) for file in files])


def _read(file: Path, source: Source) -> Tensor:
    _refuse_vectors(source)
    try:
        with Image.open(file) as image:
            image.load()
            bands = image.mode
            array = np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"Source {source.name!r}: {file} cannot be read as an image ({error}).") from None
    if array.dtype != np.uint8 or bands not in MODES.values():
        raise DataError(
            f"Source {source.name!r}: {file} has mode {bands}; expected 8-bit {' or '.join(MODES.values())}."
        )
    pixels = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    if pixels.shape != source.shape:
        raise DataError(
            f"Source {source.name!r}: {file} is {pixels.shape[2]}x{pixels.shape[1]} with {pixels.shape[0]} channels; "
            f"expected {source.shape[2]}x{source.shape[1]} with {source.shape[0]}."
        )
    if source.categories is not None:
        largest = int(pixels.max())
        if largest >= source.categories:
            raise DataError(
                f"Source {source.name!r}: {file} holds class {largest}; expected 0 to {source.categories - 1}."
            )
        return torch.from_numpy(pixels.astype(np.float32))
    return source.denormalise(torch.from_numpy(pixels.astype(np.float32) / 255.0))


def to_pixels(images: Float[Tensor, "rows channels height width"], source: Source) -> np.ndarray:
    """uint8 (rows, height, width[, channels]) for files and screens; class numbers stay as they are."""
    _refuse_vectors(source)
    values = images if source.categories is not None else source.normalise(images).clamp(0, 1) * 255
    array = values.round().to(torch.uint8).cpu().numpy()
    return array[:, 0] if array.shape[1] == 1 else np.moveaxis(array, 1, -1)


def write_images(
    folder: Path, images: Float[Tensor, "rows channels height width"], source: Source, names: Sequence[str]
) -> list[Path]:
    """One PNG file per row, `folder/name.png`; files of the same name are replaced.

    Raises:
        DataError: if a file cannot be written, or the source has no pictures.
    """
    written = []
    pixels = to_pixels(images, source)
    if source.shape[0] not in MODES:
        raise DataError(
            f"Source {source.name!r} has {source.shape[0]} channels; PNG holds {', '.join(map(str, MODES))}."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in zip(names, pixels, strict=True):
            path, partial = folder / f"{name}.png", folder / f".{name}.part"
            Image.fromarray(picture).save(partial, format="PNG")
            partial.replace(path)
            written.append(path)
    except OSError as error:
        raise DataError(f"Cannot write into {folder}: {error.strerror or error}.") from None
    return written


def _refuse_vectors(source: Source) -> None:
    if not source.is_image:
        raise DataError(f"Source {source.name!r} is a vector of shape {source.shape}, not an image.")


def read_rows(given: Mapping[str, Path], sources: Sequence[Source]) -> tuple[SourceBatch, list[str]]:
    """Rows out of a file or a folder per source, and their names.

    One file per source makes one row. Folders make a row of every file stem; a source that has no file of that stem
    is absent from the row.

    Raises:
        DataError: for files that cannot be read, or one file beside a folder.
    """
    if all(path.is_file() for path in given.values()):
        values = {name: read_images([path], source_named(sources, name)) for name, path in given.items()}
        return SourceBatch.complete(values), [next(iter(given.values())).stem]
    files: dict[str, dict[str, Path]] = {}
    for name, path in given.items():
        if path.is_file():
            raise DataError(f"Source {name!r}: {path} is a file, others are folders; give files or folders for all.")
        found = image_files(path)
        files[name] = {file.stem: file for file in found}
        if len(files[name]) < len(found):
            raise DataError(f"Source {name!r}: two files in {path} have the same name but for their endings.")
    stems = sorted(set().union(*files.values()))
    values, present = {}, {}
    for name, by_stem in files.items():
        source = source_named(sources, name)
        has_it = torch.tensor([stem in by_stem for stem in stems])
        values[name] = torch.zeros(len(stems), *source.shape)
        values[name][has_it] = read_images([by_stem[stem] for stem in stems if stem in by_stem], source)
        present[name] = has_it
    return SourceBatch(values, present), stems
