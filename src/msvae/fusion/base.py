"""What a fusion is: it makes one posterior over the shared code out of one expert per present source."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from msvae.posterior import Experts, Posterior


@dataclass(frozen=True)
class FusionSettings:
    """What fusions are built from.

    Args:
        source_count: M.
        latent: length of an expert's code.
        prior_expert: whether products count the standard-normal prior as an expert.
        dependence: correlation of the experts' errors, in [0, 1); read by the consensus alone.
    """

    source_count: int
    latent: int
    prior_expert: bool = True
    dependence: float = 0.5


class Fusion(nn.Module):
    """The contract. A new fusion is one file with a subclass, one line in `FUSIONS` and nothing else.

    Every fusion holds to: absent sources and sources of weight 0 have no influence at all; only the ratios of weights
    count; a one-hot weight is as good as that source alone; a row without sources gives N(0, I). The order of
    sources does not matter unless `symmetric` is False.
    """

    options: ClassVar[frozenset[str]] = frozenset()  # the model settings that act on it, beside the common ones
    symmetric: ClassVar[bool] = True
    experts_are_posteriors: ClassVar[bool] = True  # False where a source's Gaussian alone means nothing

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__()
        self.source_count = settings.source_count
        self.prior_precision = 1.0 if settings.prior_expert else 0.0

    @property
    def counts_prior(self) -> bool:
        """Whether its answer, and so that of one source alone, has the prior as a further expert."""
        return "prior_expert" in self.options and self.prior_precision > 0

    def latent_size(self, per_source: int) -> int:
        """Length of the fused code for experts of length `per_source`."""
        return per_source

    def token_size(self, per_source: int) -> int:
        """Numbers that every encoder gives the fusion beside its Gaussian."""
        return 0

    def code_of(self, code: Float[Tensor, "rows latent"], source_index: int) -> Float[Tensor, "rows part"]:
        """The part of the code that one source is drawn from: all of it, unless the fusion keeps sources apart."""
        return code

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        """q(z | x_S) for the present sources.

        Args:
            experts: one Gaussian per source and row.
            weights: a user's weight >= 0 per source, or None for the fusion's own balance.
        """
        raise NotImplementedError


def spread(experts: Experts, weights: Float[Tensor, " sources"] | None) -> Float[Tensor, "sources rows"]:
    """Unnormalised weight of every source in every row: 1 by default, 0 where absent."""
    present = experts.present.to(experts.means.dtype)
    return present if weights is None else present * weights[:, None]


def normalised(weights: Float[Tensor, "..."], dim: int = 0) -> Float[Tensor, "..."]:
    """The same weights, summing to 1 over the sources, which are along `dim`; where all are zero they stay so."""
    return weights / weights.sum(dim=dim, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
