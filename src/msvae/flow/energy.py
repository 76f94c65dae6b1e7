"""How near random answers are to what came true, whatever their distribution."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LARGER = 4  # each size of squares has so many times the side of the one before


def score_of_squares(
    one: Float[Tensor, "rows channels height width"],
    other: Float[Tensor, "rows channels height width"],
    truth: Float[Tensor, "rows channels height width"],
) -> Float[Tensor, ""]:
    """Of two draws of each image, sum over the rows: mean over the pixels, and over the means of larger and larger
    squares, up to the whole image, by which its parts cannot be drawn against each other."""
    side, scores = 1, [_score_of_colours(one, other, truth)]
    while side < max(truth.shape[-2:]):
        side *= LARGER
        a, b, y = (F.avg_pool2d(images, side, ceil_mode=True) for images in (one, other, truth))  # at borders less
        scores.append(_score_of_colours(a, b, y))
    return torch.stack([score.flatten(1).mean(dim=1).sum() for score in scores]).mean()


def _score_of_colours(one: Tensor, other: Tensor, truth: Tensor) -> Float[Tensor, "rows height width"]:
    """(|x - truth| + |x' - truth| - |x - x'|) / 2 of two draws, pixel by pixel; |.| is the root of the mean square over
    the channels. The energy score of a colour (Gneiting & Raftery 2007, section 4.3); of a single channel it is the
    continuous ranked probability score. Scored channel by channel, colours were drawn that do not exist."""
    away, other_away, apart = (
        torch.linalg.vector_norm(gap, dim=1) for gap in (one - truth, other - truth, one - other)
    )
    return (away + other_away - apart) / 2 / truth.shape[1] ** 0.5


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
