"""Random changes of rows: sources stay aligned, classes stay classes, nothing depends on more than the generator."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from msvae.config import AugmentConfig
from msvae.data import complete_rows
from msvae.data.augment import augmented, changes_anything, moved, random_maps
from msvae.source import Source, SourceBatch
from msvae.training.augmented_rows import ENOUGH_ROWS, AugmentedRows
from msvae.training.schedule import BatchOrder, balance_weights

SMALL, LARGE = Source("small", (1, 16, 24)), Source("large", (3, 32, 48), value_range=(-5.0, 5.0))
CLASSES = Source("classes", (1, 32, 48), likelihood="categorical", categories=9)
VECTOR = Source("vector", (4,))
SOURCES = (SMALL, LARGE, CLASSES, VECTOR)
GEOMETRY = {"flip_horizontal": 0.5, "flip_vertical": 0.5, "shift": 0.2, "rotate": 40.0, "scale": 0.3, "crop": 0.3}


def blobs(rows: int = 12) -> SourceBatch:
    """A smooth blob at the same place of the frame in every image source; class 7 where it is bright."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(rows, 2, generator=generator) - 0.5

    def drawn(height: int, width: int) -> torch.Tensor:
        down = (torch.arange(height) + 0.5) / height * 2 - 1
        across = (torch.arange(width) + 0.5) / width * 2 - 1
        gap = (down[None, :, None] - centre[:, 0, None, None]) ** 2 + (
            across[None, None] - centre[:, 1, None, None]
        ) ** 2
        return torch.exp(-gap / 0.1)[:, None]

    values = {
        "small": drawn(16, 24),
        "large": drawn(32, 48).expand(-1, 3, -1, -1) * 10 - 5,
        "classes": (drawn(32, 48) > 0.5).float() * 7,
        "vector": torch.rand(rows, 4, generator=generator),
    }
    return SourceBatch.complete(values)


def changed(batch: SourceBatch, seed: int = 0, **changes: float) -> SourceBatch:
    return augmented(batch, SOURCES, AugmentConfig(**changes), torch.Generator().manual_seed(seed))


def test_nothing_is_changed_unless_switched_on():
    batch = blobs()
    assert changed(batch) is batch


@pytest.mark.parametrize("source", [LARGE, CLASSES])
def test_beyond_its_border_an_image_goes_on_with_its_border(source):
    images = blobs().values[source.name]
    maps = random_maps(len(images), 1.5, AugmentConfig(**GEOMETRY), torch.Generator().manual_seed(3))
    mode = "nearest" if source.categories else "bilinear"
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    expected = F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)
    torch.testing.assert_close(moved(images, maps, source), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", GEOMETRY)
def test_each_geometric_change_moves_all_sources_alike(name):
    batch = blobs()
    after = changed(batch, **{name: GEOMETRY[name]})
    assert not torch.equal(after.values["small"], batch.values["small"])
    shrunk = torch.nn.functional.avg_pool2d((after.values["large"][:, :1] + 5) / 10, 2)
    torch.testing.assert_close(shrunk, after.values["small"], atol=0.06, rtol=0)
    assert torch.equal(after.values["vector"], batch.values["vector"])
    unrelated = after.values["small"].roll(1, 0)
    assert float((shrunk - unrelated).abs().mean()) > 0.05  # the rows move each by themselves


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(8, 40), st.integers(8, 40))
def test_all_changes_together_keep_sources_of_any_size_aligned(seed, height, width):
    """A ramp over the frame shows where each pixel came from: both sources must tell the same place."""
    maps = random_maps(3, height / width, AugmentConfig(**GEOMETRY), torch.Generator().manual_seed(seed))

    def ramp(rows: int, columns: int) -> torch.Tensor:
        down = (torch.arange(rows) + 0.5) / rows
        across = (torch.arange(columns) + 0.5) / columns
        return torch.stack([down[:, None].expand(rows, columns), across.expand(rows, columns)]).expand(3, -1, -1, -1)

    first = moved(ramp(height, width), maps, Source("a", (2, height, width)))
    second = moved(ramp(2 * height, 2 * width), maps, Source("b", (2, 2 * height, 2 * width)))
    halved = torch.nn.functional.avg_pool2d(second, 2)
    inside = ((first > 1.5 / min(height, width)) & (first < 1 - 1.5 / min(height, width))).all(dim=1, keepdim=True)
    assert float(((first - halved).abs() * inside).max()) < 1.5 / min(height, width)


