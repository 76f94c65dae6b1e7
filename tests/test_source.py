"""Sources and batches: what fits, and clear errors for what does not."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from msvae.data import SPLITS, DataSet, check_data, complete_rows
from msvae.errors import DataError, SourceError
from msvae.source import Source, SourceBatch, check_batch

BLUE, DEPTH = Source("blue", (3, 8, 8)), Source("depth", (1, 8, 8), value_range=(0.0, 10.0))


def batch(**replaced: Any) -> SourceBatch:
    return SourceBatch.complete({"blue": torch.rand(4, 3, 8, 8), "depth": 10 * torch.rand(4, 1, 8, 8), **replaced})


def test_a_fitting_batch_passes() -> None:
    check_batch(batch(), [BLUE, DEPTH])
    check_batch(batch().rows(slice(0, 1)), [BLUE, DEPTH])


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"bleu": torch.rand(4, 3, 8, 8)}, "'bleu'.*Did you mean 'blue'"),
        ({"blue": torch.rand(4, 1, 8, 8)}, r"'blue': expected images of shape \(3, 8, 8\), got \(1, 8, 8\)"),
        ({"blue": torch.zeros(4, 3, 8, 8, dtype=torch.uint8)}, "'blue'.*floating-point.*uint8.*Divide by 255"),
        ({"depth": torch.full((4, 1, 8, 8), 11.0)}, r"'depth': expected values in \[0, 10\], got \[11, 11\]"),
        ({"blue": torch.full((4, 3, 8, 8), float("nan"))}, "'blue': NaN in a present value"),
        ({"blue": torch.full((4, 3, 8, 8), float("inf"))}, "'blue': expected values in"),
        ({"blue": torch.rand(3, 3, 8, 8)}, "'depth': 4 rows of values .* 3 rows"),
    ],
)
def test_what_does_not_fit_is_named(replaced: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        check_batch(batch(**replaced), [BLUE, DEPTH])


def test_garbage_in_absent_values_is_not_looked_at() -> None:
    given = batch()
    given.values["blue"][1] = float("nan")
    given.values["blue"][2] = 1e9
    given.present["blue"][1:3] = False
    check_batch(given, [BLUE, DEPTH])


def test_rows_without_a_source_are_named() -> None:
    given = batch()
    given.present["blue"][2] = False
    given.present["depth"][2] = False
    with pytest.raises(SourceError, match=r"Row 2 .* no present source"):
        check_batch(given, [BLUE, DEPTH])
    check_batch(given, [BLUE, DEPTH], allow_empty_rows=True)


def test_empty_batches_are_refused() -> None:
    with pytest.raises(SourceError, match="no rows"):
        check_batch(SourceBatch.complete({"blue": torch.rand(0, 3, 8, 8)}), [BLUE])
    with pytest.raises(SourceError, match="no source"):
        check_batch(SourceBatch({}, {}), [BLUE])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a/b"}, "letters"),
        ({"shape": (3, 8)}, "shape"),
        ({"shape": (0, 8, 8)}, "shape"),
        ({"value_range": (0.0, float("inf"))}, "low < high"),
        ({"scale": float("inf")}, "scale > 0"),
        ({"categories": 4}, "only a categorical source"),
        ({"value_range": (1.0, 1.0)}, "low < high"),
        ({"scale": 0.0}, "scale > 0"),
        ({"likelihood": "categorical"}, "categories >= 2"),
        ({"likelihood": "categorical", "categories": 4}, "one channel"),
    ],
)
def test_impossible_sources_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        Source(**{"name": "blue", "shape": (3, 8, 8), **fields})


def test_sources_survive_the_way_through_json() -> None:
    source = Source("labels", (1, 8, 8), likelihood="categorical", categories=5)
    assert Source.from_dict(source.to_dict()) == source
    with pytest.raises(SourceError, match="Did you mean 'scale'"):
        Source.from_dict({"name": "a", "shape": [3, 8, 8], "scal": 1})


def test_normalising_is_undone() -> None:
    values = 10 * torch.rand(3, 1, 8, 8)
    assert DEPTH.normalise(values).max() <= 1
    torch.testing.assert_close(DEPTH.denormalise(DEPTH.normalise(values)), values)


def test_class_numbers_have_no_class_beyond_the_last_one() -> None:
    source = Source("map", (1, 2, 2), likelihood="categorical", categories=1001)
    for wrong in (-1.0, 1001.0):
        batch = SourceBatch.complete({"map": torch.full((1, 1, 2, 2), wrong)})
        with pytest.raises(SourceError, match="map"):
            check_batch(batch, [source])
    check_batch(SourceBatch.complete({"map": torch.full((1, 1, 2, 2), 1000.0)}), [source])


@pytest.mark.parametrize(("value", "passes"), [(2.5, False), (1.9, False), (2.001, True)])
def test_a_number_between_two_classes_is_none(value: float, passes: bool) -> None:
    """It would be rounded up in one place and down in another; what rounding errors leave is tolerated."""
    source = Source("map", (1, 2, 2), likelihood="categorical", categories=5)
    images = torch.full((2, 1, 2, 2), 1.0)
    images[1, 0, 0, 0] = value
    batch = SourceBatch.complete({"map": images})
    rows = complete_rows([source], {"map": images.numpy()})
    data = DataSet("maps", dict.fromkeys(SPLITS, rows), shared_content=False)
    if passes:
        check_batch(batch, [source])
        check_data(data)
        return
    with pytest.raises(SourceError, match=r"'map': expected class numbers 0 to 4, got some that are not whole"):
        check_batch(batch, [source])
    with pytest.raises(
        DataError, match=r"'map' has numbers that are not whole in row 1; expected class numbers 0 to 4"
    ):
        check_data(data)
    check_data(
        replace(data, splits=dict.fromkeys(SPLITS, replace(rows, values={"map": images.round().to(torch.uint16)})))
    )
    absent = SourceBatch({"map": images}, {"map": torch.tensor([True, False])})
    check_batch(absent, [source], allow_empty_rows=True)
