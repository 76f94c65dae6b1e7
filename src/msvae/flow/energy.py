"""How near random answers are to what came true, whatever their distribution."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LARGER = 4  # each size of squares has so many times the side of the one before


def crps_of_two(
    one: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """(|x - truth| + |x' - truth| - |x - x'|) / 2 of two draws, value by value.

    Its expectation is the continuous ranked probability score: the energy score of a single number, least for the
    truth's own distribution (Gneiting & Raftery 2007, section 4.2).
    """
    return ((one - truth).abs() + (other - truth).abs() - (one - other).abs()) / 2


def crps_of_squares(
    one: Float[Tensor, "rows channels height width"],
    other: Float[Tensor, "rows channels height width"],
    truth: Float[Tensor, "rows channels height width"],
) -> Float[Tensor, ""]:
    """Of two draws of each image, sum over the rows: mean over single values, and over the means of larger and larger
    squares, up to the whole image, by which its parts cannot be drawn against each other."""
    side, scores = 1, [crps_of_two(one, other, truth)]
    while side < max(truth.shape[-2:]):
        side *= LARGER
        a, b, y = (F.avg_pool2d(images, side, ceil_mode=True) for images in (one, other, truth))  # at borders less
        scores.append(crps_of_two(a, b, y))
    return torch.stack([score.flatten(1).mean(dim=1).sum() for score in scores]).mean()


def energy_score(draws: Float[Tensor, "draws rows size"], truth: Float[Tensor, "rows size"]) -> Float[Tensor, ""]:
    """E |x - truth| - E |x - x'| / 2, mean over the rows: least, in expectation, for the truth's own distribution.

    A strictly proper score of samples (Gneiting & Raftery 2007, Strictly Proper Scoring Rules, section 4.3): neither
    sharp answers beside the truth nor wide ones around it do well. Unbiased for any number of draws from two on.

    Raises:
        ValueError: for fewer than two draws.
    """
    count = len(draws)
    if count < 2:
        raise ValueError(f"An energy score needs two draws or more, got {count}.")
    away = (draws - truth).norm(dim=-1).mean()
    apart = (draws[:, None] - draws).norm(dim=-1).mean(dim=-1).sum()  # a draw is 0 from itself
    return away - apart / (2 * count * (count - 1))
