"""Subset algebra, for any number of sources and any presence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msvae.errors import SourceError
from msvae.subsets import all_subsets, contained, named_subsets, random_subset, rows_of_each, subset_label

presences = (
    st.integers(1, 6)
    .flatmap(
        lambda sources: st.lists(st.lists(st.booleans(), min_size=sources, max_size=sources), min_size=1, max_size=8)
    )
    .map(lambda rows: torch.tensor(rows).T)
)


@given(st.integers(1, 10))
def test_all_subsets_are_there_once_and_none_is_empty(sources: int) -> None:
    subsets = all_subsets(sources)
    assert subsets.shape == (2**sources - 1, sources)
    assert len(subsets.unique(dim=0)) == len(subsets)
    assert bool(subsets.any(dim=1).all())


@settings(deadline=None)
@given(presences)
def test_contained_is_set_inclusion(present: torch.Tensor) -> None:
    subsets = all_subsets(len(present))
    table = contained(subsets, present)
    for row in range(present.shape[1]):
        has = set(present[:, row].nonzero().squeeze(1).tolist())
        for index, subset in enumerate(subsets):
            assert bool(table[index, row]) == (set(subset.nonzero().squeeze(1).tolist()) <= has)
    assert torch.equal(table.sum(dim=0), 2 ** present.sum(dim=0) - 1)


@settings(deadline=None)
@given(presences, st.integers(0, 1000))
def test_random_subsets_lie_within_what_is_present(present: torch.Tensor, seed: int) -> None:
    subset = random_subset(present, torch.Generator().manual_seed(seed))
    assert not bool((subset & ~present).any())
    assert torch.equal(subset.any(dim=0), present.any(dim=0))


def test_random_subset_sizes_are_uniform_and_sources_equally_frequent() -> None:
    present = torch.ones(4, 40_000, dtype=torch.bool)
    subset = random_subset(present, torch.Generator().manual_seed(0))
    sizes = torch.bincount(subset.sum(dim=0), minlength=5).double() / 40_000
    torch.testing.assert_close(sizes, torch.tensor([0, 0.25, 0.25, 0.25, 0.25]).double(), atol=0.012, rtol=0)
    frequency = subset.double().mean(dim=1)
    torch.testing.assert_close(frequency, torch.full((4,), 0.625).double(), atol=0.012, rtol=0)


def test_names() -> None:
    assert named_subsets(["a", "b"]) == [("a",), ("b",), ("a", "b")]
    assert named_subsets(["a", "b", "c"], 2) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert subset_label(("a", "b")) == "a+b"


@pytest.mark.parametrize("count", [0, 17])
def test_too_many_subsets_are_refused(count: int) -> None:
    with pytest.raises(SourceError, match="1 to 16"):
        all_subsets(count)


@settings(deadline=None)
@given(presences)
def test_the_rows_of_each_source_are_told_in_order_and_complete_ones_not_at_all(present: torch.Tensor) -> None:
    for has_it, rows in zip(present, rows_of_each(present), strict=True):
        if bool(has_it.all()):
            assert rows is None
        else:
            assert rows is not None
            assert torch.equal(rows, has_it.nonzero().squeeze(1))
