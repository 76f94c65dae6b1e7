"""Whether an answer is the right one: does it look more like its own truth than like those of other rows?"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

AT_ONCE = 1024  # rows compared with all others in one piece of memory


@dataclass(frozen=True)
class Retrieval:
    """How well rows are found again, in [0, 1].

    Args:
        pairwise: share of the pairs (row, other row) in which the row's own truth is the nearer one; chance .5.
        first: share of the rows whose nearest truth of all is their own; chance 1 / rows.
    """

    pairwise: float
    first: float


def retrieval(found: Float[Tensor, "rows features"], truth: Float[Tensor, "rows features"]) -> Retrieval:
    """Retrieval by cosine similarity; each side is standardised by itself, so that a style common to all rows is no
    likeness. Ties count half in pairs, and nothing as the nearest.

    Args:
        found, truth: features of answers and of what is true, row by row.

    Raises:
        ValueError: for fewer than two rows, or tables of different lengths.
    """
    if len(found) != len(truth) or len(found) < 2:
        raise ValueError(f"Retrieval needs two rows or more on both sides, got {len(found)} and {len(truth)}.")
    one, other = _directions(found), _directions(truth)
    wins, first = 0.0, 0
    for start in range(0, len(one), AT_ONCE):
        alike = one[start : start + AT_ONCE] @ other.T
        own = alike.diagonal(start)[:, None]
        below, equal = (alike < own).sum(dim=1), (alike == own).sum(dim=1) - 1  # the row itself is one of the equal
        wins += float(below.sum() + 0.5 * equal.sum())
        first += int((below == len(other) - 1).sum())
    return Retrieval(wins / (len(one) * (len(one) - 1)), first / len(one))


def _directions(features: Float[Tensor, "rows features"]) -> Float[Tensor, "rows features"]:
    values = features.detach().cpu().double()
    spread = values.std(dim=0, correction=0)
    centred = (values - values.mean(dim=0)) / torch.where(spread > 0, spread, torch.ones_like(spread))
    return F.normalize(centred, dim=1)
