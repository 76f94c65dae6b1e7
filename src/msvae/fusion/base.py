"""What a fusion is: it makes one posterior over the shared code out of one expert per present source."""

from jaxtyping import Float
from torch import Tensor, nn

from msvae.posterior import Experts, Posterior


class Fusion(nn.Module):
    """The contract. A new fusion is one file with a subclass, one line in `FUSIONS` and nothing else.

    Every fusion holds to: absent sources and sources of weight 0 have no influence at all; the order of sources does
    not matter; one present source (or a one-hot weight) gives that source's own posterior; a row without sources
    gives the prior.
    """

    def __init__(self, source_count: int, prior_expert: bool = True) -> None:
        """Args: source_count: M. prior_expert: whether products count the standard-normal prior as an expert."""
        super().__init__()
        self.source_count = source_count
        self.prior_precision = 1.0 if prior_expert else 0.0

    def latent_size(self, per_source: int) -> int:
        """Length of the fused code for experts of length `per_source`."""
        return per_source

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
