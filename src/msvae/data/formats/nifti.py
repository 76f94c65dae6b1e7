"""NIfTI volumes, through nibabel: images are the cuts along one axis, in voxel order; a fourth axis holds channels."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np

from msvae.data.formats.base import (
    File,
    Format,
    Header,
    Reading,
    UnreadableError,
    as_numbers,
    number_type,
    optional,
    refuse_giants,
)

MOST_UNPACKED = 1 << 31  # bytes of one packed volume that came out of an archive


def _opened(file: File) -> Any:
    nibabel = optional("nibabel")
    if not isinstance(file, BytesIO):
        return nibabel.Nifti1Image.from_filename(file)
    content = file.getvalue()
    if content[:2] == b"\x1f\x8b":
        import gzip

        with gzip.open(BytesIO(content)) as stream:
            content = stream.read(MOST_UNPACKED + 1)
        if len(content) > MOST_UNPACKED:
            raise UnreadableError(f"it unpacks to more than {MOST_UNPACKED:,} bytes")
    return nibabel.Nifti1Image.from_bytes(content)


def header(file: File, reading: Reading) -> Header:
    volume = _opened(file)
    shape = volume.shape
    refuse_giants(shape)
    if len(shape) not in (2, 3, 4):
        raise UnreadableError(f"a volume of shape {shape}; expected 3 axes, or a fourth of channels")
    count = None if len(shape) == 2 else int(shape[reading.axis])
    plane = shape if count is None else tuple(size for i, size in enumerate(shape[:3]) if i != reading.axis)
    scaled = (volume.dataobj.slope, volume.dataobj.inter) != (1.0, 0.0)
    dtype = "float32" if scaled else number_type(volume.header.get_data_dtype())
    affine = None if volume.affine is None else tuple(float(number) for number in volume.affine.flatten())
    if affine is not None and not np.isfinite(affine).all():
        affine = None
    return Header(count, (shape[3] if len(shape) == 4 else 1, *(int(size) for size in plane)), dtype, "", affine)


def images(file: File, reading: Reading) -> Iterator[np.ndarray]:
    head = header(file, reading)
    array = np.asanyarray(_opened(file).dataobj)
    if head.dtype == "float32":
        array = array.astype(np.float32)
    if array.ndim == 2:
        yield as_numbers(array[None])
        return
    for cut in np.moveaxis(array, reading.axis, 0):
        yield as_numbers(np.moveaxis(cut, -1, 0) if cut.ndim == 3 else cut[None])


FORMAT = Format("NIfTI", (".nii", ".nii.gz"), header, images, answers="nifti")
