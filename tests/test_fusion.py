"""What every fusion holds to, and what each one is."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from conftest import random_batch, tiny_model
from msvae import gaussian
from msvae.errors import ConfigError
from msvae.fusion import FUSIONS, Fusion, FusionSettings
from msvae.fusion import build_fusion as build
from msvae.fusion.base import normalised, spread
from msvae.posterior import Experts, Posterior
from msvae.subsets import named_subsets

SOURCES, ROWS, LATENT = 3, 4, 2


def experts(present: torch.Tensor | None = None, seed: int = 0) -> Experts:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(SOURCES, ROWS, LATENT, generator=generator, dtype=torch.float64)
    log_variances = torch.randn(SOURCES, ROWS, LATENT, generator=generator, dtype=torch.float64)
    everything = torch.ones(SOURCES, ROWS, dtype=torch.bool)
    return Experts(means, log_variances, everything if present is None else present)


def build_fusion(name: str, source_count: int = SOURCES, **settings: object) -> Fusion:
    """A fusion in double precision, its learned parts with fixed random weights."""
    torch.manual_seed(0)
    fusion = build(name, FusionSettings(source_count, LATENT, **settings)).double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return fusion


def assert_same(first: Posterior, second: Posterior) -> None:
    """Equal as distributions: equal densities at many codes, and equal means."""
    code = torch.randn(len(first), first.means.shape[2], dtype=torch.float64)
    for scale in (0.3, 1.0, 3.0):
        torch.testing.assert_close(first.log_density(scale * code), second.log_density(scale * code))
    torch.testing.assert_close(first.mean, second.mean)


@pytest.fixture(params=list(FUSIONS))
def fusion(request: pytest.FixtureRequest):
    return build_fusion(request.param)


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
    assert float(posterior.kl_to_standard()[2].detach()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in FUSIONS if FUSIONS[name].symmetric])
def test_the_order_of_sources_does_not_matter(name: str) -> None:
    fusion, given = build_fusion(name, SOURCES), experts()
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    for order in map(list, permutations(range(SOURCES))):
        turned = Experts(given.means[order], given.log_variances[order], given.present[order])
        assert_same(fusion(given), fusion(turned))
        assert_same(fusion(given, weights), fusion(turned, weights[order]))


@pytest.mark.parametrize(
    "name", ["moe", "gpoe", "average", "barycenter", "barycenters", "hellinger", "hellinger_mixture"]
)
def test_one_given_source_is_that_source(name: str) -> None:
    alone = torch.zeros(SOURCES, ROWS, dtype=torch.bool)
    alone[1] = True
    given = experts(alone)
    assert_same(build_fusion(name, SOURCES)(given), Posterior.single(given.means[1], given.log_variances[1]))


def test_without_the_prior_expert_one_source_of_a_product_is_that_source() -> None:
    alone = torch.zeros(SOURCES, ROWS, dtype=torch.bool)
    alone[2] = True
    given = experts(alone)
    for name in ("poe", "mopoe", "consensus", "joint"):
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


@pytest.mark.parametrize("weights", [None, [0.2, 0.5, 0.3], [8.0, 1.0, 0.0]])
def test_the_consensus_is_the_generalised_least_squares_of_dependent_experts(weights: list[float] | None) -> None:
    """Against the covariance matrix, inverted as it stands; a weight scales a precision and the common error."""
    rho, given = 0.3, experts()
    vector = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    fused = build_fusion("consensus", prior_expert=False, dependence=rho)(given, vector)
    share = torch.ones(SOURCES, dtype=torch.float64) if vector is None else vector / vector.sum()
    known = share > 0
    deviation = ((0.5 * given.log_variances).exp() / share.sqrt()[:, None, None])[known]
    loading = (rho * share / share.max()).sqrt()[known]
    correlation = torch.outer(loading, loading)
    correlation.fill_diagonal_(1.0)
    for row in range(ROWS):
        for dimension in range(LATENT):
            s = deviation[:, row, dimension]
            inverse = torch.linalg.inv(correlation * torch.outer(s, s))
            precision = inverse.sum()
            mean = (inverse @ given.means[known, row, dimension]).sum() / precision
            torch.testing.assert_close(fused.means[0, row, dimension], mean)
            torch.testing.assert_close(fused.log_variances[0, row, dimension], -precision.log())


@settings(max_examples=50, deadline=None)
@drawn(st.integers(0, 10_000), st.floats(0, 0.95))
def test_the_consensus_is_a_gaussian_whatever_the_weights(seed: int, rho: float) -> None:
    """In 32 bits, of experts that are far from equally sure."""
    draws = torch.Generator().manual_seed(seed)
    means, log_variances = (torch.randn(5, 20, 8, generator=draws) * scale for scale in (3.0, 6.0))
    some = Experts(means, log_variances.clamp(-12, 12), torch.rand(5, 20, generator=draws) < 0.7)
    weights = torch.rand(5, generator=draws).pow(4) + 1e-4
    fused = build("consensus", FusionSettings(5, 8, prior_expert=False, dependence=rho))(some, weights)
    assert bool(torch.isfinite(fused.mean).all())
    assert bool(torch.isfinite(fused.log_variances).all())


@pytest.mark.parametrize("prior_expert", [True, False])
def test_independent_experts_in_consensus_are_a_product(prior_expert: bool) -> None:
    present = torch.tensor([[True, False, True, True], [False, True, True, True], [True, True, False, True]])
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    product = build_fusion("poe", prior_expert=prior_expert)
    consensus = build_fusion("consensus", prior_expert=prior_expert, dependence=0.0)
    assert_same(product(experts(present)), consensus(experts(present)))
    assert_same(product(experts(present), weights), consensus(experts(present), weights))


def test_the_consensus_moves_smoothly_to_a_source_that_takes_over() -> None:
    fusion = build_fusion("consensus", prior_expert=False, dependence=0.6)
    nearly = fusion(experts(), torch.tensor([1.0, 1e-9, 1e-9], dtype=torch.float64))
    only = fusion(experts(), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(nearly.mean, only.mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(nearly.log_variances, only.log_variances, atol=1e-3, rtol=0)


@pytest.mark.parametrize("weights", [None, [0.2, 0.5, 0.3]])
def test_hellinger_is_the_normalised_square_of_the_sum_of_roots(weights: list[float] | None) -> None:
    """Against numerical integration, in one dimension."""
    grid = torch.linspace(-25, 25, 20_001, dtype=torch.float64)
    given = experts()
    one = Experts(given.means[:, :1, :1], given.log_variances[:, :1, :1], given.present[:, :1])
    roots = (0.5 * gaussian.log_density(grid[:, None, None, None], one.means, one.log_variances)).exp()[:, :, 0]
    shares = torch.tensor(weights or [1.0, 1.0, 1.0], dtype=torch.float64)
    density = (roots * shares).sum(dim=1).square()
    density = density / torch.trapezoid(density, grid)
    turned = None if weights is None else shares
    mixture = build("hellinger_mixture", FusionSettings(SOURCES, 1))(one, turned)
    torch.testing.assert_close(mixture.log_density(grid[:, None, None])[:, 0].exp(), density, atol=1e-10, rtol=1e-6)
    moments = build("hellinger", FusionSettings(SOURCES, 1))(one, turned)
    mean = torch.trapezoid(grid * density, grid)
    torch.testing.assert_close(moments.mean[0, 0], mean, atol=1e-8, rtol=1e-6)
    variance = torch.trapezoid((grid - mean).square() * density, grid)
    torch.testing.assert_close(moments.log_variances[0, 0, 0].exp(), variance, atol=1e-8, rtol=1e-6)


def test_hellinger_survives_sources_that_have_nothing_in_common() -> None:
    means = torch.tensor([[[-300.0, 0.0]], [[300.0, 0.0]], [[0.0, 500.0]]], dtype=torch.float64, requires_grad=True)
    far = Experts(means, torch.zeros(3, 1, 2, dtype=torch.float64), torch.ones(3, 1, dtype=torch.bool))
    fused = build("hellinger", FusionSettings(3, 2))(far)
    (fused.mean.sum() + fused.kl_to_standard().sum()).backward()
    assert bool(torch.isfinite(means.grad).all())


def test_mixtures_of_barycenters_are_those_of_all_subsets() -> None:
    given = experts()
    barycenter = build_fusion("barycenter")
    code = torch.randn(ROWS, LATENT, dtype=torch.float64)
    densities = []
    for subset in named_subsets("012"):
        present = torch.zeros(SOURCES, ROWS, dtype=torch.bool)
        present[[int(source) for source in subset]] = True
        densities.append(barycenter(given.restricted(present)).log_density(code).exp())
    fused = build_fusion("barycenters")(given)
    torch.testing.assert_close(fused.log_density(code).exp(), torch.stack(densities).mean(dim=0))


def test_the_average_is_that_of_means_and_log_variances() -> None:
    given = experts()
    fused = build_fusion("average")(given)
    torch.testing.assert_close(fused.mean, given.means.mean(dim=0))
    torch.testing.assert_close(fused.log_variances[0], given.log_variances.mean(dim=0))


def test_the_generalised_product_has_the_learned_powers() -> None:
    given, fusion = experts(), build_fusion("gpoe")
    powers = torch.softmax(fusion.logits.detach(), dim=0)
    precision = powers * (-given.log_variances).exp()
    fused = fusion(given)
    torch.testing.assert_close(fused.mean, (precision * given.means).sum(dim=0) / precision.sum(dim=0))
    torch.testing.assert_close(fused.log_variances[0], -precision.sum(dim=0).log())


def test_a_weak_source_is_heard_where_no_strong_one_is() -> None:
    present = torch.ones(SOURCES, ROWS, dtype=torch.bool)
    present[1:, 0] = False
    present[:, 1] = False
    given, fusion = experts(present), build_fusion("gpoe")
    with torch.no_grad():
        fusion.logits[0] = -1000.0  # e^-1000 of the others is nothing
    fused = fusion(given)
    torch.testing.assert_close(fused.mean[0], given.means[0, 0])
    torch.testing.assert_close(fused.mean[1], torch.zeros_like(fused.mean[1]))


def test_a_joint_encoder_reads_complete_rows_and_leaves_others_to_the_product() -> None:
    present = torch.ones(SOURCES, ROWS, dtype=torch.bool)
    present[1, 2] = False
    fusion = build_fusion("joint")
    tokens = torch.randn(SOURCES, ROWS, fusion.token_size(LATENT), dtype=torch.float64)
    given = replace(experts(present), tokens=tokens)
    fused, product = fusion(given), build_fusion("poe", prior_expert=False)(experts(present))
    torch.testing.assert_close(fused.mean[2], product.mean[2])
    expected = fusion.read(tokens.transpose(0, 1).flatten(1))[0, :LATENT]
    torch.testing.assert_close(fused.mean[0], expected)


def test_the_product_of_flows_counts_the_prior_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code of N(0, 1) that two sources see with noise of variance 1, flows that are the posteriors given one of them:
    given both, the posterior is N((x_1 + x_2) / 3, 1/3)."""
    seen = torch.tensor([[2.0, 1.0, -0.5], [2.0, -0.4, 0.1]], dtype=torch.float64)
    fusion = build("joint_flows", FusionSettings(2, 1)).double()
    fusion.noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(fusion, "_heard", lambda given: [(KnownFlow, mean) for mean in given.means])
    none = torch.zeros(2, 3, 1, dtype=torch.float64)
    given = Experts(seen[..., None] / 2, none, torch.ones(2, 3, dtype=torch.bool))
    fused = fusion(given)
    second = (fused.log_weights.exp()[..., None] * (fused.means.square() + fused.log_variances.exp())).sum(dim=0)
    torch.testing.assert_close(fused.mean[:, 0], seen.sum(dim=0) / 3, atol=0.04, rtol=0)
    torch.testing.assert_close(
        (second - fused.mean.square())[:, 0], torch.full((3,), 1 / 3).double(), atol=0.03, rtol=0
    )
    even = fusion(given, torch.ones(2, dtype=torch.float64))  # powers of a half: the prior is counted once as it stands
    torch.testing.assert_close(even.mean[:, 0], seen.sum(dim=0) / 4, atol=0.04, rtol=0)


