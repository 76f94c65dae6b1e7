"""How much an evaluation looks at, and how it goes through rows without holding them all."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msvae.data import SETS
from msvae.data.base import DataSet

AT_ONCE = 500  # rows asked of a model at a time: memory does not grow with the number of test rows
MOST_REAL = 5000  # real images whose features are kept
MIXED_SEED = 1
RARE = 0.1  # of the images of the source with most: sources with fewer have no part in Fréchet distances


@dataclass(frozen=True)
class Extent:
    """How many rows are looked at.

    Args:
        rows: test rows that are reconstructed and converted, the first ones; None for all.
        generated: rows made from nothing.
        photographs: images in each set of a Fréchet distance in ImageNet features, the first ones; 0 leaves these
            distances out (they need the extra `msvae[metrics]`).
    """

    rows: int | None = None
    generated: int = 1000
    photographs: int = 0

    @property
    def pictures(self) -> int:
        """Images in each of those sets: of conversions and reconstructions there are no more than rows."""
        return self.photographs if self.rows is None else min(self.photographs, self.rows)


def mixed(data: DataSet) -> DataSet:
    """The set with its test rows in a random order, always the same one.

    Rows lie sorted, by class or by place, and of many the first ones are looked at. What is mixed already stays as it
    is.
    """
    if data.name in SETS and SETS[data.name].mixed:
        return data
    test = data.split("test")
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(MIXED_SEED))
    return replace(data, splits={**data.splits, "test": test.take(order)})


def parts(index: Tensor) -> Iterator[Tensor]:
    """Row numbers, some at a time; nothing for no rows."""
    for part in index.split(AT_ONCE):
        if len(part):
            yield part
