"""The contract that every method answers, on a small model with sources of different shapes."""

import numpy as np
import pytest
import torch
from torch import nn

from conftest import lacking, random_batch, tiny_model
from msvae.data import complete_rows
from msvae.errors import ConfigError, SourceError
from msvae.models import METHODS, JointVAE, MultiSourceModel, build_model
from msvae.models.masked_diffusion import MaskedDiffusion
from msvae.posterior import Experts
from msvae.source import Source, SourceBatch


@pytest.fixture(params=list(METHODS))
def model(request: pytest.FixtureRequest) -> MultiSourceModel:
    return tiny_model(request.param)


@pytest.fixture(params=[name for name, method in METHODS.items() if method.partial_rows])
def partial(request: pytest.FixtureRequest) -> MultiSourceModel:
    return tiny_model(request.param)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_the_loss_is_finite_and_reaches_every_parameter(model: MultiSourceModel) -> None:
    loss = model.loss(random_batch(model, rows=16), generator())
    loss.total.backward()
    assert bool(torch.isfinite(loss.total))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
    assert {f"reconstruction/{name}" for name in model.source_names} < set(loss.terms)


def test_training_on_partial_rows_lowers_the_loss(partial: MultiSourceModel) -> None:
    model = partial
    batch = lacking(random_batch(model, rows=8), {"blue": [0, 1], "grey": [1, 2], "green": [3, 4, 5]})
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model.loss(batch, generator()).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_what_stands_in_absent_values_does_not_matter(partial: MultiSourceModel) -> None:
    model = partial
    absent = {"blue": [0, 2], "grey": [1, 2]}
    losses, gradients, codes = [], [], []
    for filler in (float("nan"), 1e30, 0.5):
        batch = lacking(random_batch(model), absent, filler)
        model.zero_grad()
        loss = model.loss(batch, generator())
        loss.total.backward()
        losses.append(float(loss.total.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        codes.append(model.encode(batch).mean)
    assert losses[0] == losses[1] == losses[2]
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(codes[0], codes[2])


def test_an_absent_source_equals_one_that_is_not_named(partial: MultiSourceModel) -> None:
    model = partial
    batch = random_batch(model)
    hidden = lacking(batch, {"grey": list(range(5))})
    unnamed = batch.select(["blue", "green"])
    losses = [model.loss(rows, generator()).total.detach() for rows in (hidden, unnamed)]
    assert float(losses[0]) == float(losses[1])
    assert torch.equal(model.encode(hidden).mean, model.encode(unnamed).mean)


def test_a_source_that_is_in_no_row_gets_no_gradient(partial: MultiSourceModel) -> None:
    model = partial
    model.loss(random_batch(model, rows=64).select(["blue", "green"]), generator()).total.backward()
    for name, parameter in model.named_parameters():
        touched = parameter.grad is not None and float(parameter.grad.abs().sum()) > 0
        weighs = ".evidences." in name  # of two sources one at a time is pooled: there is nothing to weigh
        assert touched == ("grey" not in name and not weighs), name


def test_every_subset_and_none_can_be_given(model: MultiSourceModel) -> None:
    batch = random_batch(model)
    for given in (["blue"], ["grey", "green"], ["blue", "grey", "green"]):
        for mode in ("sample", "mean"):
            answer = model.sample(batch.select(given), n=2, mode=mode, generator=generator())
            assert answer.names == model.source_names
            for source in model.sources:
                values = answer.values[source.name]
                assert values.shape == (10, *source.shape)
                assert bool(torch.isfinite(values).all())
                assert source.value_range[0] <= float(values.min())
                assert float(values.max()) <= source.value_range[1]
    assert len(model.sample(n=3, generator=generator())) == 3


def test_a_generator_makes_answers_repeatable(model: MultiSourceModel) -> None:
    batch = random_batch(model).select(["blue"])
    first, second = (model.sample(batch, ["grey"], generator=generator()).values["grey"] for _ in range(2))
    assert torch.equal(first, second)
    other = model.sample(batch, ["grey"], generator=torch.Generator().manual_seed(9)).values["grey"]
    assert not torch.equal(first, other)


def test_samples_of_a_row_stand_together(model: MultiSourceModel) -> None:
    batch = random_batch(model).select(["blue"])
    means = model.sample(batch, ["blue"], n=3, mode="mean").values["blue"].unflatten(0, (5, 3))
    assert torch.equal(means[:, 0], means[:, 2])
    torch.testing.assert_close(means[:, 0], model.sample(batch, ["blue"], mode="mean").values["blue"])


def test_weights_of_one_hot_reproduce_and_of_zero_remove(model: MultiSourceModel) -> None:
    batch = random_batch(model)
    both = model.encode(batch.select(["blue", "green"]), {"blue": 0.4, "green": 0.6})
    three = model.encode(batch, {"blue": 0.4, "grey": 0.0, "green": 0.6})
    torch.testing.assert_close(both.mean, three.mean)
    alone = model.encode(batch.select(["blue"]))
    torch.testing.assert_close(model.encode(batch, {"blue": 1.0}).mean, alone.mean)
    broken = lacking(batch, {}, 0)
    broken.values["grey"][:] = 0
    torch.testing.assert_close(model.encode(broken, {"blue": 0.4, "green": 0.6}).mean, both.mean)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"bleu": 1.0}, "Did you mean 'blue'"),
        ({"blue": -1.0}, ">= 0"),
        ({"blue": float("nan")}, ">= 0"),
        ({"blue": 0.0}, "above 0"),
        ({}, "above 0"),
        ({"grey": 1.0}, "'grey' is 1, but no image of it is given"),
    ],
)
def test_impossible_weights_are_refused(weights: dict[str, float], message: str) -> None:
    model = tiny_model()
    with pytest.raises(SourceError, match=message):
        model.encode(random_batch(model).select(["blue"]), weights)