def test_a_map_is_what_its_formula_says():
    config = AugmentConfig(rotate=30.0, scale=0.2, shift=0.1)
    maps = random_maps(2000, 1.0, config, torch.Generator().manual_seed(0)).double()
    size = torch.linalg.det(maps[:, :, :2]).sqrt()
    angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0])
    assert float(size.min()) == pytest.approx(1 / 1.2, abs=0.01)
    assert float(size.max()) == pytest.approx(1.2, abs=0.01)
    assert float(angle.abs().max()) == pytest.approx(math.radians(30), abs=0.01)
    assert float(maps[:, :, 2].abs().max()) == pytest.approx(0.2, abs=0.01)
    cropped = random_maps(2000, 1.0, AugmentConfig(crop=0.5), torch.Generator().manual_seed(0))
    reach = cropped[:, 0, 0] + cropped[:, 0, 2].abs()
    assert float(reach.max()) <= 1 + 1e-6  # a cropped window lies within the image
    assert float(cropped[:, 0, 0].min()) == pytest.approx(0.5, abs=0.01)


def test_a_rotation_keeps_right_angles_in_frames_that_are_no_squares():
    maps = random_maps(50, 2.0, AugmentConfig(rotate=90.0), torch.Generator().manual_seed(0))
    to_frame = torch.diag(torch.tensor([1.0, 2.0]))  # half a unit of height is as long as one of width
    real = to_frame @ maps[:, :, :2] @ torch.linalg.inv(to_frame)
    torch.testing.assert_close(real @ real.mT, torch.eye(2).expand(50, 2, 2), atol=1e-5, rtol=0)


def test_classes_stay_classes_and_are_never_brightened():
    after = changed(blobs(), **GEOMETRY, brightness=0.5, contrast=0.5, noise=0.3)
    assert set(after.values["classes"].unique().tolist()) == {0.0, 7.0}
    only_light = changed(blobs(), brightness=0.5, noise=0.3)
    assert torch.equal(only_light.values["classes"], blobs().values["classes"])


def test_photometric_changes_are_drawn_for_each_source_and_stay_in_range():
    batch = blobs()
    after = changed(batch, brightness=0.3)
    moves = [
        (source.normalise(after.values[source.name]) - source.normalise(batch.values[source.name])).mean(dim=(1, 2, 3))
        for source in (SMALL, LARGE)
    ]
    assert float(torch.corrcoef(torch.stack(moves))[0, 1].abs()) < 0.8
    noisy = changed(batch, noise=0.5, contrast=1.0, brightness=1.0).values["large"]
    assert -5 <= float(noisy.min()) <= float(noisy.max()) <= 5
    grey = SourceBatch.complete({"small": torch.full((400, 1, 16, 24), 0.5)})
    spread = (changed(grey, noise=0.1).values["small"] - 0.5).std()
    assert float(spread) == pytest.approx(0.1, rel=0.03)


def test_flips_alone_round_nothing_and_twice_are_none():
    batch = blobs()
    after = changed(batch, flip_horizontal=1.0, flip_vertical=1.0)
    assert torch.equal(after.values["large"], batch.values["large"].flip(2).flip(3))
    again = changed(after, flip_horizontal=1.0, flip_vertical=1.0)
    assert torch.equal(again.values["small"], batch.values["small"])


