"""A source is a named view of one thing; a batch says which sources are present in which row."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from msvae.errors import SourceError, unknown
from msvae.subsets import rows_of_each

UNIT = (0.0, 1.0)  # the value range that models see
FITS = ("exact", "resize", "crop", "pad", "cover", "contain")
COLOURS = ("as_is", "grey", "rgb", "rgba")
FILE_DTYPES = ("uint8", "uint16", "int16", "int32", "float32", "float64")


@dataclass(frozen=True)
class FileForm:
    """What the files of a source hold and how they are read, so that answers are written as the data were read.

    Args:
        format: `png`, `tiff`, `nifti` or `npy`: what answers are written as. Formats that lose values (JPEG, WebP)
            and drawings (SVG) answer as PNG.
        dtype: of the numbers in a file.
        low, high: the numbers in a file that stand for the two ends of the source's value range.
        fit: what happens to an image of another size: `exact` refuses it; `resize` scales it, whatever its
            proportions; `crop` cuts out the middle; `pad` puts it in the middle; `cover` scales it to cover the size
            and cuts; `contain` scales it to lie within the size and pads.
        fill: the number that padding has; `low` when None.
        colour: `as_is`, or turned into `grey`, `rgb` (transparent parts become white) or `rgba`.
        channels: only these channels or bands of a file, counted from 0, in this order.
        clip: whether numbers outside low..high are moved to the nearer end; else they are refused.
        nan: what stands for NaN in a file; without it NaN is refused.
        pages: whether every page of a TIFF is an image (`rows`), or all are the channels of one (`channels`).
        channels_last: whether the channels of arrays come last; guessed when None.
        axis: of a volume, along which it is cut into images.
        affine: of a volume's cut images: 16 numbers, voxel to millimetre, as NIfTI has it.

    Raises:
        SourceError: if a field is out of its range.
    """

    format: str = "png"
    dtype: str = "uint8"
    low: float = 0.0
    high: float = 255.0
    fit: str = "exact"
    fill: float | None = None
    colour: str = "as_is"
    channels: tuple[int, ...] | None = None
    clip: bool = False
    nan: float | None = None
    pages: str = "rows"
    channels_last: bool | None = field(default=None, compare=False)  # how files lie, not what is in them
    axis: int = 2
    affine: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("file format", self.format, ("png", "tiff", "nifti", "npy")),
            ("number type of files", self.dtype, FILE_DTYPES),
            ("fit", self.fit, FITS),
            ("colour", self.colour, COLOURS),
            ("pages", self.pages, ("rows", "channels")),
        ):
            if value not in known:
                raise SourceError(unknown(kind, value, known))
        if not (self.low < self.high and math.isfinite(self.low) and math.isfinite(self.high)):
            raise SourceError(f"Numbers in files: expected finite low < high, got {self.low} and {self.high}.")
        if self.channels is not None:
            object.__setattr__(self, "channels", tuple(int(channel) for channel in self.channels))
            if not self.channels or min(self.channels) < 0:
                raise SourceError(f"Channels of files: expected numbers from 0 on, got {self.channels}.")
        if self.axis not in (0, 1, 2):
            raise SourceError(f"Axis of a volume: expected 0, 1 or 2, got {self.axis}.")
        if self.affine is not None:
            object.__setattr__(self, "affine", tuple(float(number) for number in self.affine))
            if len(self.affine) != 16:
                raise SourceError(f"Affine of a volume: expected 16 numbers, got {len(self.affine)}.")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "FileForm":
        known = [part.name for part in dataclasses.fields(cls)]
        for key in fields:
            if key not in known:
                raise SourceError(unknown("field of a file form", key, known))
        pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**pairs)


@dataclass(frozen=True)
class Source:
    """What one source is. Saved with every checkpoint.

    Args:
        name: how every question, file and table calls it; letters, digits, `-` and `_`.
        shape: `(channels, height, width)` of an image, or `(features,)` of a vector.
        likelihood: a name in `msvae.likelihoods`: `normal`, `laplace`, `bernoulli` or `categorical`.
        scale: noise scale of `normal` and `laplace`, as a share of the value range.
        value_range: smallest and largest value of the user's data; models see it mapped to [0, 1].
        categories: number of classes of a categorical source, whose values are 0..categories-1.
        files: what its files hold; None: 8-bit images whose 255 steps divide the value range.

    Raises:
        SourceError: if a field is out of its range.
    """

    name: str
    shape: tuple[int, ...]
    likelihood: str = "laplace"
    scale: float = 0.1
    value_range: tuple[float, float] = UNIT
    categories: int | None = None
    files: FileForm | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "value_range", tuple(float(end) for end in self.value_range))
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise SourceError(f"Source name {self.name!r}: expected letters, digits, '-' and '_'.")
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise SourceError(
                f"Source {self.name!r}: expected a shape (channels, height, width) or (features,), got {self.shape}."
            )
        low, high = self.value_range
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise SourceError(
                f"Source {self.name!r}: expected a finite value range low < high, got {self.value_range}."
            )
        if not 0 < self.scale < math.inf:
            raise SourceError(f"Source {self.name!r}: expected a likelihood scale > 0, got {self.scale}.")
        if self.likelihood == "categorical":
            if self.categories is None or self.categories < 2:
                raise SourceError(
                    f"Source {self.name!r}: a categorical source needs categories >= 2, got {self.categories}."
                )
            if len(self.shape) == 3 and self.shape[0] != 1:
                raise SourceError(
                    f"Source {self.name!r}: a categorical image holds one channel of class numbers, got {self.shape}."
                )
            object.__setattr__(self, "value_range", (0.0, float(self.categories - 1)))
        elif self.categories is not None:
            raise SourceError(
                f"Source {self.name!r}: only a categorical source has categories, this one is {self.likelihood}."
            )

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    @property
    def tolerated_range(self) -> tuple[float, float]:
        """What values may be without complaint: the value range, and a thousandth of it beyond for rounding, by which
        no class becomes another one."""
        low, high = self.value_range
        slack = min(1e-3 * (high - low), 0.49 if self.categories else math.inf)
        return low - slack, high + slack

    def are_classes(self, values: Tensor) -> Tensor:
        """Whether values are whole numbers, but for what is tolerated: a number between two classes is none."""
        if not values.is_floating_point():
            return torch.ones_like(values, dtype=torch.bool)
        return (values - values.round()).abs() <= self.value_range[0] - self.tolerated_range[0]

    @property
    def value_count(self) -> int:
        """Number of values in one image of this source."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    def normalise(self, values: Tensor) -> Tensor:
        """The user's values, mapped from the value range to [0, 1]; the very same where that is their range."""
        low, high = self.value_range
        if (low, high) == UNIT:
            return values
        return (values - low) / (high - low)

    def denormalise(self, values: Tensor) -> Tensor:
        """The inverse of `normalise`: from [0, 1] back to the user's value range."""
        low, high = self.value_range
        return values if (low, high) == UNIT else values * (high - low) + low

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Source":
        known = [part.name for part in dataclasses.fields(cls)]
        for key in fields:
            if key not in known:
                raise SourceError(f"Source {fields.get('name', '?')!r}: {unknown('field', key, known)}")
        pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        if isinstance(pairs.get("files"), Mapping):
            pairs["files"] = FileForm.from_dict(pairs["files"])
        return cls(**pairs)


