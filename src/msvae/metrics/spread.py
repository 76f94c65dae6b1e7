"""Whether random answers differ from each other as much as they are wrong."""

import math

from jaxtyping import Float
from torch import Tensor


def spread_to_error(draws: Float[Tensor, "draws rows *shape"], truth: Float[Tensor, "rows *shape"]) -> float:
    """The draws' standard deviation over the error of their mean, each the root of a mean square over all values.

    1 where truth might be one more draw; less where draws are surer than they are right (Fortin et al. 2014, doi
    10.1175/JHM-D-14-0008.1, whose factor for few draws is in it). Infinite where the mean is never wrong.

    Raises:
        ValueError: for fewer than two draws.
    """
    count = len(draws)
    if count < 2:
        raise ValueError(f"A spread needs two draws or more, got {count}.")
    draws, truth = draws.double(), truth.double()
    variance = float(draws.var(dim=0).mean()) * (count + 1) / count
    error = float((draws.mean(dim=0) - truth).square().mean())
    return math.sqrt(variance / error) if error else math.inf
