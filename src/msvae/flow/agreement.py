"""How well images say the shared code of their rows, by the measure of real images.

What says its code worse than real images say theirs is drawn again; guidance is as strong as that leaves few such
samples, and no stronger than it helps.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = 101  # quantiles at 0, .01, ..., 1
QUARTILE = 0.25
FEW = 0.1
MOST_GUIDANCE, HALVINGS, GUIDANCES = 4.0, 5, 7


class Agreement(nn.Module):
    """Quantiles, over training rows, of the agreement of each source's image with the code of the row's other sources.

    They tell which samples to doubt, as a discriminator does in rejection sampling (Azadi et al. 2019, arXiv
    1810.06758); but what judges is the code's own encoder, and the standard is that of real images: no labels, and
    nothing more to train.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        for name in names:
            self.register_buffer(f"quantiles_of_{name}", torch.full((LEVELS,), -1.0))

    @torch.no_grad()
    def measure(self, name: str, agreements: Float[Tensor, " rows"]) -> None:
        """Take the quantiles of a source's images; of none, everything agrees."""
        if len(agreements):
            ranked = agreements.float().sort().values
            places = torch.linspace(0, len(ranked) - 1, LEVELS, device=ranked.device).round().long()
            self.get_buffer(f"quantiles_of_{name}").copy_(ranked[places])

    def least(self, name: str, doubted: float) -> Float[Tensor, ""]:
        """The agreement that this share of the source's training images does not reach."""
        return self.get_buffer(f"quantiles_of_{name}")[round(doubted * (LEVELS - 1))]


def enough_guidance(below_quartile: Callable[[float], float], allowed: float) -> float:
    """The least guidance, from 1 to 4, with which at most `allowed` of the samples are under the lower quartile of real
    images; where none is enough, the one with the fewest of them.

    With less, too many samples say their codes badly; with more, all say them better than real images do: prototypes,
    and in the end images that are torn, which say their codes worse again.

    Args:
        below_quartile: the share of samples, drawn with a guidance, that are under it.
        allowed: the share that may be: a quarter, as of real images, or `FEW` where bad draws are drawn again, since
            what is left then is bad in a code that hardly anything says well.
    """
    low, high = 1.0, MOST_GUIDANCE
    at_most = below_quartile(MOST_GUIDANCE)
    if at_most > allowed:
        return _best_guidance(below_quartile, allowed, at_most)
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if below_quartile(middle) > allowed else (low, middle)
    return 1.0 if low == 1.0 else (low * high) ** 0.5  # next to none would cost as much as any


def _best_guidance(below_quartile: Callable[[float], float], allowed: float, at_most: float) -> float:
    """The first of some guidances that is enough, or else the best of them; `at_most` is known of the last one."""
    shares: dict[float, float] = {}
    for place in range(GUIDANCES - 1):
        guidance = MOST_GUIDANCE ** (place / (GUIDANCES - 1))
        shares[guidance] = below_quartile(guidance)
        if shares[guidance] <= allowed:
            return guidance
    shares[MOST_GUIDANCE] = at_most
    return min(shares, key=shares.__getitem__)  # the least of equals


def agreement(
    tokens: Float[Tensor, "rows slots size"], code: Float[Tensor, "rows slots size"]
) -> Float[Tensor, " rows"]:
    """Cosine of what an image says alone and the code."""
    return F.cosine_similarity(tokens.flatten(1), code.flatten(1))