def source_named(sources: Iterable[Source], name: str) -> Source:
    """The source of that name.

    Raises:
        SourceError: naming the known sources and the nearest one.
    """
    sources = list(sources)
    for source in sources:
        if source.name == name:
            return source
    raise SourceError(unknown("source", name, [source.name for source in sources]))


@dataclass(frozen=True)
class SourceBatch:
    """Rows of several sources, with explicit presence.

    Args:
        values: `{name: (rows, *shape)}` in each source's own value range. Where a source is absent its values
            are never read: anything may stand there, NaN included.
        present: `{name: (rows,) bool}`; a source that is not named is absent from every row.
    """

    values: dict[str, Tensor]
    present: dict[str, Bool[Tensor, " rows"]]

    @classmethod
    def complete(cls, values: Mapping[str, Tensor]) -> "SourceBatch":
        """A batch in which every named source is present in every row."""
        present = {
            name: torch.ones(len(tensor), dtype=torch.bool, device=tensor.device) for name, tensor in values.items()
        }
        return cls(dict(values), present)

    def __len__(self) -> int:
        return len(next(iter(self.present.values()))) if self.present else 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    @property
    def device(self) -> torch.device:
        return next(iter(self.present.values())).device

    def to(self, device: torch.device | str) -> "SourceBatch":
        return SourceBatch(
            {name: tensor.to(device) for name, tensor in self.values.items()},
            {name: tensor.to(device) for name, tensor in self.present.items()},
        )

    def select(self, names: Iterable[str]) -> "SourceBatch":
        """The same rows with only the named sources."""
        names = list(names)
        for name in names:
            if name not in self.values:
                raise SourceError(unknown("source", name, self.values))
        return SourceBatch({name: self.values[name] for name in names}, {name: self.present[name] for name in names})

    def rows(self, index: Tensor | slice) -> "SourceBatch":
        """Some of the rows, in the order of `index`."""
        return SourceBatch(
            {name: tensor[index] for name, tensor in self.values.items()},
            {name: tensor[index] for name, tensor in self.present.items()},
        )

    def presence(self, names: Sequence[str]) -> Bool[Tensor, "sources rows"]:
        """Presence as one matrix, a source a line, in the order of `names`."""
        absent = torch.zeros(len(self), dtype=torch.bool, device=self.device)
        return torch.stack([self.present.get(name, absent) for name in names])

    def restricted(self, kept: Bool[Tensor, "sources rows"], names: Sequence[str]) -> "SourceBatch":
        """The same rows without what is not kept; a source a line of it, in the order of `names`."""
        lines = dict(zip(names, kept, strict=True))
        return SourceBatch(self.values, {name: there & lines[name] for name, there in self.present.items()})


