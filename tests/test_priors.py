"""The mixture fitted to codes, with observations of a code, and the score that compares who draws them."""

import math

import pytest
import torch

from msvae.flow.energy import energy_score, score_of_squares
from msvae.priors import FittedMixture
from msvae.priors import flow as fitted_flow
from msvae.priors.flow import FittedFlow

DRAWS = 200_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(components: int = 3, latent: int = 2) -> FittedMixture:
    found = FittedMixture(components, latent)
    found.weights.copy_(torch.tensor([0.5, 0.3, 0.2][:components]))
    found.weights /= found.weights.sum()
    found.means.copy_(torch.tensor([[-2.0, 0.0], [1.5, 1.0], [0.0, -2.5]])[:components])
    found.factors.copy_(
        torch.tensor([[[0.6, 0.0], [0.3, 0.5]], [[0.4, 0.0], [0.0, 0.8]], [[1.0, 0.0], [-0.5, 0.3]]])[:components]
    )
    found.fitted.fill_(True)
    return found


def test_a_gaussian_given_an_observation_is_the_textbooks() -> None:
    prior = mixture(1)
    precision, seen = torch.tensor([4.0, 0.5]), torch.tensor([1.0, -2.0])
    covariance = torch.linalg.inv(torch.linalg.inv(prior.factors[0] @ prior.factors[0].T) + precision.diag())
    mean = prior.means[0] + covariance @ (precision * (seen - prior.means[0]))
    codes = prior.sample_given(precision.expand(DRAWS, 2), (precision * seen).expand(DRAWS, 2), generator())
    torch.testing.assert_close(codes.mean(dim=0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(codes.T.cov(), covariance, atol=0.01, rtol=0)


def test_a_mixture_given_observations_is_its_prior_weighed_by_their_likelihood() -> None:
    """By importance: draws of the prior, each counted as often as the observations are likely."""
    prior = mixture()
    precision, seen = torch.tensor([[1.0, 0.3], [0.4, 0.0]]), torch.tensor([[0.2, -0.5], [-1.0, 9.0]])
    together, pull = precision.sum(dim=0), (precision * seen).sum(dim=0)
    codes = prior.sample_given(together.expand(DRAWS, 2), pull.expand(DRAWS, 2), generator())
    free = prior.sample(4 * DRAWS, generator(1))
    counts = (-0.5 * precision * (seen - free[:, None]).square()).sum(dim=(1, 2)).exp()
    counts = counts / counts.sum()
    mean = counts @ free
    torch.testing.assert_close(codes.mean(dim=0), mean, atol=0.02, rtol=0)
    spread = (counts[:, None] * (free - mean)).T @ (free - mean)
    torch.testing.assert_close(codes.T.cov(), spread, atol=0.03, rtol=0)


def test_rows_differ_in_what_they_were_given_and_nothing_leaves_the_mixture() -> None:
    prior = mixture()
    precision = torch.tensor([[0.0, 0.0], [1e6, 1e6]]).repeat(DRAWS // 2, 1)
    codes = prior.sample_given(precision, precision * torch.tensor([5.0, 5.0]), generator())
    free, told = codes[::2], codes[1::2]
    torch.testing.assert_close(free.mean(dim=0), prior.weights @ prior.means, atol=0.03, rtol=0)
    torch.testing.assert_close(free.T.cov(), prior.sample(DRAWS, generator(1)).T.cov(), atol=0.05, rtol=0)
    torch.testing.assert_close(told, torch.full_like(told, 5.0), atol=0.01, rtol=0)


def test_precise_observations_count_the_same_where_training_computes_in_bf16() -> None:
    prior = mixture()
    precision = torch.full((500, 2), 900.0)
    pull = precision * torch.linspace(-2, 2, 500)[:, None]
    exact = prior.sample_given(precision, pull, generator())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(prior.sample_given(precision, pull, generator()), exact)


def test_a_flow_is_fitted_the_same_where_training_computes_in_bf16_and_leaves_no_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("zuko")
    monkeypatch.setattr(fitted_flow, "STEPS", 20)
    codes = torch.randn(200, 2, generator=generator()) * 3
    found = []
    for computing in (False, True):
        torch.manual_seed(0)
        prior = FittedFlow(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=computing):
            prior.fit(codes)
        assert all(p.grad is None for p in prior.parameters())
        found.append(prior.log_density(codes))
    torch.testing.assert_close(found[0], found[1])


def test_unused_components_are_never_drawn() -> None:
    prior = FittedMixture(20, 2)
    prior.fit(torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.1, 0.1]]))
    codes = prior.sample_given(torch.ones(1000, 2), torch.zeros(1000, 2), generator())
    assert bool(torch.isfinite(codes).all())
    assert float(codes.abs().max()) < 1.0


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.2), (0.0, 3.0)])
def test_the_energy_score_is_that_of_two_normals(mean: float, deviation: float) -> None:
    """E |N(m, s^2)| = s sqrt(2 / pi) exp(-m^2 / 2 s^2) + m erf(m / s sqrt 2)."""

    def size(m: float, s: float) -> float:
        return s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(m / (s * math.sqrt(2)))

    truth = torch.randn(100_000, 1, generator=generator())
    draws = mean + deviation * torch.randn(4, 100_000, 1, generator=generator(1))
    expected = size(mean, math.hypot(1.0, deviation)) - size(0.0, deviation * math.sqrt(2)) / 2
    assert float(energy_score(draws, truth)) == pytest.approx(expected, abs=0.01)


def test_the_energy_score_is_least_for_the_truths_own_distribution() -> None:
    truth = torch.randn(2000, 8, generator=generator())
    noise = torch.randn(4, 2000, 8, generator=generator(1))
    own = float(energy_score(noise, truth))
    assert own < min(float(energy_score(changed, truth)) for changed in (0.3 * noise, 2.0 * noise, noise + 0.5))
    with pytest.raises(ValueError, match="two draws or more"):
        energy_score(noise[:1], truth)


def test_the_score_of_single_pixels_is_the_energy_score_of_their_colours() -> None:
    """And of one channel, for N(0, 1) and a truth y, its expectation is y (2 P(y) - 1) + 2 p(y) - 1 / sqrt(pi)."""
    one, other, truth = torch.randn(3, 50, 4, 1, 1, generator=generator()).double()
    theirs = energy_score(torch.stack([one, other]).flatten(2), truth.flatten(1))
    torch.testing.assert_close(score_of_squares(one, other, truth) / 50, theirs / 2)  # root of the mean, not of the sum
    one, other = torch.randn(2, 200_000, 1, 1, 1, generator=generator()).double()
    for y in (0.0, 0.8, -2.0):
        normal = torch.distributions.Normal(0.0, 1.0)
        below, density = float(normal.cdf(torch.tensor(y))), math.exp(float(normal.log_prob(torch.tensor(y))))
        expected = y * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi)
        found = float(score_of_squares(one, other, torch.full_like(one, y))) / len(one)
        assert found == pytest.approx(expected, abs=0.01)
