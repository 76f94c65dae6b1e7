"""The flow's parts: exact paths and samplers, fusion identities, losses against independent computations."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msvae import flow
from msvae.evaluation.flow_likelihood import STEPS
from msvae.flow.coded import CodeEvidence
from msvae.flow.content import LOGIT_LIMIT, Content, contrast, pooled
from msvae.flow.converter import Converter, log_of
from msvae.flow.density import log_density, normal_log_density
from msvae.flow.sampler import step_times
from msvae.networks.spatial import MapNetworks
from msvae.networks.transformer import Transformer, attention, grid_positions, hidden_where
from msvae.source import Source, SourceBatch
from msvae.subsets import random_half, subset_of_any_size

MEAN, DEVIATION = 1.5, 0.4


def gaussian_velocity(state: Tensor, time: Tensor) -> Tensor:
    """E[data - noise | x_t] for data ~ N(MEAN, DEVIATION^2): both are jointly Gaussian with x_t."""
    t = time[:, None]
    variance = t**2 * DEVIATION**2 + (1 - t) ** 2
    return MEAN + (t * DEVIATION**2 - (1 - t)) / variance * (state - t * MEAN)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_flow_of_a_gaussian_carries_noise_to_mean_plus_deviation_times_noise() -> None:
    start = noise(50, 3)
    expected = MEAN + DEVIATION * start
    errors = [float((flow.sample(gaussian_velocity, start, n) - expected).abs().max()) for n in (50, 100, 200)]
    assert errors[2] < 0.03
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.3)  # Euler's error is of first order
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.3)


def test_adams_error_is_of_second_order() -> None:
    start = noise(50, 3)
    expected = MEAN + DEVIATION * start
    errors = [
        float((flow.sample(gaussian_velocity, start, n, solver="adams") - expected).abs().max()) for n in (50, 100, 200)
    ]
    assert errors[2] < 0.001
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.6)
    assert errors[1] / errors[2] == pytest.approx(4, abs=0.6)


@pytest.mark.parametrize("early", [0.5, 3.0])
def test_adams_is_exact_where_the_velocity_is_linear_in_time_after_its_first_step(early: float) -> None:
    def velocity(state: Tensor, time: Tensor) -> Tensor:
        return time[:, None].expand_as(state)

    found = flow.sample(velocity, noise(2, 3), 7, early, "adams") - noise(2, 3)
    lost = step_times(7, early)[1] ** 2 / 2  # of the first step, which has no step before it
    torch.testing.assert_close(found, torch.full((2, 3), 0.5 - lost).double())


def test_one_step_from_noise_is_the_mean() -> None:
    torch.testing.assert_close(flow.sample(gaussian_velocity, noise(20, 3), 1), torch.full((20, 3), MEAN).double())


def test_the_density_of_a_gaussian_is_known() -> None:
    data = MEAN + DEVIATION * noise(20, 3)
    known = torch.distributions.Normal(MEAN, DEVIATION).log_prob(data).sum(dim=1)
    for exact in (True, False):  # the Jacobian is diagonal: one sign vector gives its trace
        found = log_density(gaussian_velocity, data, 100, exact=exact)
        torch.testing.assert_close(found, known, atol=2e-3, rtol=0)


@pytest.mark.parametrize("deviation", [0.01, 0.05, 1.0])
def test_the_density_of_a_narrow_direction_is_no_overestimate(deviation: float) -> None:
    """Far outside of it, where the usual number of equal steps takes -46 for -29 nats."""
    data = 0.1 * noise(200, 1)

    def velocity(state: Tensor, time: Tensor) -> Tensor:
        t = time[:, None]
        return (t * deviation**2 - (1 - t)) / (t**2 * deviation**2 + (1 - t) ** 2) * state

    known = torch.distributions.Normal(0.0, deviation).log_prob(data).sum(dim=1)
    found = log_density(velocity, data, STEPS, exact=True)
    torch.testing.assert_close(found, known, atol=0.01, rtol=0.005)


def test_hutchinsons_divergence_is_right_on_average() -> None:
    """dx/dt = A x carries N(0, I) to x_1 = e^A x_0, whose log-density falls by tr A."""
    matrix = 0.5 * noise(3, 3, seed=1)
    data = noise(1, 3).expand(4000, 3)
    known = normal_log_density(data[:1] @ torch.matrix_exp(-matrix).T) - matrix.trace()

    def velocity(state: Tensor, time: Tensor) -> Tensor:
        return state @ matrix.T

    exact = log_density(velocity, data[:1], 100, exact=True)
    torch.testing.assert_close(exact, known, atol=1e-3, rtol=0)
    drawn = log_density(velocity, data, 20, torch.Generator().manual_seed(0))
    error = float(drawn.std()) / math.sqrt(len(drawn))
    assert error > 0
    assert float(drawn.mean()) == pytest.approx(float(known), abs=4 * error + 1e-3)
    with pytest.raises(ValueError, match="at least one step"):
        log_density(velocity, data, 0)


@pytest.mark.parametrize("early", [0.5, 1.0, 3.0])
def test_inversion_finds_the_noise_again(early: float) -> None:
    start = noise(50, 3)
    data = flow.sample(gaussian_velocity, start, 20, early)
    found = flow.invert(gaussian_velocity, data, 20, early, corrections=30)
    torch.testing.assert_close(found, start, atol=1e-6, rtol=0)


def test_early_steps_are_shorter_and_reach_the_end() -> None:
    times = torch.tensor(step_times(8, early=3.0))
    assert float(times[0]) == 0.0
    assert float(times[-1]) == 1.0
    assert bool((times.diff().diff() > 0).all())
    torch.testing.assert_close(torch.tensor(step_times(8)), torch.arange(9) / 8)
    with pytest.raises(ValueError, match="early > 0"):
        step_times(8, 0.0)


def clean_prediction(state: torch.Tensor, velocity: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """E[data | x_t] = x_t + (1 - t) E[data - noise | x_t]."""
    return state + (1 - time.view(-1, *[1] * (state.dim() - 1))) * velocity


def test_the_clean_prediction_of_a_gaussian_is_its_conditional_mean() -> None:
    """E[data | x_t] = MEAN + t s^2 / (t^2 s^2 + (1-t)^2) (x_t - t MEAN), by linear regression of jointly Gaussians."""
    time, state = torch.linspace(0, 0.99, 20).double(), noise(20, 3)
    t = time[:, None]
    gain = t * DEVIATION**2 / (t**2 * DEVIATION**2 + (1 - t) ** 2)
    expected = MEAN + gain * (state - t * MEAN)
    torch.testing.assert_close(clean_prediction(state, gaussian_velocity(state, time), time), expected)


def test_the_regression_target_has_that_mean() -> None:
    """Monte Carlo: data - noise, averaged over paths through one place at one time."""
    rows = 400_000
    data, start = MEAN + DEVIATION * noise(rows, 1), noise(rows, 1, seed=1)
    time = torch.full((rows,), 0.6).double()
    state = flow.noisy(data, start, time)
    near = (state - 1.0).abs().squeeze(1) < 0.02
    measured = float(flow.path_velocity(data, start)[near].mean())
    assert measured == pytest.approx(float(gaussian_velocity(torch.ones(1, 1).double(), time[:1])), abs=0.03)


def test_training_points_lie_on_paths_and_some_are_at_the_mean() -> None:
    data = torch.randn(5000, 2, 3, generator=torch.Generator().manual_seed(0))
    points = flow.path_points(data, 1.0, torch.Generator().manual_seed(1))
    ends = clean_prediction(points.state, points.velocity, points.time)
    torch.testing.assert_close(ends, data, atol=1e-4, rtol=1e-4)
    mean = points.time == 0
    assert float(mean.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(points.state[mean].abs().max()) == 0
    assert torch.equal(points.velocity[mean], data[mean])


def test_times_are_logit_normal() -> None:
    times = flow.path_times(200_000, 1.2, torch.Generator().manual_seed(0))
    logits = torch.logit(times)
    assert float(logits.mean()) == pytest.approx(0, abs=0.02)
    assert float(logits.std()) == pytest.approx(1.2, abs=0.02)


def test_guidance_and_composition_identities() -> None:
    conditional, unconditional = noise(4, 3), noise(4, 3, seed=1)
    torch.testing.assert_close(flow.guided_velocity(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(flow.guided_velocity(conditional, unconditional, 0.0), unconditional)
    both = torch.stack([conditional, noise(4, 3, seed=2)])
    one_hot = torch.tensor([[1.0] * 4, [0.0] * 4]).double()
    torch.testing.assert_close(flow.composed_velocity(both, unconditional, one_hot), conditional)
    both[1] = 1e9
    torch.testing.assert_close(flow.composed_velocity(both, unconditional, one_hot), conditional)


def test_composed_gaussian_scores_are_those_of_their_product() -> None:
    """With weights 1, velocities add up as scores do: the velocity is affine in the score at each time."""
    state, t = noise(6, 2), 0.7

    def score(mean: float, variance: float) -> Tensor:
        return -(state - t * mean) / (t**2 * variance + (1 - t) ** 2)

    def velocity(mean: float, variance: float) -> Tensor:
        return state / t + (1 - t) / t * score(mean, variance)

    parts = [(0.5, 0.3), (-1.0, 0.2)]
    together = flow.composed_velocity(
        torch.stack([velocity(*part) for part in parts]), velocity(0.0, 1.0), torch.ones(2, 6).double()
    )
    total = score(*parts[0]) + score(*parts[1]) - score(0.0, 1.0)
    torch.testing.assert_close(together, state / t + (1 - t) / t * total)


def test_attention_is_pytorchs() -> None:
    queries, keys, values = (torch.randn(2, 3, 5, 4) for _ in range(3))
    bias = torch.randn(2, 1, 1, 5)
    expected = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    torch.testing.assert_close(attention(queries, keys, values, bias), expected)


def test_hidden_tokens_have_no_influence() -> None:
    torch.manual_seed(0)
    transformer = Transformer(16, 2, 2)
    tokens, condition = torch.randn(3, 6, 16), torch.randn(3, 16)
    hidden = torch.tensor([False, False, True, False, True, False]).expand(3, -1)
    reference = transformer(tokens, condition, hidden_where(hidden))
    changed = torch.where(hidden[..., None], 1e3 * torch.randn_like(tokens), tokens)
    answer = transformer(changed, condition, hidden_where(hidden))
    assert torch.equal(answer[~hidden], reference[~hidden])
    kept = transformer(tokens[:, ~hidden[0]], condition)
    torch.testing.assert_close(kept, reference[:, ~hidden[0]])


def test_positions_tell_all_cells_apart() -> None:
    positions = grid_positions(4, 7, 32)
    assert positions.shape == (28, 32)
    assert float(torch.cdist(positions, positions).fill_diagonal_(9).min()) > 0.1


def evidence(rows: int = 7, sources: int = 3, slots: int = 2, size: int = 4) -> CodeEvidence:
    generator = torch.Generator().manual_seed(0)
    tokens = F.normalize(torch.randn(sources, rows, slots, size, generator=generator), dim=-1) * math.sqrt(size)
    present = torch.rand(sources, rows, generator=generator) < 0.6
    present[0, 0], present[:, 1] = True, False
    logits = torch.randn(sources, rows, slots, generator=generator)
    return CodeEvidence(tokens * present[..., None, None], logits * present[..., None], present)


def test_normalised_attention_is_no_sharper_where_its_weights_are_larger() -> None:
    torch.manual_seed(0)
    tokens, condition = torch.randn(4, 6, 16), torch.randn(4, 16)
    answers = {}
    for normalised in (False, True):
        network = Transformer(16, 2, 2, normalised)
        answers[normalised] = [network(tokens, condition)]
        with torch.no_grad():
            for block in network.blocks:
                block.queries_keys_values.weight[:32] *= 50  # queries and keys, not values
                block.queries_keys_values.bias[:32] *= 50
        answers[normalised].append(network(tokens, condition))
    torch.testing.assert_close(answers[True][0], answers[True][1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(answers[False][0], answers[False][1], atol=1e-2)


def test_pooling_against_a_loop() -> None:
    given = evidence()
    weights = torch.tensor([0.5, 0.0, 2.0])
    answer = pooled(given, log_of(weights[:, None].expand(-1, 7)))
    for row in range(7):
        for slot in range(2):
            shares = [
                float(a) * math.exp(float(given.logits[m, row, slot])) if given.present[m, row] else 0.0
                for m, a in enumerate(weights)
            ]
            total = sum(s * given.tokens[m, row, slot] for m, s in enumerate(shares))
            assert isinstance(total, Tensor)
            expected = total / total.norm() * 2 if sum(shares) > 0 else torch.zeros(4)
            torch.testing.assert_close(answer[row, slot], expected)


def test_pooling_identities() -> None:
    given = evidence()
    everyone = pooled(given)
    assert float(everyone[1].abs().max()) == 0  # a row without sources
    without = pooled(given, log_of(torch.tensor([1.0, 0.0, 1.0])[:, None].expand(-1, 7)))
    hidden = torch.tensor([True, False, True])[:, None].expand(-1, 7)
    assert torch.equal(without, pooled(given.restricted(hidden)))
    alone = pooled(given, log_of(torch.tensor([0.0, 0.0, 5.0])[:, None].expand(-1, 7)))
    torch.testing.assert_close(alone, given.tokens[2])


def test_contrast_against_a_loop() -> None:
    first, second = (F.normalize(torch.randn(5, 2, 3), dim=-1) * math.sqrt(3) for _ in range(2))
    total = 0.0
    for one, other in ((first, second), (second, first)):
        for i in range(5):
            scores = [float((one[i] * other[j]).sum()) / 6 / 0.1 for j in range(5)]
            total -= scores[i] - math.log(sum(math.exp(score) for score in scores))
    assert float(contrast(first, second)) == pytest.approx(total / 10, rel=1e-4)


def test_random_halves_and_subsets() -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(4, 4000, generator=generator) < 0.7
    half = random_half(present, generator)
    several = present.sum(dim=0) > 1
    assert not bool((half & ~present).any())
    assert bool(half[:, several].any(dim=0).all())
    assert bool((present & ~half)[:, several].any(dim=0).all())
    subset = subset_of_any_size(present, generator)
    assert not bool((subset & ~present).any())
    whole = present.all(dim=0)
    sizes = torch.bincount(subset[:, whole].sum(dim=0), minlength=5) / int(whole.sum())
    torch.testing.assert_close(sizes, torch.tensor([0.4, 0.15, 0.15, 0.15, 0.15]), atol=0.04, rtol=0)


@pytest.fixture
def converter() -> Converter:
    torch.manual_seed(0)
    return Converter(["a", "b", "c"], slots=2, size=4, width=16, depth=2, heads=2)


def test_the_converter_sees_given_sources_alone(converter: Converter) -> None:
    given, state, time = evidence(), torch.randn(7, 2, 4), torch.rand(7)
    hidden = given.restricted(torch.tensor([True, False, True])[:, None].expand(-1, 7))
    weighted = converter.velocity(given, log_of(torch.tensor([1.0, 0.0, 1.0])[:, None].expand(-1, 7)))(state, time)
    assert torch.equal(weighted, converter.velocity(hidden)(state, time))
    assert not torch.equal(weighted, converter.velocity(given)(state, time))


def test_guidance_multiplies_what_the_evidence_adds(converter: Converter) -> None:
    given, state, time = evidence(), torch.randn(7, 2, 4), torch.rand(7)
    nothing = given.restricted(torch.zeros_like(given.present))
    conditional, free = (converter.velocity(each)(state, time) for each in (given, nothing))
    torch.testing.assert_close(converter.guided(given, 2.5)(state, time), free + 2.5 * (conditional - free))
    assert torch.equal(converter.guided(given, 1.0)(state, time), conditional)
    torch.testing.assert_close(converter.guided(nothing, 2.5)(state, time), free)


def test_composition_of_one_source_is_its_own_flow(converter: Converter) -> None:
    given, state, time = evidence(), torch.randn(7, 2, 4), torch.rand(7)
    one_hot = torch.tensor([0.0, 0.0, 1.0])[:, None].expand(-1, 7)
    only = given.restricted(one_hot > 0)
    expected = converter.velocity(only)(state, time)
    torch.testing.assert_close(converter.composed(given, one_hot)(state, time), expected, atol=1e-5, rtol=1e-5)


def test_the_converter_learns_a_conditional_distribution() -> None:
    """w = token of `a` + noise: drawn codes have its mean and spread given `a`, and all four signs given nothing."""
    torch.manual_seed(0)
    model = Converter(["a", "b"], slots=1, size=2, width=32, depth=1, heads=2)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)

    def rows(count: int) -> tuple[CodeEvidence, Tensor]:
        sign = torch.sign(torch.randn(count, 1, 2, generator=generator))
        present = torch.ones(2, count, dtype=torch.bool)
        given = CodeEvidence(torch.stack([sign, torch.zeros_like(sign)]), torch.zeros(2, count, 1), present)
        return given, sign + 0.2 * torch.randn(count, 1, 2, generator=generator)

    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 8e-3 * (1 - step / 200)
        given, code = rows(128)
        loss = model.loss(given, code, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        given, _ = rows(500)
        start = torch.randn(500, 1, 2, generator=generator)
        drawn = flow.sample(model.velocity(given), start, 20)
        gap = drawn - given.tokens[0]
        assert float(gap.mean().abs()) < 0.1
        assert float(gap.std()) == pytest.approx(0.2, abs=0.15)
        nothing = given.restricted(torch.zeros(2, 500, dtype=torch.bool))
        free = flow.sample(model.velocity(nothing), start, 20)
        quarters = torch.bincount(((free[:, 0, 0] > 0).long() * 2 + (free[:, 0, 1] > 0).long()), minlength=4) / 500
        torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=0.1, rtol=0)
        nothing = torch.zeros_like(given.tokens[0])  # at t = 0 it says nothing of the code
        expected = model.velocity(given)(nothing, torch.zeros(len(nothing)))
        assert float((expected - given.tokens[0]).abs().mean()) < 0.15


@torch.no_grad()
def test_evidence_stays_bounded_however_long_the_features_become() -> None:
    """A token's length is lost, so that an optimiser may let the features grow without end; the pooling must not become
    the choice of one source."""
    sources = [Source("a", (1, 8, 8)), Source("b", (1, 8, 8))]
    networks = MapNetworks(sources, 4, 4, 4, 0, decoders=False)
    content = Content(sources, networks, 6, 1, {"a": 5, "b": 5}, 0)
    batch = SourceBatch.complete({name: torch.rand(9, 1, 8, 8) for name in "ab"})
    assert torch.equal(content.evidence(batch).logits, torch.zeros(2, 9, 1))  # at first all count alike
    for head in content.evidences.values():
        assert isinstance(head, nn.Linear)
        nn.init.normal_(head.weight)
    maps = networks.encode(batch.values)["a"]
    logits = [content._read("a", length * maps.abs())[..., -1] for length in (1e4, 1e7)]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-3, rtol=1e-3)
    assert len(logits[0].unique()) == 9
    assert float(logits[0].abs().max()) <= LOGIT_LIMIT
