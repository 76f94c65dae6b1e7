"""Likelihoods against torch.distributions, in float64."""

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Distribution, Laplace, Normal

from msvae.errors import ConfigError
from msvae.likelihoods import LIKELIHOODS, likelihood_scales
from msvae.source import Source

RAW = torch.randn(5, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
VALUES = torch.rand(5, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("normal", Normal(torch.sigmoid(RAW), 0.2)),
        ("laplace", Laplace(torch.sigmoid(RAW), 0.2)),
        ("bernoulli", Bernoulli(logits=RAW, validate_args=False)),
    ],
)
def test_continuous_likelihoods(name: str, reference: Distribution) -> None:
    source = Source("x", (2, 4, 4), likelihood=name, scale=0.2)
    values = VALUES.round() if name == "bernoulli" else VALUES
    score = LIKELIHOODS[name].log_prob(RAW, values, source)
    torch.testing.assert_close(score, reference.log_prob(values).flatten(1).sum(dim=1))
    torch.testing.assert_close(LIKELIHOODS[name].mean(RAW, source), torch.sigmoid(RAW))
    assert LIKELIHOODS[name].raw_channels(source) == 2


def test_categorical_likelihood() -> None:
    source = Source("x", (1, 4, 4), likelihood="categorical", categories=3)
    likelihood = LIKELIHOODS["categorical"]
    raw = torch.randn(5, likelihood.raw_channels(source), 4, 4, dtype=torch.float64)
    classes = torch.randint(0, 3, (5, 1, 4, 4))
    score = likelihood.log_prob(raw, source.normalise(classes.double()), source)
    reference = Categorical(logits=raw.movedim(1, -1)).log_prob(classes[:, 0])
    torch.testing.assert_close(score, reference.flatten(1).sum(dim=1))
    best = source.denormalise(likelihood.mean(raw, source)).round().long()
    assert torch.equal(best[:, 0], raw.argmax(dim=1))


def test_scales_between_sources_of_unequal_size() -> None:
    sources = [Source("large", (3, 8, 8)), Source("small", (1, 4, 4))]
    assert likelihood_scales(sources) == {"large": 1.0, "small": 12.0}
    assert likelihood_scales(sources, "none") == {"large": 1.0, "small": 1.0}
    assert likelihood_scales(sources, {"small": 3.0}) == {"large": 1.0, "small": 3.0}
    with pytest.raises(ConfigError, match="Did you mean 'largest'"):
        likelihood_scales(sources, "larges")
    with pytest.raises(ConfigError, match=r"'smal'.*Did you mean 'small'"):
        likelihood_scales(sources, {"smal": 1.0})
    with pytest.raises(ConfigError, match="> 0"):
        likelihood_scales(sources, {"small": 0.0})


@pytest.mark.parametrize("name", ["normal", "laplace"])
def test_saturated_means_have_no_denormal_gradient(name: str) -> None:
    source = Source("x", (1, 1, 4), likelihood=name)
    raw = torch.tensor([-95.0, -31.0, 10.0, 95.0]).view(1, 1, 1, 4).requires_grad_()
    values = torch.full((1, 1, 1, 4), 0.5)
    LIKELIHOODS[name].log_prob(raw, values, source).sum().backward()
    assert raw.grad is not None
    assert (raw.grad.flatten() != 0).tolist() == [False, False, True, False]
    assert LIKELIHOODS[name].mean(raw.detach(), source).flatten().tolist() == pytest.approx([0, 0, 1, 1], abs=1e-4)
