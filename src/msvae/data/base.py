"""A data set in memory: rows of several sources with presence and labels, in splits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from msvae.errors import DataError, unknown
from msvae.source import Source, SourceBatch, source_named

SPLITS = ("train", "validation", "test")
CHECKED_AT_ONCE = 256
STEPS = {torch.uint8: 255.0, torch.uint16: 65535.0}


@dataclass(frozen=True)
class Rows:
    """One split: the images of every source, which of them are present, and labels.

    Args:
        sources: in the order of all tables.
        values: `{source: (stored rows, *shape)}`, in memory or memory-mapped; uint8 and uint16 stand for the value
            range divided in 255 or 65,535 steps (class numbers for themselves), floats for themselves.
        present: `{source: (rows,) bool}`.
        labels: (rows,) class numbers, or None.
        columns: whatever else is known of each row, by name: captions, boxes, masks, file names; (rows, ...).
        chosen: (rows,) which of the stored rows these are, so that a choice copies no image; None for all.
    """

    sources: tuple[Source, ...]
    values: dict[str, Tensor]
    present: dict[str, Tensor]
    labels: Tensor | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    chosen: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    def batch(self, index: Tensor | slice) -> SourceBatch:
        """The rows of that index as floats in each source's value range; one indexing operation a source."""
        where = index if self.chosen is None else self.chosen[index]
        values = {source.name: in_range(self.values[source.name][where], source) for source in self.sources}
        return SourceBatch(values, {name: present[index] for name, present in self.present.items()})

    def presence(self, names: Sequence[str] | None = None) -> Bool[Tensor, "sources rows"]:
        """Presence as one matrix, a source a line, in the order of `names`; of all sources by default."""
        return torch.stack([self.present[name] for name in (self.present if names is None else names)])

    def having(self, names: Sequence[str] | None = None) -> Int[Tensor, " some"]:
        """The numbers of the rows that have all of the named sources, or simply all."""
        return self.presence(names).all(dim=0).nonzero().squeeze(1)

    def all(self) -> SourceBatch:
        """Every row at once."""
        return self.batch(slice(None))

    def only(self, names: Sequence[str]) -> "Rows":
        """The rows that have one of the named sources, with those sources alone."""
        wanted = self.presence(names).any(dim=0)
        kept = self if bool(wanted.all()) else self.take(wanted.nonzero().squeeze(1))
        return replace(
            kept,
            sources=tuple(source_named(self.sources, name) for name in names),
            values={name: self.values[name] for name in names},
            present={name: kept.present[name] for name in names},
        )

    def take(self, index: Tensor) -> "Rows":
        """The rows of that index, in its order."""
        return replace(
            self,
            present={name: present[index] for name, present in self.present.items()},
            labels=None if self.labels is None else self.labels[index],
            columns={name: column[index.numpy()] for name, column in self.columns.items()},
            chosen=index if self.chosen is None else self.chosen[index],
        )

    def with_missing(self, share: float, seed: int) -> "Rows":
        """The same rows with that share of the images marked absent at random; every row keeps at least one.

        A row that would lose all keeps a random one of its own, so slightly less than `share` goes missing.
        """
        if share == 0:
            return self
        generator = torch.Generator().manual_seed(seed)
        had = self.presence([source.name for source in self.sources])
        lottery = torch.rand(had.shape, generator=generator)
        kept = had & (lottery >= share)
        luckiest = lottery.masked_fill(~had, -1.0).argmax(dim=0)
        kept[luckiest, torch.arange(had.shape[1])] = True
        kept &= had
        return replace(self, present={source.name: kept[i] for i, source in enumerate(self.sources)})


def in_range(stored: Tensor, source: Source) -> Tensor:
    """Stored images as floats in the source's value range: whole numbers are steps of it, or class numbers."""
    steps = STEPS.get(stored.dtype)
    if steps is None or source.categories is not None:
        return stored.float()
    shares = stored.float().div_(steps)
    low, high = source.value_range
    return shares if (low, high) == (0.0, 1.0) else shares.mul_(high - low).add_(low)


@dataclass(frozen=True)
class DataSet:
    """A named set of rows in splits.

    Args:
        name: how commands and tables call it.
        splits: `train`, `validation` and `test` rows; the test rows are for reporting alone.
        shared_content: whether all sources of a row show the very same thing, so that a conversion can be compared
            with the real image pixel by pixel.
        class_names: names of the labels, or empty.
        card: what the set is, where it comes from, its licence and the rule of its splits.
    """

    name: str
    splits: dict[str, Rows]
    shared_content: bool
    class_names: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[Source, ...]:
        return next(iter(self.splits.values())).sources

    def split(self, name: str) -> Rows:
        if name not in self.splits:
            raise DataError(f"Data set {self.name!r}: {unknown('split', name, self.splits)}")
        return self.splits[name]

    def only(self, names: Sequence[str]) -> "DataSet":
        """The set with only the named sources."""
        for name in names:
            source_named(self.sources, name)
        return replace(self, splits={split: rows.only(names) for split, rows in self.splits.items()})

    def with_missing(self, share: float, seed: int) -> "DataSet":
        """Images removed at random from training and validation rows; the truth of test rows is kept."""
        splits = {
            name: rows if name == "test" else rows.with_missing(share, seed + index)
            for index, (name, rows) in enumerate(self.splits.items())
        }
        return replace(self, splits=splits)