def test_the_generator_alone_decides_and_absent_values_harm_nobody():
    batch = blobs()
    assert torch.equal(changed(batch, **GEOMETRY).values["large"], changed(batch, **GEOMETRY).values["large"])
    assert not torch.equal(changed(batch, **GEOMETRY).values["large"], changed(batch, 1, **GEOMETRY).values["large"])
    values = {name: tensor.clone() for name, tensor in batch.values.items()}
    values["large"][3] = float("nan")
    present = {**batch.present, "large": torch.arange(12) != 3}
    after = changed(SourceBatch(values, present), **GEOMETRY, noise=0.1)
    whole = changed(batch, **GEOMETRY, noise=0.1)
    others = torch.arange(12) != 3
    assert torch.equal(after.values["large"][others], whole.values["large"][others])
    assert torch.equal(after.present["large"], present["large"])


def rare(rows: int = 1000) -> dict[str, torch.Tensor]:
    """A source in every row, one in half of them, one in 1 %."""
    number = torch.arange(rows)
    return {"all": number >= 0, "half": number % 2 == 0, "rare": number % 100 == 3}


def test_small_sets_are_seen_in_several_versions_that_come_back_when_asked_for_again():
    values = blobs(300).values
    rows = complete_rows(SOURCES, {name: tensor.numpy() for name, tensor in values.items()}, np.arange(300))
    config = AugmentConfig(flip_horizontal=0.5, shift=0.1)
    versions = AugmentedRows(rows, config, seed=1)
    assert len(versions) == 34 * 300 >= ENOUGH_ROWS
    part = torch.arange(5 * 300 + 7, 5 * 300 + 27)
    once, again, other = (AugmentedRows(rows, config, seed).batch(part).values["small"] for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert not torch.equal(once, versions.batch(part + 300).values["small"])
    first = versions.batch(slice(290, 310)).values["large"]  # the last ten as they are, then the first ten changed
    assert torch.equal(first[:10], rows.batch(slice(290, 300)).values["large"])
    assert not torch.equal(first[10:], rows.batch(slice(0, 10)).values["large"])
    assert len(AugmentedRows(rows, config, 1).rows) == 300
    assert changes_anything(config)
    assert not changes_anything(AugmentConfig())


def test_balance_weights_are_the_rarest_source_s():
    weights = balance_weights(rare(), 1.0)
    assert balance_weights(rare(), 0.0) is None
    expected = torch.ones(1000, dtype=torch.float64)
    expected[0::2] = 2.0
    expected[3::100] = 100.0
    torch.testing.assert_close(weights, expected / expected.sum())
    half = balance_weights(rare(), 0.5)
    torch.testing.assert_close(half[3] / half[1], torch.tensor(10.0, dtype=torch.float64))


def test_balanced_order_draws_each_row_as_often_as_its_weight_says():
    weights = balance_weights(rare(), 1.0)
    order = BatchOrder(1000, 50, seed=3, weights=weights)
    drawn = torch.cat([order(step) for step in range(order.per_epoch)])
    counts = torch.bincount(drawn, minlength=1000)
    assert bool(((counts - 1000 * weights).abs() < 1 + 1e-9).all())  # systematic resampling
    assert float(rare()["rare"][drawn].float().mean()) == pytest.approx(1000 / 2490, abs=0.02)
    assert torch.equal(order(7), BatchOrder(1000, 50, seed=3, weights=weights)(7))
    assert not torch.equal(order(0), order(order.per_epoch))
    firsts = [int(rare()["rare"][order(step)].sum()) for step in range(20)]
    assert max(firsts) < 35  # the draws of a row are spread over the epoch


def test_a_source_without_any_row_harms_no_weight():
    weights = balance_weights({"a": torch.ones(5, dtype=torch.bool), "b": torch.zeros(5, dtype=torch.bool)}, 1.0)
    torch.testing.assert_close(weights, torch.full((5,), 0.2, dtype=torch.float64))
