"""Bounds and likelihoods against a model whose log p(x) is known: linear decoders, Gaussian noise, Gaussian code."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from conftest import lacking
from msvae.config import ModelConfig, parse
from msvae.evaluation.likelihood import log_likelihood
from msvae.models import METHODS, JointVAE, with_method
from msvae.source import Source, SourceBatch

LATENT, FEATURES, NOISE, ROWS = 2, 3, 1.0, 4
NAMES = ("a", "b", "c")


class Affine(nn.Linear):
    """A linear map whose bias starts away from zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight, std=0.7)
        nn.init.normal_(self.bias, std=0.3)


@pytest.fixture(autouse=True)
def linear_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaussian noise around the decoder's raw output, not around its sigmoid: then the model is linear."""
    from msvae import likelihoods

    class Linear(likelihoods.Normal):
        def log_prob(self, raw: Tensor, values: Tensor, source: Source) -> Tensor:
            gap = (values - raw) / source.scale
            constant = math.log(source.scale) + 0.5 * math.log(2 * math.pi)
            return (-0.5 * gap.square() - constant).flatten(1).sum(dim=1)

    monkeypatch.setitem(likelihoods.LIKELIHOODS, "normal", Linear())


def linear_model(method: str, seed: int = 0, names: tuple[str, ...] = NAMES, **settings: object) -> JointVAE:
    torch.manual_seed(seed)
    chosen = {"latent": LATENT, "method": method, "sampler": "none", "likelihood_scaling": "none", **settings}
    config = parse(ModelConfig, with_method(None, chosen))
    sources = [Source(name, (FEATURES,), likelihood="normal", scale=NOISE) for name in names]
    token = 64 if config.fusion == "joint" else 0
    own = config.latent + config.private
    pairs = {name: (Affine(FEATURES, 2 * own + token), Affine(own, FEATURES)) for name in names}
    return JointVAE(sources, config, pairs)


def rows(seed: int = 1) -> SourceBatch:
    generator = torch.Generator().manual_seed(seed)
    return SourceBatch.complete({n: torch.rand(ROWS, FEATURES, generator=generator) for n in NAMES})


def exact(model: JointVAE, batch: SourceBatch) -> Tensor:
    """log N(x; W 0 + b, W W' + noise^2 I) over the sources that each row has; private codes are further columns."""
    latent, private = model.config.latent, model.config.private
    answers = []
    for row in range(len(batch)):
        maps, means, seen = [], [], []
        for index, name in enumerate(NAMES):
            if not bool(batch.present[name][row]):
                continue
            decoder = copy.deepcopy(model.networks.decoders[f"of_{name}"]).double()
            wide = torch.zeros(FEATURES, latent + private * len(NAMES), dtype=torch.float64)
            wide[:, :latent] = decoder.weight[:, :latent]
            wide[:, latent + index * private : latent + (index + 1) * private] = decoder.weight[:, latent:]
            maps.append(wide)
            means.append(decoder.bias)
            seen.append(batch.values[name][row].double())
        loadings = torch.cat(maps)
        covariance = loadings @ loadings.T + NOISE**2 * torch.eye(len(loadings), dtype=torch.float64)
        normal = torch.distributions.MultivariateNormal(torch.cat(means), covariance)
        answers.append(normal.log_prob(torch.cat(seen)))
    return torch.stack(answers).detach().float()


def mean_loss(model: JointVAE, batch: SourceBatch, copies: int = 250) -> tuple[float, float]:
    """The loss in expectation over its noise, and the error of that estimate: every row many times, in ten parts."""
    generator = torch.Generator().manual_seed(3)
    many = batch.rows(torch.arange(ROWS).repeat(copies))
    with torch.no_grad():
        losses = torch.stack([model.loss(many, generator).total for _ in range(10)])
    return float(losses.mean()), float(losses.std()) / math.sqrt(10)


BOUNDS = ["poe", "moe", "mopoe", "barycenter", "wbvae", "mwbvae", "helvae", "mmvae", "codevae", "jmvae"]