def test_bad_questions_are_refused(model: MultiSourceModel) -> None:
    batch = random_batch(model)
    with pytest.raises(SourceError, match=r"'gren'.*Did you mean 'green'"):
        model.sample(batch, ["gren"])
    with pytest.raises(SourceError, match="n >= 1"):
        model.sample(batch, n=0)
    with pytest.raises(ConfigError, match="latent rule"):
        model.encode(batch, rule="averag")
    empty = lacking(batch, {name: [3] for name in model.source_names})
    with pytest.raises(SourceError, match="Row 3"):
        model.loss(empty, generator())


def test_rows_without_a_source_are_generated(model: MultiSourceModel) -> None:
    batch = lacking(random_batch(model), {name: [3] for name in model.source_names})
    answer = model.sample(batch, generator=generator())
    assert bool(torch.isfinite(answer.values["blue"]).all())


def test_one_row_is_enough(model: MultiSourceModel) -> None:
    batch = random_batch(model, rows=1)
    assert bool(torch.isfinite(model.loss(batch, generator()).total))
    assert len(model.sample(batch, mode="mean")) == 1


def test_features_are_pooled_vectors_and_maps(model: MultiSourceModel) -> None:
    batch = lacking(random_batch(model), {"blue": [1]})
    features = model.features(batch)
    assert features.pooled.shape[0] == 5
    assert features.maps["blue"].shape[0] == 5
    assert float(features.maps["blue"][1].detach().abs().sum()) == 0
    assert float(features.maps["blue"][0].detach().abs().sum()) > 0


def test_codes_can_be_drawn_and_decoded(model: MultiSourceModel) -> None:
    batch = random_batch(model, rows=20)
    model.after_training(batch, seed=0)
    fitted, prior = model.draw(4, generator()), model.draw(4, generator(), from_prior=True)
    assert fitted.shape == prior.shape
    assert torch.equal(fitted, prior) != model.has_fitted_sampler
    assert model.decode(fitted, ["grey"]).values["grey"].shape == (4, 1, 12, 8)


def test_a_single_training_row_leaves_the_sampler_unfitted() -> None:
    model = tiny_model("mopoe")
    model.after_training(random_batch(model, rows=1), seed=0)
    assert not model.has_fitted_sampler
    assert model.draw(3, generator()).shape[0] == 3


def test_single_sources_know_nothing_of_each_other() -> None:
    model = tiny_model("single")
    batch = random_batch(model)
    reference = model.sample(batch, ["blue"], mode="mean").values["blue"]
    alone = model.sample(batch.select(["blue"]), ["blue"], mode="mean").values["blue"]
    torch.testing.assert_close(reference, alone)
    converted = model.sample(batch.select(["grey"]), ["blue"], mode="mean").values["blue"]
    assert float((converted - converted[0]).abs().max()) < 1e-6  # the prior's mean, whatever was given
    assert model.latent_rules == ("own",)
    with pytest.raises(ConfigError, match="latent rule 'product'"):
        model.encode(batch, {"blue": 1.0}, rule="product")


def test_the_single_baseline_is_the_sum_of_its_sources_losses() -> None:
    """Trained together or alone: the loss of M separate sources is the sum of M losses, so gradients do not mix."""
    model = tiny_model("single")
    batch = random_batch(model)
    model.loss(batch, generator()).total.backward()
    together = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if "blue" in name}
    model.zero_grad()
    changed = SourceBatch(dict(batch.values) | {"grey": 1 - batch.values["grey"]}, batch.present)
    model.loss(changed, generator()).total.backward()
    for name, parameter in model.named_parameters():
        if "blue" in name:
            torch.testing.assert_close(parameter.grad, together[name])


