"""Grain: noise of a known spectrum is found again, and structure and clean drawings have none."""

import pytest
import torch
import torch.nn.functional as F

from msvae.flow.grain import Grain, noise_kernel, tiles
from msvae.source import Source


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coloured(rows: int, side: int = 32) -> torch.Tensor:
    """Noise of deviation .05 whose second channel is the first, one pixel further right, and half as strong."""
    white = torch.randn(rows, 1, side, side + 1, generator=generator())
    return 0.05 * torch.cat([white[..., 1:], 0.5 * white[..., :-1]], dim=1)


def test_drawn_noise_has_the_covariances_of_the_measured() -> None:
    source = Source("radar", (2, 32, 32))
    grain = Grain([source])
    grain.measure("radar", coloured(400))
    drawn = grain.add("radar", torch.full((2000, 2, 32, 32), 0.5), generator(1)) - 0.5
    assert 0.03 < float(drawn[:, 0].std()) < 0.05  # the smoothest tiles have less than the mean
    assert float(drawn[:, 1].std() / drawn[:, 0].std()) == pytest.approx(0.5, abs=0.05)
    shifted = float((drawn[:, 0, :, :-1] * drawn[:, 1, :, 1:]).mean() / drawn[:, 0].var())
    assert shifted == pytest.approx(0.5, abs=0.1)
    back = float((drawn[:, 0, :, 1:] * drawn[:, 1, :, :-1]).mean() / drawn[:, 0].var())
    assert abs(back) < 0.05


def test_a_kernel_of_all_tiles_has_the_whole_deviation() -> None:
    kernel = noise_kernel(tiles(coloured(400), 8, 8))
    drawn = F.conv2d(torch.randn(200, 2, 39, 39, generator=generator(1)), kernel)
    assert float(drawn[:, 0].std()) == pytest.approx(0.05, rel=0.03)


def test_structure_beside_clean_areas_is_no_grain() -> None:
    residuals = torch.full((200, 1, 32, 32), -0.004)  # what a sigmoid lacks of white
    residuals[:, :, 16:] = torch.randn(200, 1, 16, 32, generator=generator())
    grain = Grain([Source("drawing", (1, 32, 32))])
    grain.measure("drawing", residuals)
    images = torch.rand(4, 1, 32, 32, generator=generator())
    torch.testing.assert_close(grain.add("drawing", images, generator()), images)


def test_too_few_tiles_say_nothing() -> None:
    grain = Grain([Source("radar", (2, 32, 32))])
    grain.measure("radar", coloured(10))
    assert not grain.has("radar")


def test_noise_stays_in_the_range_and_follows_the_share() -> None:
    source = Source("depth", (2, 32, 32), value_range=(-1.0, 1.0))
    grain = Grain([source, Source("kind", (1, 8, 8), "categorical", categories=3), Source("words", (4,))])
    grain.measure("depth", 20 * coloured(400))
    images = torch.full((2, 2, 32, 32), 0.9)
    noisy = grain.add("depth", images, generator(), torch.tensor([0.0, 1.0]))
    assert torch.equal(noisy[0], images[0])
    assert not torch.equal(noisy[1], images[1])
    assert float(noisy.max()) == 1.0
    assert not grain.has("kind")
    words = torch.rand(2, 4)
    assert torch.equal(grain.add("words", words, generator()), words)