def complete_rows(
    sources: Sequence[Source], values: Mapping[str, np.ndarray], labels: np.ndarray | None = None
) -> Rows:
    """Rows in which every source is present, from arrays.

    Raises:
        DataError: if a source has no array, arrays differ in length or shape, or labels are no whole numbers.
    """
    tensors: dict[str, Tensor] = {}
    for source in sources:
        if source.name not in values:
            raise DataError(f"Source {source.name!r}: no images given.")
        array = torch.from_numpy(np.ascontiguousarray(values[source.name]))
        if tuple(array.shape[1:]) != source.shape:
            raise DataError(
                f"Source {source.name!r}: expected images of shape {source.shape}, got {tuple(array.shape[1:])}."
            )
        tensors[source.name] = array
    lengths = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"Sources differ in their number of rows: {lengths}.")
    present = {name: torch.ones(length, dtype=torch.bool) for name, length in lengths.items()}
    return Rows(tuple(sources), tensors, present, None if labels is None else _class_numbers(labels))


def _class_numbers(labels: np.ndarray) -> Tensor:
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError):
        raise DataError(f"Labels: expected whole numbers, got {np.asarray(labels).dtype}.") from None
    if found.is_floating_point() and not torch.equal(found, found.round()):
        raise DataError("Labels: expected whole numbers, got fractions.")
    return found.long()


def check_data(data: DataSet) -> None:
    """Refuse rows that cannot be trained on, before anything is written; absent values are not looked at.

    Raises:
        DataError: naming the split, the source and the row.
    """
    try:
        json.dumps(dict(data.card))
    except TypeError as error:
        raise DataError(f"Data set {data.name!r}: its card cannot be written as JSON: {error}.") from None
    if "train" not in data.splits:
        raise DataError(f"Data set {data.name!r} has no split 'train'; it has: {', '.join(data.splits) or 'none'}.")
    for split, rows in data.splits.items():
        where = f"Data set {data.name!r}, split {split!r}"
        if rows.sources != data.sources:
            raise DataError(f"{where}: its sources differ from those of the other splits.")
        lengths = {
            source.name: (_length(rows, source.name), len(rows.present.get(source.name, ()))) for source in rows.sources
        }
        if len({length for pair in lengths.values() for length in pair}) != 1 or len(rows) == 0:
            raise DataError(f"{where}: sources need equal numbers of images and presence, and a row; got {lengths}.")
        for source in rows.sources:
            _check_form(rows, source, where)
        if rows.labels is not None and len(rows.labels) != len(rows):
            raise DataError(f"{where}: expected a label for each of {len(rows)} rows, got {len(rows.labels)}.")
        if rows.labels is not None and int(rows.labels.min()) < 0:
            row = int(rows.labels.argmin())
            raise DataError(f"{where}: expected labels >= 0, got {int(rows.labels[row])} in row {row}.")
        empty = ~rows.presence().any(dim=0)
        if split == "train" and bool(empty.any()):
            raise DataError(f"{where}: row {int(empty.nonzero()[0])} has no source.")
        for source in rows.sources:
            _check_values(rows, source, where)


def _length(rows: Rows, name: str) -> int:
    return len(rows.values.get(name, ()) if rows.chosen is None else rows.chosen)


def _check_form(rows: Rows, source: Source, where: str) -> None:
    shape, presence = tuple(rows.values[source.name].shape[1:]), rows.present[source.name].dtype
    if shape != source.shape:
        raise DataError(f"{where}: source {source.name!r}: expected images of shape {source.shape}, got {shape}.")
    if presence != torch.bool:
        raise DataError(f"{where}: source {source.name!r}: expected presence as bool, got {presence}.")


def _check_values(rows: Rows, source: Source, where: str) -> None:
    """Whole numbers that are steps of the value range are within it; all others are looked at."""
    name, (low, high), (least, most) = source.name, source.value_range, source.tolerated_range
    if rows.values[name].dtype in STEPS and source.categories is None:
        return
    for part in torch.arange(len(rows)).split(CHECKED_AT_ONCE):
        known = part[rows.present[name][part]]
        stored = known if rows.chosen is None else rows.chosen[known]
        values = rows.values[name][stored].flatten(1)
        infinite = ~torch.isfinite(values).all(dim=1)
        if bool(infinite.any()):
            raise DataError(
                f"{where}: source {name!r} has NaN or infinity in row {int(known[infinite.nonzero()[0]])}. "
                "Mark it absent, or mend it."
            )
        between = torch.zeros(0) if source.categories is None else ~source.are_classes(values).all(dim=1)
        if bool(between.any()):
            raise DataError(
                f"{where}: source {name!r} has numbers that are not whole in row {int(known[between.nonzero()[0]])}; "
                f"expected class numbers {low:g} to {high:g}."
            )
        outside = ((values < least) | (values > most)).any(dim=1)
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            raise DataError(
                f"{where}: source {name!r} has values from {float(values[row].min()):g} to "
                f"{float(values[row].max()):g} ({str(values.dtype).removeprefix('torch.')}) in row {int(known[row])}; "
                f"expected {low:g} to {high:g}. Set the source's value_range, or rescale the data."
            )
