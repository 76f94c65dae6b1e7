"""How well images say the shared code of their rows. Samples that say it worse than real images do are drawn again."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = 101  # quantiles at 0, .01, ..., 1


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


def agreement(
    tokens: Float[Tensor, "rows slots size"], code: Float[Tensor, "rows slots size"]
) -> Float[Tensor, " rows"]:
    """Cosine of what an image says alone and the code."""
    return F.cosine_similarity(tokens.flatten(1), code.flatten(1))
