"""Closed forms against numerical integration, Monte Carlo and torch.distributions, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from msvae import gaussian

GRID = torch.linspace(-30, 30, 60001, dtype=torch.float64)
STEP = float(GRID[1] - GRID[0])


def parameters(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(shape, generator=generator, dtype=torch.float64)
    return mean, torch.randn(shape, generator=generator, dtype=torch.float64)


def on_grid(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    return Normal(mean, (0.5 * log_variance).exp()).log_prob(GRID)


@pytest.mark.parametrize("seed", range(5))
def test_density_and_kl_agree_with_torch_distributions(seed: int) -> None:
    mean, log_variance = parameters(seed, 4, 3)
    other_mean, other_log_variance = parameters(seed + 100, 4, 3)
    first = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    second = Independent(Normal(other_mean, (0.5 * other_log_variance).exp()), 1)
    standard = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    value = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(gaussian.log_density(value, mean, log_variance), first.log_prob(value))
    torch.testing.assert_close(gaussian.kl_to_standard(mean, log_variance), kl_divergence(first, standard))
    torch.testing.assert_close(
        gaussian.kl_divergence(mean, log_variance, other_mean, other_log_variance), kl_divergence(first, second)
    )


def test_kl_agrees_with_monte_carlo() -> None:
    mean, log_variance = parameters(3, 1, 4)
    draws = mean + (0.5 * log_variance).exp() * torch.randn(400_000, 4, dtype=torch.float64)
    zero = torch.zeros(1, 4, dtype=torch.float64)
    sampled = gaussian.log_density(draws, mean, log_variance) - gaussian.log_density(draws, zero, zero)
    error = float(sampled.std()) / math.sqrt(len(sampled))
    assert abs(float(sampled.mean() - gaussian.kl_to_standard(mean, log_variance))) < 5 * error


def wasserstein2(
    mean: torch.Tensor, log_variance: torch.Tensor, other_mean: torch.Tensor, other_log_variance: torch.Tensor
) -> torch.Tensor:
    """Squared Wasserstein-2 distance of two diagonal Gaussians."""
    gap = torch.exp(0.5 * log_variance) - torch.exp(0.5 * other_log_variance)
    return ((mean - other_mean).square() + gap.square()).sum(dim=-1)


@pytest.mark.parametrize("prior_precision", [0.0, 1.0])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 0.3, 0.2], [0.0, 2.0, 0.7]])
def test_weighted_product_is_the_normalised_product_of_densities(prior_precision: float, weights: list[float]) -> None:
    means, log_variances = parameters(7, 3, 1, 1)
    log_product = prior_precision * on_grid(torch.zeros(()).double(), torch.zeros(()).double())
    for index, weight in enumerate(weights):
        log_product = log_product + weight * on_grid(means[index, 0, 0], log_variances[index, 0, 0])
    density = log_product.exp() / (log_product.exp().sum() * STEP)
    pool = gaussian.pool_rows(torch.tensor(weights, dtype=torch.float64)[:, None])
    mean, log_variance = gaussian.product(pool, means, log_variances, prior_precision)
    torch.testing.assert_close(on_grid(mean[0, 0], log_variance[0, 0]).exp(), density, atol=1e-9, rtol=1e-6)


def test_subset_products_are_the_weighted_products_of_each_subset() -> None:
    means, log_variances = parameters(5, 4, 6, 3)
    membership = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 1], [0, 0.25, 0.75, 0]], dtype=torch.float64)
    both = gaussian.product(gaussian.pool_subsets(membership), means, log_variances, 1.0)
    for index, weights in enumerate(membership):
        alone = gaussian.product(gaussian.pool_rows(weights[:, None].expand(4, 6)), means, log_variances, 1.0)
        torch.testing.assert_close(both[0][index], alone[0])
        torch.testing.assert_close(both[1][index], alone[1])


def test_a_product_of_nothing_is_the_standard_normal() -> None:
    means, log_variances = parameters(1, 2, 3, 4)
    mean, log_variance = gaussian.product(gaussian.pool_rows(torch.zeros(2, 3).double()), means, log_variances, 0.0)
    assert torch.equal(mean, torch.zeros_like(mean))
    assert torch.equal(log_variance, torch.zeros_like(log_variance))


def test_the_barycenter_minimises_the_weighted_wasserstein_distances() -> None:
    means, log_variances = parameters(11, 3, 1, 2)
    weights = torch.tensor([[0.5], [0.2], [0.3]], dtype=torch.float64)
    mean, log_variance = gaussian.barycenter(gaussian.pool_rows(weights), means, log_variances)

    def cost(at_mean: torch.Tensor, at_log_variance: torch.Tensor) -> float:
        distances = wasserstein2(at_mean.expand(3, 1, 2), at_log_variance.expand(3, 1, 2), means, log_variances)
        return float((weights * distances).sum())

    best = cost(mean, log_variance)
    for seed in range(50):
        step_mean, step_log_variance = parameters(seed, 1, 2)
        assert cost(mean + 0.05 * step_mean, log_variance + 0.05 * step_log_variance) > best


def test_wasserstein_agrees_with_the_quantile_integral() -> None:
    """In one dimension W2^2 is the integral of the squared gap of the quantile functions."""
    mean, log_variance = parameters(2, 1)
    other_mean, other_log_variance = parameters(4, 1)
    levels = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    first = Normal(mean, (0.5 * log_variance).exp()).icdf(levels)
    second = Normal(other_mean, (0.5 * other_log_variance).exp()).icdf(levels)
    exact = wasserstein2(mean, log_variance, other_mean, other_log_variance)
    assert float((first - second).square().mean()) == pytest.approx(float(exact), rel=1e-3)


def test_mixture_density_agrees_with_torch_distributions_and_integrates_to_one() -> None:
    means, log_variances = parameters(8, 3, 1, 1)
    log_weights = torch.tensor([[0.2], [0.5], [0.3]], dtype=torch.float64).log()
    mixture = MixtureSameFamily(
        Categorical(log_weights.exp()[:, 0]),
        Independent(Normal(means[:, 0], (0.5 * log_variances[:, 0]).exp()), 1),
    )
    values = GRID[::100, None]
    rows = len(values)
    density = gaussian.mixture_log_density(
        values, means.expand(3, rows, 1), log_variances.expand(3, rows, 1), log_weights.expand(3, rows)
    )
    torch.testing.assert_close(density, mixture.log_prob(values))
    assert float(density.exp().sum() * STEP * 100) == pytest.approx(1.0, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-10, 10))
def test_kl_and_wasserstein_are_never_negative_and_zero_for_equals(seed: int, shift: float) -> None:
    mean, log_variance = parameters(seed, 2, 3)
    other = mean + shift
    assert bool((gaussian.kl_divergence(mean, log_variance, other, log_variance) >= 0).all())
    assert bool((wasserstein2(mean, log_variance, other, log_variance) >= 0).all())
    assert float(gaussian.kl_divergence(mean, log_variance, mean, log_variance).abs().max()) < 1e-12