class Ignorant(nn.Module):
    """An encoder (or decoder) whose output does not depend on its input."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.output.expand(len(inputs), *self.output.shape)


def test_a_row_without_any_weighted_source_is_refused(model: MultiSourceModel) -> None:
    batch = lacking(random_batch(model), {"blue": [2]})
    with pytest.raises(SourceError, match="Row 2 has none of the sources with a weight"):
        model.encode(batch, {"blue": 1.0})


def test_a_tiny_weight_beside_a_large_one_is_all_of_a_row_that_has_no_other(model: MultiSourceModel) -> None:
    rows = lacking(random_batch(model), {"blue": [2]})
    only = model.encode(rows.select(["green"]), {"green": 1.0}).mean[2]
    for tiny in (1e-20, 1e-39, 1e-300):
        torch.testing.assert_close(model.encode(rows, {"blue": 1.0, "green": tiny}).mean[2], only)


@pytest.mark.parametrize("scale", [1e39, 1e-50, 3e38])
def test_weights_of_any_magnitude_are_the_same_weights(model: MultiSourceModel, scale: float) -> None:
    batch = random_batch(model)
    extreme = model.encode(batch, {"blue": scale, "green": scale / 2})
    torch.testing.assert_close(extreme.mean, model.encode(batch, {"blue": 2.0, "green": 1.0}).mean)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "flow"])
def test_the_posterior_is_computed_in_full_precision_under_autocast(method: str) -> None:
    """Networks may run in bf16; the algebra of the code may not."""
    model = tiny_model(method)
    generator = torch.Generator().manual_seed(0)
    shape = (3, 5, model.config.latent)
    experts = Experts(
        torch.randn(shape, generator=generator),
        torch.randn(shape, generator=generator) - 6,
        torch.ones(3, 5, dtype=torch.bool),
    )
    exact = model.fusion(experts)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.fusion(experts)
        assert torch.equal(exact.mean, mixed.mean)
        assert torch.equal(exact.kl_to_standard(), mixed.kl_to_standard())


def test_nothing_given_in_mean_mode_is_the_image_of_the_prior_mean(model: MultiSourceModel) -> None:
    answer = model.sample(n=2, mode="mean").values["blue"]
    latent = model.draw(1).shape[1]
    torch.testing.assert_close(answer, model.decode(torch.zeros(2, latent)).values["blue"])


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_the_elbo_is_what_its_formula_says(beta: float) -> None:
    """With networks that ignore their input every term has a closed form."""
    source = Source("x", (1, 4, 4), likelihood="normal", scale=0.3)
    mean, log_variance = torch.tensor([0.5, -1.0]), torch.tensor([0.2, -0.4])
    raw = torch.randn(1, 4, 4)
    pair = (Ignorant(torch.cat([mean, log_variance])), Ignorant(raw))
    from msvae.config import ModelConfig

    config = ModelConfig(latent=2, fusion="moe", beta=beta, sampler_components=0)
    model = JointVAE([source], config, {"x": pair})
    values = torch.rand(3, 1, 4, 4)
    normal = torch.distributions.Normal(torch.sigmoid(raw), 0.3)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum()
    expected = -normal.log_prob(values).flatten(1).sum(dim=1).mean() + beta * kl
    loss = model.loss(SourceBatch.complete({"x": values}), generator())
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=0)  # log-variances are softly bounded


def test_likelihood_scaling_and_random_subsets_act() -> None:
    batch = random_batch(tiny_model())
    largest, plain = (
        float(tiny_model(likelihood_scaling=c).loss(batch, generator()).total.detach()) for c in ("largest", "none")
    )
    assert largest != plain
    present, random = (
        float(tiny_model("poe", subsets=s).loss(batch, generator()).total.detach()) for s in ("present", "random")
    )
    assert present != random


def test_mixed_likelihoods_train_together() -> None:
    sources = [
        Source("photo", (3, 8, 8)),
        Source("mask", (1, 8, 8), likelihood="bernoulli"),
        Source("labels", (1, 8, 8), likelihood="categorical", categories=4),
        Source("depth", (1, 8, 8), likelihood="normal", value_range=(-5.0, 5.0)),
    ]
    model = tiny_model("poe", sources)
    batch = random_batch(model)
    batch.values["labels"] = batch.values["labels"].round()
    assert bool(torch.isfinite(model.loss(batch, generator()).total))
    answer = model.sample(batch.select(["photo"]), mode="mean")
    assert set(answer.values["labels"].unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}


def test_unknown_methods_and_bad_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'mopoe'"):
        tiny_model("mopo")
    with pytest.raises(ConfigError, match="latent"):
        tiny_model(latent=-3)
    with pytest.raises(ConfigError, match="Did you mean 'latent'"):
        tiny_model(latnt=3)
    with pytest.raises(SourceError, match="differ"):
        tiny_model(sources=[Source("a", (3, 8, 8)), Source("a", (3, 8, 8))])


def test_a_wide_encoder_of_the_users_own_is_refused_by_name() -> None:
    from msvae.config import ModelConfig

    pair = (nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), nn.Linear(2, 16))
    model = JointVAE([Source("x", (1, 4, 4))], ModelConfig(latent=2), {"x": pair})
    with pytest.raises(SourceError, match=r"'x': its encoder must give 4 numbers a row .* got \(10,\)"):
        model.encode(SourceBatch.complete({"x": torch.rand(3, 1, 4, 4)}))


def test_a_name_that_belies_its_parts_is_refused() -> None:
    from msvae.config import ModelConfig

    with pytest.raises(ConfigError, match="Method 'poe' has fusion 'poe', but the settings say 'mopoe'"):
        build_model([Source("a", (3, 8, 8))], ModelConfig(method="poe"))
    assert tiny_model("poe", subsets="present").config.method == "custom"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fusion": "separate", "objective": "mvtcae"}, "which the fusion 'separate' does not have"),
        ({"fusion": "joint_flows", "objective": "elbo"}, "trained by the objective 'jnf', not by 'elbo'"),
        ({"objective": "mmvm", "prior": "mixture"}, "has N\\(0, I\\) in its own"),
        ({"objective": "mmjsd", "prior": "learned_scale"}, "has N\\(0, I\\) in its own"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_model("custom", **settings)


@pytest.mark.parametrize("method", ["telbo", "dmvae"])
def test_the_prior_that_is_learned_is_that_of_single_sources_too(method: str) -> None:
    model = tiny_model(method, prior="learned_scale")
    assert isinstance(model, JointVAE)
    batch = random_batch(model)
    losses = []
    for scale in (0.0, 2.0):
        with torch.no_grad():
            model.prior.log_variance.fill_(scale)
        losses.append(model.loss(batch, torch.Generator().manual_seed(0)))
    own = [loss.terms.get("own_kl", loss.total).detach() for loss in losses]
    assert float(own[0]) != float(own[1])


def test_masked_diffusion_has_no_private_codes() -> None:
    with pytest.raises(ConfigError, match=r"'model\.private': 8 was given, but the sampler 'masked_diffusion'"):
        tiny_model("mld", private=8)


@pytest.mark.parametrize("method", ["poe", "mld", "flow"])
def test_codes_of_another_length_are_refused(method: str) -> None:
    model = tiny_model(method).eval()
    length = model.draw(2).shape[1]
    with pytest.raises(SourceError, match=rf"expected \(rows, {length}\), got \(2, {length + 1}\)"):
        model.decode(torch.zeros(2, length + 1))


def test_masked_diffusion_only_reads_its_autoencoders_once_they_are_trained() -> None:
    """Dropout and counted means of users' own networks rest then."""
    model = tiny_model("mld")
    assert isinstance(model, MaskedDiffusion)
    for stage, learns, rests in (("sources", model.networks, None), ("diffusion", model.field, model.networks)):
        model.enter_stage(stage)
        model.train()
        assert all(part.training for part in learns.modules())
        assert rests is None or not any(part.training for part in rests.modules())
        assert not any(part.training for part in model.eval().modules())


def test_masked_diffusion_standardises_drawn_codes_also_where_a_source_says_nothing() -> None:
    """Untrained encoders say next to nothing: their means hardly vary, and what is drawn has the prior's variance."""
    model = tiny_model("mld").eval()
    assert isinstance(model, MaskedDiffusion)
    generator = np.random.default_rng(0)
    rows = complete_rows(model.sources, {s.name: generator.random((60, *s.shape)) for s in model.sources})
    model.end_stage("sources", rows)
    with torch.no_grad():
        experts = model.evidence(rows.batch(slice(0, 60))).shared
        codes = (experts.sample(100, torch.Generator().manual_seed(0)) - model.center) / model.deviation
    assert float(experts.means.std(dim=1).mean()) < 0.3
    spread = codes.transpose(0, 1).flatten(1, 2).std(dim=1)
    torch.testing.assert_close(spread, torch.ones_like(spread), atol=0.05, rtol=0)