def check_batch(batch: SourceBatch, sources: Sequence[Source], *, allow_empty_rows: bool = False) -> None:
    """Refuse a batch that does not fit the sources; absent values are not looked at.

    Raises:
        SourceError: for an unknown source, a wrong shape or type, unequal lengths, values out of range or NaN where
            a source is present, no row at all, or (unless `allow_empty_rows`) a row without any source.
    """
    if not batch.present:
        raise SourceError(f"The batch holds no source; expected some of: {', '.join(s.name for s in sources)}.")
    rows = len(batch)
    if rows == 0:
        raise SourceError("The batch holds no rows.")
    if set(batch.values) != set(batch.present):
        odd = ", ".join(sorted(set(batch.values) ^ set(batch.present)))
        raise SourceError(f"Values and presence must name the same sources; only in one of them: {odd}.")
    for name, values in batch.values.items():
        _check_form(values, batch.present[name], source_named(sources, name), rows)
    _check_values(batch, sources)
    if not allow_empty_rows:
        any_present = batch.presence(list(batch.values)).any(dim=0)
        if not bool(any_present.all()):
            row = int((~any_present).nonzero()[0])
            raise SourceError(f"Row {row} of the batch has no present source; every row needs at least one.")


def _check_form(values: Tensor, present: Tensor, source: Source, rows: int) -> None:
    if tuple(values.shape[1:]) != source.shape:
        raise SourceError(
            f"Source {source.name!r}: expected images of shape {source.shape}, got {tuple(values.shape[1:])}."
        )
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        hint = " Divide by 255 first." if values.dtype == torch.uint8 and source.value_range == UNIT else ""
        raise SourceError(
            f"Source {source.name!r}: expected floating-point values in {list(source.value_range)}, got {kind}.{hint}"
        )
    if len(values) != rows or tuple(present.shape) != (rows,):
        raise SourceError(
            f"Source {source.name!r}: {len(values)} rows of values and presence of shape {tuple(present.shape)}, "
            f"where the batch has {rows} rows."
        )
    if present.dtype != torch.bool:
        raise SourceError(f"Source {source.name!r}: presence must be bool, got {present.dtype}.")


def _check_values(batch: SourceBatch, sources: Sequence[Source]) -> None:
    """A reduction a source, one more for classes, and two transfers for all: cheap enough to run in every step."""
    names, found = [], []
    rows_of = rows_of_each(batch.presence(batch.names))
    for (name, values), rows in zip(batch.values.items(), rows_of, strict=True):
        known = values if rows is None else values[rows]
        if known.numel():
            names.append(name)
            source = source_named(sources, name)
            between = known.new_zeros(()) if source.categories is None else (~source.are_classes(known)).any()
            found.append(torch.stack([*torch.aminmax(known), between.to(known.dtype)]).float())
    if not names:
        return
    for name, (lowest, highest, between) in zip(names, torch.stack(found).tolist(), strict=True):
        source = source_named(sources, name)
        (low, high), (least, most) = source.value_range, source.tolerated_range
        if lowest != lowest or highest != highest:
            raise SourceError(f"Source {name!r}: NaN in a present value. Mark the row absent, or mend the data.")
        if between:
            raise SourceError(
                f"Source {name!r}: expected class numbers {low:g} to {high:g}, got some that are not whole."
            )
        if lowest < least or highest > most:
            raise SourceError(
                f"Source {name!r}: expected values in [{low:g}, {high:g}], got [{lowest:g}, {highest:g}]. "
                "Set the source's value_range, or rescale the data."
            )
