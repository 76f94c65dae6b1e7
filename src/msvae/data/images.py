"""Image files in, image files out: files and folders that fit a source, for questions and their answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msvae.data.base import in_range
from msvae.data.formats import IMAGE_FORMATS, Format, Reading, UnreadableError, image_format, read_header, split_name
from msvae.data.formats import read_images as read_file
from msvae.data.own.layout import row_name
from msvae.data.own.pixels import form_of, stored
from msvae.data.writing import file_numbers, write_numbers
from msvae.errors import DataError
from msvae.source import Source, SourceBatch, source_named


def image_files(path: Path) -> list[Path]:
    """The image files that a path means: itself, or those in a folder, by name.

    Raises:
        DataError: if there is none.
    """
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if image_format(f.name) is not None and not f.name.startswith("."))
        if not files:
            raise DataError(f"The folder {path} holds no image ({', '.join(known_endings())}).")
        return files
    if not path.exists():
        raise DataError(f"There is no file or folder {path}.")
    return [path]


def known_endings() -> list[str]:
    """Endings of image files."""
    return [suffix for known in IMAGE_FORMATS for suffix in known.suffixes]


def read_images(files: Sequence[Path], source: Source) -> Float[Tensor, "rows *shape"]:
    """Images of one source from its files, in the source's value range; a volume or a file of pages gives several.

    Raises:
        DataError: naming the source and the file that cannot be read, or does not fit.
    """
    _refuse_vectors(source)
    return torch.cat([_read(file, source) for file in files])


def _reading(source: Source) -> Reading:
    form = form_of(source)
    return Reading(
        colour=form.colour,
        classes=source.categories is not None,
        axis=form.axis,
        pages=form.pages,
        channels_last=form.channels_last,
        size=(source.shape[1], source.shape[2]),
    )


def _format(file: Path, source: Source) -> Format:
    known = image_format(file.name)
    if known is None:
        raise DataError(f"Source {source.name!r}: {file} is no image file ({', '.join(known_endings())}).")
    return known


def _read(file: Path, source: Source) -> Tensor:
    try:
        images = [stored(image, source) for image in read_file(file, _format(file, source), _reading(source))]
    except UnreadableError as error:
        raise DataError(f"Source {source.name!r}: {file} cannot be used: {error}.") from None
    return in_range(torch.from_numpy(np.stack(images)), source)


def _row_names(file: Path, source: Source) -> list[str]:
    """The rows that a file holds: its stem, or the stem and a number for each image."""
    stem = split_name(file.name)[0]
    try:
        count = read_header(file, _format(file, source), _reading(source)).count
    except UnreadableError as error:
        raise DataError(f"Source {source.name!r}: {file} cannot be used: {error}.") from None
    return [stem] if count is None else [f"{stem}_{number:05d}" for number in range(count)]


def to_pixels(images: Float[Tensor, "rows channels height width"], source: Source) -> np.ndarray:
    """uint8 (rows, height, width[, channels]) for files and screens; class numbers stay as they are."""
    _refuse_vectors(source)
    values = images if source.categories is not None else source.normalise(images).clamp(0, 1) * 255
    array = values.round().to(torch.uint8).cpu().numpy()
    return array[:, 0] if array.shape[1] == 1 else np.moveaxis(array, 1, -1)


def write_images(
    folder: Path, images: Float[Tensor, "rows channels height width"], source: Source, names: Sequence[str]
) -> list[Path]:
    """One file per row in the form of the source's own files, `folder/name.png` by default; files of the same name are
    replaced.

    Raises:
        DataError: if a file cannot be written, or the source has no pictures.
    """
    _refuse_vectors(source)
    return write_numbers(folder, file_numbers(images, source), source, names)


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
        counts = {name: len(images) for name, images in values.items()}
        if len(set(counts.values())) > 1:
            raise DataError(f"The files hold different numbers of images: {counts}.")
        name, path = next(iter(given.items()))
        return SourceBatch.complete(values), _row_names(path, source_named(sources, name))
    found: dict[str, list[tuple[Path, list[str]]]] = {}
    for name, path in given.items():
        if path.is_file():
            raise DataError(f"Source {name!r}: {path} is a file, others are folders; give files or folders for all.")
        source = source_named(sources, name)
        found[name] = [(file, [row_name(row) for row in _row_names(file, source)]) for file in image_files(path)]
        rows = [row for _, names in found[name] for row in names]
        if len(set(rows)) < len(rows):
            raise DataError(f"Source {name!r}: two files in {path} have the same name but for their endings.")
    every = sorted({row for entries in found.values() for _, names in entries for row in names})
    position = {row: number for number, row in enumerate(every)}
    values, present = {}, {}
    for name, entries in found.items():
        source = source_named(sources, name)
        values[name] = torch.zeros(len(every), *source.shape)
        present[name] = torch.zeros(len(every), dtype=torch.bool)
        for file, names in entries:
            at = torch.tensor([position[row] for row in names])
            values[name][at] = read_images([file], source)
            present[name][at] = True
    return SourceBatch(values, present), every
