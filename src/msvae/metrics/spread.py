"""Whether random answers differ from each other as much as they are wrong, and whether those of a row go together."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def spread_to_error(draws: Float[Tensor, "draws rows *shape"], truth: Float[Tensor, "rows *shape"]) -> float:
    """The draws' standard deviation over the error of their mean, each the root of a mean square over all values.

    1 where truth might be one more draw; less where draws are surer than they are right (Fortin et al. 2014, doi
    10.1175/JHM-D-14-0008.1, whose factor for few draws is in it). Infinite where the mean is never wrong.

    Raises:
        ValueError: for fewer than two draws.
    """
    count = _two_or_more(draws)
    draws, truth = draws.double(), truth.double()
    variance = float(draws.var(dim=0).mean()) * (count + 1) / count
    error = float((draws.mean(dim=0) - truth).square().mean())
    return math.sqrt(variance / error) if error else math.inf


class Together(NamedTuple):
    """Correlation of what two sources of a row differ from their expected images by: of draws, and of real images."""

    drawn: float
    real: float


def correlation_of_deviations(
    one: tuple[Float[Tensor, "draws rows *shape"], Float[Tensor, "rows *shape"]],
    other: tuple[Float[Tensor, "draws rows *shape"], Float[Tensor, "rows *shape"]],
) -> Together:
    """Draws of two sources, and the truth of both, each less the mean of its draws.

    Draws of a row go together as real images do where both correlations are the same; `drawn` is 0 where each source
    is drawn for itself, whatever is open. The mean of few draws is off itself, by as much as these tell: that part is
    taken out of `real`. Not a number where nothing differs.

    Args:
        one, other: draws and truth, in any units; draw i of the one belongs to draw i of the other.

    Raises:
        ValueError: for fewer than two draws.
    """
    count = _two_or_more(one[0])
    (a, y), (b, z) = (_deviations(*source) for source in (one, other))
    of_means = 1.0 / (count * (count - 1))  # of a sum over the draws: that of the square of their mean
    drawn = _moments(a, b)
    real = _moments(y, z) - of_means * drawn
    return Together(*(float(both / (first * second).sqrt()) for both, first, second in (drawn, real)))


def _two_or_more(draws: Tensor) -> int:
    """How many draws there are."""
    if len(draws) < 2:
        raise ValueError(f"A spread needs two draws or more, got {len(draws)}.")
    return len(draws)


def _deviations(draws: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    mean = draws.double().mean(dim=0)
    return draws.double() - mean, truth.double() - mean


def _moments(one: Tensor, other: Tensor) -> Tensor:
    """Sums of the product and of both squares."""
    return torch.stack([(one * other).sum(), one.square().sum(), other.square().sum()])
