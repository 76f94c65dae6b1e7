"""What every fusion holds to, and what each one is."""

from itertools import permutations

import pytest
import torch

from msvae import gaussian
from msvae.errors import ConfigError
from msvae.fusion import FUSIONS, build_fusion
from msvae.posterior import Experts, Posterior
from msvae.subsets import named_subsets

SOURCES, ROWS, LATENT = 3, 4, 2


def experts(present: torch.Tensor | None = None, seed: int = 0) -> Experts:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(SOURCES, ROWS, LATENT, generator=generator, dtype=torch.float64)
    log_variances = torch.randn(SOURCES, ROWS, LATENT, generator=generator, dtype=torch.float64)
    everything = torch.ones(SOURCES, ROWS, dtype=torch.bool)
    return Experts(means, log_variances, everything if present is None else present)


def assert_same(first: Posterior, second: Posterior) -> None:
    """Equal as distributions: equal densities at many codes, and equal means."""
    code = torch.randn(len(first), first.means.shape[2], dtype=torch.float64)
    for scale in (0.3, 1.0, 3.0):
        torch.testing.assert_close(first.log_density(scale * code), second.log_density(scale * code))
    torch.testing.assert_close(first.mean, second.mean)


@pytest.fixture(params=list(FUSIONS))
def fusion(request: pytest.FixtureRequest):
    return build_fusion(request.param, SOURCES)


def test_absent_sources_have_no_influence(fusion) -> None:
    present = torch.tensor([[True, False, True, False], [False, True, True, False], [True, True, False, True]])
    first, other = experts(present), experts(present, seed=1)
    mixed = Experts(
        torch.where(present[..., None], first.means, other.means),
        torch.where(present[..., None], first.log_variances, other.log_variances),
        present,
    )
    assert_same(fusion(first), fusion(mixed))


def test_a_source_of_weight_zero_is_as_good_as_absent(fusion) -> None:
    everything = torch.ones(SOURCES, ROWS, dtype=torch.bool)
    without_second = everything.clone()
    without_second[1] = False
    weights = torch.tensor([0.3, 0.0, 0.7], dtype=torch.float64)
    assert_same(fusion(experts(everything), weights), fusion(experts(without_second), weights))


def test_one_hot_weights_reproduce_the_source(fusion) -> None:
    for index in range(SOURCES):
        alone = torch.zeros(SOURCES, ROWS, dtype=torch.bool)
        alone[index] = True
        weights = torch.zeros(SOURCES, dtype=torch.float64)
        weights[index] = 2.5
        assert_same(fusion(experts(), weights), fusion(experts(alone)))


def test_only_the_ratios_of_weights_count(fusion) -> None:
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    assert_same(fusion(experts(), weights), fusion(experts(), 10 * weights))


def test_rows_without_sources_get_the_prior(fusion) -> None:
    present = torch.ones(SOURCES, ROWS, dtype=torch.bool)
    present[:, 2] = False
    posterior = fusion(experts(present))
    latent = fusion.latent_size(LATENT)
    code = torch.randn(ROWS, latent, dtype=torch.float64)
    zero = torch.zeros(latent, dtype=torch.float64)
    torch.testing.assert_close(posterior.log_density(code)[2], gaussian.log_density(code[2], zero, zero))
    assert float(posterior.kl_to_standard()[2]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in FUSIONS if name != "separate"])
def test_the_order_of_sources_does_not_matter(name: str) -> None:
    fusion, given = build_fusion(name, SOURCES), experts()
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    for order in map(list, permutations(range(SOURCES))):
        turned = Experts(given.means[order], given.log_variances[order], given.present[order])
        assert_same(fusion(given), fusion(turned))
        assert_same(fusion(given, weights), fusion(turned, weights[order]))


@pytest.mark.parametrize("name", ["moe", "barycenter"])
def test_one_given_source_is_that_source(name: str) -> None:
    alone = torch.zeros(SOURCES, ROWS, dtype=torch.bool)
    alone[1] = True
    given = experts(alone)
    assert_same(build_fusion(name, SOURCES)(given), Posterior.single(given.means[1], given.log_variances[1]))


def test_without_the_prior_expert_one_source_of_a_product_is_that_source() -> None:
    alone = torch.zeros(SOURCES, ROWS, dtype=torch.bool)
    alone[2] = True
    given = experts(alone)
    for name in ("poe", "mopoe"):
        fused = build_fusion(name, SOURCES, prior_expert=False)(given)
        assert_same(fused, Posterior.single(given.means[2], given.log_variances[2]))


def test_mopoe_is_the_mixture_of_the_products_of_all_subsets() -> None:
    given = experts()
    product = build_fusion("poe", SOURCES)
    code = torch.randn(ROWS, LATENT, dtype=torch.float64)
    densities = []
    for subset in named_subsets("012"):
        present = torch.zeros(SOURCES, ROWS, dtype=torch.bool)
        present[[int(source) for source in subset]] = True
        densities.append(product(given.restricted(present)).log_density(code).exp())
    fused = build_fusion("mopoe", SOURCES)(given)
    torch.testing.assert_close(fused.log_density(code).exp(), torch.stack(densities).mean(dim=0))


def test_separate_keeps_the_parts_apart() -> None:
    fusion, given = build_fusion("separate", SOURCES), experts()
    mean = fusion(given).mean
    for index in range(SOURCES):
        torch.testing.assert_close(fusion.code_of(mean, index), given.means[index])


def test_unknown_fusions_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'mopoe'"):
        build_fusion("mopo", SOURCES)


def test_samples_have_the_moments_of_the_mixture() -> None:
    posterior = build_fusion("mopoe", SOURCES)(experts())
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([posterior.sample(generator) for _ in range(20_000)])
    torch.testing.assert_close(draws.mean(dim=0), posterior.mean, atol=0.05, rtol=0)
    weights = posterior.log_weights.exp()[..., None]
    second = (weights * (posterior.means.square() + posterior.log_variances.exp())).sum(dim=0)
    torch.testing.assert_close(draws.square().mean(dim=0), second, atol=0.1, rtol=0.08)


def test_the_mixture_kl_is_an_upper_bound() -> None:
    posterior = build_fusion("mopoe", SOURCES)(experts())
    generator = torch.Generator().manual_seed(0)
    zero = torch.zeros(LATENT, dtype=torch.float64)
    estimates = []
    for _ in range(5000):
        code = posterior.sample(generator)
        estimates.append(posterior.log_density(code) - gaussian.log_density(code, zero, zero))
    sampled = torch.stack(estimates)
    slack = 4 * sampled.std(dim=0) / len(sampled) ** 0.5
    assert bool((posterior.kl_to_standard() > sampled.mean(dim=0) - slack).all())