class KnownFlow:
    """N(mean, 1/2) in place of a trained flow."""

    def __init__(self, mean: torch.Tensor) -> None:
        self.normal = torch.distributions.Normal(mean, math.sqrt(0.5))
        self.transform = torch.distributions.AffineTransform(mean, math.sqrt(0.5)).inv

    def log_prob(self, codes: torch.Tensor) -> torch.Tensor:
        return self.normal.log_prob(codes).sum(dim=-1)


class Loudest(Fusion):
    """A toy fusion: the source with the largest weight speaks, the first of equals."""

    symmetric = False

    def forward(self, experts: Experts, weights: torch.Tensor | None = None) -> Posterior:
        shares = normalised(spread(experts, weights))
        first = torch.nn.functional.one_hot(shares.argmax(dim=0), len(shares)).T * (shares > 0)
        return Posterior.mixture(experts.means, experts.log_variances, first.to(shares.dtype))


def test_a_new_fusion_is_a_class_and_a_registry_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUSIONS, "loudest", Loudest)
    fusion = build_fusion("loudest")
    test_absent_sources_have_no_influence(fusion)
    test_a_source_of_weight_zero_is_as_good_as_absent(fusion)
    test_one_hot_weights_reproduce_the_source(fusion)
    test_only_the_ratios_of_weights_count(fusion)
    test_rows_without_sources_get_the_prior(fusion)
    model = tiny_model(fusion="loudest")
    loss = model.loss(random_batch(model), torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(loss.total))
    assert len(model.sample(random_batch(model).select(["blue"]))) == 5


def test_unknown_fusions_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'mopoe'"):
        build_fusion("mopo")


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
