"""Likelihoods p(x_m | z): how a decoder's raw output scores and becomes an image.

Decoders end without an activation; each likelihood says how many channels it reads and what they mean. Values and
noise scales are in the source's normalised units, where its value range is [0, 1].
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from msvae.errors import ConfigError, SourceError, unknown
from msvae.source import Source

SATURATED = 30.0  # in fp32 sigmoid(30) is 1, and sigmoid(-30) 1e-13


@runtime_checkable
class Likelihood(Protocol):
    """The contract of a likelihood; `raw` is a decoder's output (rows, raw channels, ...)."""

    def raw_channels(self, source: Source) -> int:
        """Channels the decoder must give for one image of the source."""
        ...

    def log_prob(self, raw: Tensor, values: Tensor, source: Source) -> Float[Tensor, " rows"]:
        """log p(values | raw) in nats, summed over one image; `values` normalised to [0, 1]."""
        ...

    def mean(self, raw: Tensor, source: Source) -> Tensor:
        """The expected image, normalised (for classes: the most probable one)."""
        ...


def _within_range(raw: Tensor) -> Tensor:
    """sigmoid(raw). Far out, where it is 0 or 1 all the same, without a gradient: it would be a denormal number, and a
    CPU that is slow with those took twice as long for a step on images with black borders."""
    return torch.sigmoid(raw.clamp(-SATURATED, SATURATED))


def _sum_values(per_value: Tensor) -> Tensor:
    return per_value.flatten(1).sum(dim=1)


class Normal:
    """N(x; sigmoid(raw), scale^2): the mean is the image, the scale is fixed by the source."""

    def raw_channels(self, source: Source) -> int:
        return source.shape[0]

    def log_prob(self, raw: Tensor, values: Tensor, source: Source) -> Float[Tensor, " rows"]:
        gap = (values - _within_range(raw)) / source.scale
        return _sum_values(-0.5 * gap.square() - math.log(source.scale) - 0.5 * math.log(2 * math.pi))

    def mean(self, raw: Tensor, source: Source) -> Tensor:
        return _within_range(raw)


class Laplace:
    """Laplace(x; sigmoid(raw), scale): sharper edges than the normal, since it pulls to the median."""

    def raw_channels(self, source: Source) -> int:
        return source.shape[0]

    def log_prob(self, raw: Tensor, values: Tensor, source: Source) -> Float[Tensor, " rows"]:
        gap = (values - _within_range(raw)).abs() / source.scale
        return _sum_values(-gap - math.log(2 * source.scale))

    def mean(self, raw: Tensor, source: Source) -> Tensor:
        return _within_range(raw)


class Bernoulli:
    """Each value an independent coin of probability sigmoid(raw); grey values count as fractions of a coin."""

    def raw_channels(self, source: Source) -> int:
        return source.shape[0]

    def log_prob(self, raw: Tensor, values: Tensor, source: Source) -> Float[Tensor, " rows"]:
        return _sum_values(-F.binary_cross_entropy_with_logits(raw, values, reduction="none"))

    def mean(self, raw: Tensor, source: Source) -> Tensor:
        return torch.sigmoid(raw)


class Categorical:
    """One class of `source.categories` per pixel (or per feature); raw holds the logits of every class."""

    def raw_channels(self, source: Source) -> int:
        return source.shape[0] * _categories(source)

    def log_prob(self, raw: Tensor, values: Tensor, source: Source) -> Float[Tensor, " rows"]:
        logits = self._logits(raw, source)
        classes = (values * (_categories(source) - 1)).round().long()
        return _sum_values(-F.cross_entropy(logits, classes, reduction="none"))

    def mean(self, raw: Tensor, source: Source) -> Tensor:
        return self._logits(raw, source).argmax(dim=1).float() / (_categories(source) - 1)

    @staticmethod
    def _logits(raw: Tensor, source: Source) -> Tensor:
        """(rows, categories, *shape)"""
        return raw.reshape(raw.shape[0], _categories(source), *source.shape)


def _categories(source: Source) -> int:
    assert source.categories is not None  # guaranteed by Source for this likelihood
    return source.categories


LIKELIHOODS: dict[str, Likelihood] = {
    "normal": Normal(),
    "laplace": Laplace(),
    "bernoulli": Bernoulli(),
    "categorical": Categorical(),
}


#: Those whose images are numbers with noise of a scale, not coins or classes.
CONTINUOUS = ("normal", "laplace")


def likelihood_of(source: Source) -> Likelihood:
    """The likelihood that a source names.

    Raises:
        SourceError: naming the known ones and the nearest.
    """
    if source.likelihood not in LIKELIHOODS:
        raise SourceError(f"Source {source.name!r}: {unknown('likelihood', source.likelihood, LIKELIHOODS)}")
    return LIKELIHOODS[source.likelihood]


def mean_image(raw: Tensor, source: Source) -> Tensor:
    """The expected image of a decoder's raw output, in the source's value range."""
    return source.denormalise(likelihood_of(source).mean(raw, source))


def likelihood_scales(sources: Sequence[Source], choice: str | Mapping[str, float] = "largest") -> dict[str, float]:
    """How much the log-likelihood of each source counts, lam_m.

    Args:
        choice: `largest` (the default, after MMVAE): lam_m = (values of the largest source) / (values of source m),
            so that a small source is not drowned by a large one; `none`: 1 for every source, the plain joint
            likelihood; or a mapping of source names to factors > 0 (1 where a source is not named).

    Raises:
        ConfigError: for an unknown choice or source, or a factor that is not > 0.
    """
    names = [source.name for source in sources]
    if isinstance(choice, str):
        if choice == "none":
            return dict.fromkeys(names, 1.0)
        if choice == "largest":
            largest = max(source.value_count for source in sources)
            return {source.name: largest / source.value_count for source in sources}
        raise ConfigError(unknown("likelihood scaling", choice, ["largest", "none"]))
    for name, factor in choice.items():
        if name not in names:
            raise ConfigError(f"Likelihood scaling: {unknown('source', name, names)}")
        if not factor > 0:
            raise ConfigError(f"Likelihood scaling of source {name!r}: expected a factor > 0, got {factor}.")
    return {name: float(choice.get(name, 1.0)) for name in names}
