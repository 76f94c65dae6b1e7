"""Subset algebra: sets of sources as boolean arrays, so that nothing loops over 2^M subsets."""

from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from msvae.errors import SourceError

MAX_SOURCES_FOR_ALL_SUBSETS = 16


def all_subsets(source_count: int, device: torch.device | None = None) -> Bool[Tensor, "subsets sources"]:
    """Every non-empty subset of `source_count` sources, one a row, in binary counting order.

    Raises:
        SourceError: for more than 16 sources (65,535 subsets).
    """
    if not 1 <= source_count <= MAX_SOURCES_FOR_ALL_SUBSETS:
        raise SourceError(
            f"All subsets of {source_count} sources: expected 1 to {MAX_SOURCES_FOR_ALL_SUBSETS} sources."
        )
    numbers = torch.arange(1, 2**source_count, device=device)
    return (numbers[:, None] >> torch.arange(source_count, device=device)[None, :]) & 1 == 1


def contained(
    subsets: Bool[Tensor, "subsets sources"], present: Bool[Tensor, "sources rows"]
) -> Bool[Tensor, "subsets rows"]:
    """Which subsets hold only sources that a row has: subset S of row b counts iff S is within present[:, b]."""
    missing_members = subsets.float() @ (~present).float()
    return missing_members == 0


def rows_of_each(chosen: Bool[Tensor, "sources rows"]) -> list[Int[Tensor, " _"] | None]:
    """Which rows are chosen for each source; None for all of them, so that what is complete need not be copied.

    All sources are counted at once: a GPU is waited for twice at most, however many there are.
    """
    counts, rows = chosen.sum(dim=1).tolist(), chosen.shape[1]
    if all(count == rows for count in counts):
        return [None] * len(counts)
    parts = chosen.nonzero()[:, 1].split(counts)
    return [None if count == rows else part for count, part in zip(counts, parts, strict=True)]


def random_of_size(
    present: Bool[Tensor, "sources rows"], size: Int[Tensor, " rows"], generator: Generator | None = None
) -> Bool[Tensor, "sources rows"]:
    """For each row so many of its present sources at random, all of them where it has fewer."""
    lottery = torch.rand(present.shape, generator=generator, device=present.device)
    rank = lottery.masked_fill(~present, 2.0).argsort(dim=0).argsort(dim=0)  # absent sources come last
    return (rank < size[None, :]) & present


def random_subset(
    present: Bool[Tensor, "sources rows"], generator: Generator | None = None
) -> Bool[Tensor, "sources rows"]:
    """For each row a random non-empty subset of its present sources, its size uniform on 1..|A|.

    Uniform sizes, not uniform subsets: otherwise single sources are hardly ever drawn where there are many.
    """
    count = present.sum(dim=0)
    uniform = torch.rand(present.shape[1], generator=generator, device=present.device)
    return random_of_size(present, torch.minimum(1 + (uniform * count).long(), count), generator)


def random_half(
    present: Bool[Tensor, "sources rows"], generator: Generator | None = None
) -> Bool[Tensor, "sources rows"]:
    """A random subset of each row's sources of uniform size 1..|A|-1, so that neither it nor its complement is empty;
    of one source, that source."""
    count = present.sum(dim=0)
    uniform = torch.rand(present.shape[1], generator=generator, device=present.device)
    return random_of_size(present, 1 + (uniform * (count - 1).clamp_min(1)).long(), generator)


def subset_of_any_size(
    present: Bool[Tensor, "sources rows"], generator: Generator | None = None, emptied: float = 0.25
) -> Bool[Tensor, "sources rows"]:
    """A random subset of each row's sources, its size uniform on 0..|A|; a share of the rows is emptied besides."""
    count = present.sum(dim=0)
    draws = torch.rand(2, present.shape[1], generator=generator, device=present.device)
    size = torch.minimum((draws[0] * (count + 1)).long(), count).masked_fill(draws[1] < emptied, 0)
    return random_of_size(present, size, generator)


def one_of(chosen: Bool[Tensor, "sources rows"], generator: Generator | None = None) -> Bool[Tensor, "sources rows"]:
    """A random one of each row's chosen sources; none in rows without."""
    lottery = torch.rand(chosen.shape, generator=generator, device=chosen.device)
    first = lottery.masked_fill(~chosen, -1.0).argmax(dim=0)
    return chosen & (torch.arange(len(chosen), device=chosen.device)[:, None] == first)


def named_subsets(names: Sequence[str], size: int | None = None) -> list[tuple[str, ...]]:
    """Non-empty subsets of the names, small ones first; only those of `size` where it is given."""
    sizes = range(1, len(names) + 1) if size is None else [size]
    return [subset for length in sizes for subset in combinations(names, length)]


def subset_label(names: Sequence[str]) -> str:
    """How tables and files call a subset: `blue+green`."""
    return "+".join(names)
