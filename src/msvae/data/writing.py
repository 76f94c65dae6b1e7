"""Image files out: each source is written as its files were read: PNG, TIFF, NIfTI or NumPy, in their number type."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from msvae.data.extras import extra
from msvae.data.own.pixels import form_of
from msvae.errors import DataError
from msvae.files import whole_file
from msvae.source import FileForm, Source

PNG_CHANNELS = {"uint8": {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}, "uint16": {1: "I;16"}}
NO_FILE_NAME = re.compile(r'^\.|[/\\:*?"<>|\x00-\x1f]')  # on some system or other
CUT_OF_VOLUME = re.compile(r"(.+)_(\d{5})")


def file_numbers(images: Float[Tensor, "rows *shape"], source: Source) -> np.ndarray:
    """The numbers that stand in files: (rows, *shape) in the files' type; class numbers stay as they are."""
    form = form_of(source)
    if source.categories is not None:
        return images.round().cpu().numpy().astype(form.dtype)
    shares = source.normalise(images.double()).clamp(0, 1).cpu().numpy()
    numbers = form.low + shares * (form.high - form.low)
    return (np.rint(numbers) if form.dtype.startswith(("int", "uint")) else numbers).astype(form.dtype)


def write_numbers(folder: Path, numbers: np.ndarray, source: Source, names: Sequence[str]) -> list[Path]:
    """One file per row, `folder/name.png` or as the source's files are; cuts of a volume make one volume again. Signs
    that no file name has are written `%2F` for `/`: no row leads out of the folder.

    A volume reaches from its first written cut to its last; cuts between them that are no rows hold `low`.

    Raises:
        DataError: if a file cannot be written, or the format does not hold such images.
    """
    form = form_of(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if form.format == "nifti":
            return _write_volumes(folder, numbers, form, names)
        ending, write = WRITERS[form.format]
        if form.format == "npy" and form.channels_last and source.is_image:
            numbers = np.moveaxis(numbers, 1, -1)
        return [_whole(folder, name, ending, write, image) for name, image in zip(names, numbers, strict=True)]
    except OSError as error:
        raise DataError(f"Cannot write into {folder}: {error.strerror or error}.") from None
    except _UnsuitableError as error:
        raise DataError(f"Source {source.name!r} {error}") from None


class _UnsuitableError(Exception):
    """What a format cannot hold."""


def _whole(folder: Path, name: str, ending: str, write: Callable[[Path, np.ndarray], None], image: np.ndarray) -> Path:
    path = folder / f"{NO_FILE_NAME.sub(lambda sign: f'%{ord(sign[0]):02X}', name)}{ending}"
    with whole_file(path, flushed=False) as partial:
        write(partial, image)
    return path


def _write_png(path: Path, image: np.ndarray) -> None:
    known = PNG_CHANNELS.get(image.dtype.name, {})
    if image.ndim != 3 or image.shape[0] not in known:
        kinds = ", ".join(map(str, known)) or "no"
        raise _UnsuitableError(f"has {image.shape[0]} channels of {image.dtype}; PNG holds {kinds} such channels.")
    picture = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    Image.fromarray(np.ascontiguousarray(picture)).save(path, format="PNG")


def _write_tiff(path: Path, image: np.ndarray) -> None:
    tifffile = extra("tifffile")
    if image.shape[0] == 1:
        tifffile.imwrite(path, image[0], photometric="minisblack")
    elif image.shape[0] == 3 and image.dtype.kind == "u":
        tifffile.imwrite(path, np.ascontiguousarray(np.moveaxis(image, 0, -1)), photometric="rgb")
    else:
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="separate")


def _write_npy(path: Path, image: np.ndarray) -> None:
    np.save(path, image, allow_pickle=False)


WRITERS: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "png": (".png", _write_png),
    "tiff": (".tiff", _write_tiff),
    "npy": (".npy", _write_npy),
}


def _write_volumes(folder: Path, numbers: np.ndarray, form: FileForm, names: Sequence[str]) -> list[Path]:
    volumes: dict[str, dict[int, np.ndarray]] = {}
    for name, image in zip(names, numbers, strict=True):
        match = CUT_OF_VOLUME.fullmatch(name)
        volumes.setdefault(match[1] if match else name, {})[int(match[2]) if match else 0] = image
    affine = np.eye(4) if form.affine is None else np.array(form.affine).reshape(4, 4)
    written = []
    for name, cuts in volumes.items():
        first, last = min(cuts), max(cuts)
        blank = np.full_like(next(iter(cuts.values())), form.low)
        stack = np.stack([cuts.get(number, blank) for number in range(first, last + 1)])  # (cuts, channels, ...)
        volume = np.moveaxis(np.moveaxis(stack, 1, -1), 0, form.axis)
        volume = volume[..., 0] if volume.shape[-1] == 1 else volume
        moved = np.eye(4)
        moved[form.axis, 3] = first

        def write(path: Path, content: np.ndarray, placed: np.ndarray = affine @ moved) -> None:
            nibabel = extra("nibabel")
            nibabel.save(nibabel.Nifti1Image(content, placed, dtype=content.dtype), path)

        written.append(_whole(folder, name, ".nii.gz", write, volume))
    return written