@pytest.mark.parametrize("method", BOUNDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_bound_lies_under_the_likelihood(method: str, seed: int) -> None:
    model = linear_model(method, seed)
    loss, error = mean_loss(model, rows())
    assert -loss - 4 * error < float(exact(model, rows()).mean())


def test_sums_of_bounds_lie_under_sums_of_likelihoods() -> None:
    batch = rows()
    for method in ("mvae", "telbo"):
        model = linear_model(method, **({"extra_subsets": 0} if method == "mvae" else {}))
        alone = sum(exact(model, _only(batch, name)) for name in NAMES)
        assert isinstance(alone, Tensor)
        loss, error = mean_loss(model, batch)
        assert -loss - 4 * error < float((exact(model, batch) + alone).mean())


def _only(batch: SourceBatch, name: str) -> SourceBatch:
    return lacking(batch, {other: list(range(ROWS)) for other in NAMES if other != name}, 0.0)


def posterior_model(method: str, **settings: object) -> JointVAE:
    """A model of one source whose encoder is the exact posterior: every gap closes."""
    model = linear_model(method, **settings)
    decoder, encoder = model.networks.decoders["of_a"], model.networks.encoders["of_a"]
    with torch.no_grad():
        weight, _ = torch.linalg.qr(decoder.weight)  # orthogonal columns: the posterior is diagonal
        decoder.weight.copy_(weight * torch.tensor([0.9, 0.5]))
        precision = torch.eye(LATENT) + decoder.weight.T @ decoder.weight / NOISE**2
        gain = torch.linalg.inv(precision) @ decoder.weight.T / NOISE**2
        log_variance = -precision.diagonal().log()
        raw = 12 * torch.atanh(log_variance / 12)
        # networks see values in [-1, 1]
        encoder.weight.zero_()
        encoder.weight[:LATENT] = gain / 2
        encoder.bias[:LATENT] = gain @ (0.5 - decoder.bias)
        encoder.bias[LATENT : 2 * LATENT] = raw
    return model


@pytest.mark.parametrize("method", ["moe", "barycenter", "helvae", "mmvae", "wbvae"])
def test_with_the_true_posterior_the_bound_is_the_likelihood(method: str) -> None:
    model, batch = posterior_model(method), _only(rows(), "a")
    loss, error = mean_loss(model, batch)
    assert -loss == pytest.approx(float(exact(model, batch).mean()), abs=max(5 * error, 1e-4))
    estimate = log_likelihood(model, batch, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(estimate, exact(model, batch), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("method", "settings"), [("mmvae", {}), ("mmvae", {"fusion": "poe"}), ("mmvae+", {"private": 1})]
)
def test_more_importance_samples_tighten_the_bound(method: str, settings: dict[str, object]) -> None:
    bounds = []
    for samples in (1, 4, 16, 64):
        model = linear_model(method, samples=samples, **settings)
        loss, error = mean_loss(model, rows())
        bounds.append((-loss, error))
    for (looser, error), (tighter, other) in pairwise(bounds):
        assert tighter > looser - 3 * (error + other)
    assert bounds[-1][0] > bounds[0][0]
    if method == "mmvae":  # with guards the crossed terms are another model's
        assert bounds[-1][0] < float(exact(model, rows()).mean()) + 3 * bounds[-1][1]


@pytest.mark.parametrize("method", ["poe", "moe", "mopoe", "mvtcae", "mmvae+", "dmvae"])
def test_the_sampled_likelihood_hits_the_exact_one(method: str) -> None:
    model = linear_model(method, **({"private": 1} if METHODS[method].defaults.get("private") else {}))
    batch = lacking(rows(), {"b": [1], "c": [1, 2]})
    truth = exact(model, batch)
    estimate = log_likelihood(model, batch, 20_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(estimate, truth, atol=0.1, rtol=0)
    few = log_likelihood(model, batch, 10, generator=torch.Generator().manual_seed(0))
    assert float((few - truth).mean()) < 0.05


def test_the_proposal_changes_the_variance_and_not_the_answer() -> None:
    model, batch = linear_model("moe"), rows()
    one = log_likelihood(model, batch, 20_000, proposal=["a"], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one, exact(model, batch), atol=0.1, rtol=0)


def test_the_likelihood_does_not_depend_on_guards() -> None:
    """They are in no p: sources that a row lacks are integrated out, however narrow their guards have become."""
    model, batch = linear_model("mmvae+", private=2), _only(rows(), "a")
    estimates = []
    for log_variance in (0.0, -3.0):
        with torch.no_grad():
            model.guard.log_variances.fill_(log_variance)
        estimates.append(log_likelihood(model, batch, 20_000, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(*estimates)
    torch.testing.assert_close(estimates[0], exact(model, batch), atol=0.1, rtol=0)


def test_the_likelihood_of_single_vaes_is_that_of_each() -> None:
    model, batch = linear_model("single"), rows()
    joint = log_likelihood(model, batch, 5000, generator=torch.Generator().manual_seed(0))
    alone = sum(
        log_likelihood(model, batch.select([name]), 5000, generator=torch.Generator().manual_seed(0)) for name in NAMES
    )
    assert isinstance(alone, Tensor)
    torch.testing.assert_close(joint, alone, atol=0.1, rtol=0)
