"""Fusion in image space: identities that any blend holds to."""

import pytest
import torch

from msvae.blending import BLENDS, pyramid_blend, weighted_mean

IMAGES = torch.rand(3, 2, 3, 20, 27, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list(BLENDS))
def test_one_hot_weights_reproduce_exactly(name: str) -> None:
    for index in range(3):
        weights = torch.zeros(3)
        weights[index] = 0.7
        assert torch.equal(BLENDS[name](IMAGES, weights), IMAGES[index])


@pytest.mark.parametrize("name", list(BLENDS))
def test_weight_zero_removes_exactly(name: str) -> None:
    weights = torch.tensor([0.4, 0.0, 0.6])
    other = IMAGES.clone()
    other[1] = torch.rand_like(other[1])
    assert torch.equal(BLENDS[name](IMAGES, weights), BLENDS[name](other, weights))
    torch.testing.assert_close(BLENDS[name](IMAGES, weights), BLENDS[name](IMAGES[[0, 2]], weights[[0, 2]]))


@pytest.mark.parametrize("name", list(BLENDS))
def test_equal_images_blend_to_themselves(name: str) -> None:
    same = IMAGES[:1].expand(3, -1, -1, -1, -1)
    torch.testing.assert_close(BLENDS[name](same, torch.tensor([0.2, 0.5, 0.3])), IMAGES[0], atol=1e-5, rtol=1e-5)


def test_the_mean_is_the_mean() -> None:
    weights = torch.tensor([1.0, 2.0, 1.0])
    expected = (IMAGES[0] + 2 * IMAGES[1] + IMAGES[2]) / 4
    torch.testing.assert_close(weighted_mean(IMAGES, weights), expected)


def test_a_pyramid_keeps_the_detail_that_a_mean_halves() -> None:
    """One source has texture, the other is flat: the blend's texture is nearly as strong as the source's."""
    texture = 0.5 + 0.4 * ((torch.arange(32)[:, None] + torch.arange(32)[None, :]) % 2 * 2 - 1)
    flat = torch.full((32, 32), 0.5)
    images = torch.stack([texture, flat])[:, None, None]
    weights = torch.tensor([0.5, 0.5])
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert float(pyramid_blend(images, weights)[inside].std()) > 0.9 * float(texture.std())
    assert float(weighted_mean(images, weights)[inside].std()) < 0.6 * float(texture.std())
