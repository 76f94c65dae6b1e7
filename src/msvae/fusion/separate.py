"""No fusion at all: every source keeps its own code. The M independent single-source VAEs, as one model."""

from jaxtyping import Float
from torch import Tensor

from msvae.fusion.base import Fusion
from msvae.posterior import Experts, Posterior


class Separate(Fusion):
    """The code is (z_1, .., z_M), each part with its own source's posterior; the parts of absent sources follow the
    prior.

    Weights have nothing to balance here; weight 0 still removes a source.
    """

    symmetric = False

    def latent_size(self, per_source: int) -> int:
        return per_source * self.source_count

    def code_of(self, code: Float[Tensor, "rows latent"], source_index: int) -> Float[Tensor, "rows part"]:
        return code.unflatten(1, (self.source_count, -1))[:, source_index]

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        present = experts.present if weights is None else experts.present & (weights > 0)[:, None]
        means = experts.means * present[..., None]  # absent: the prior, mean 0 and log-variance 0
        log_variances = experts.log_variances * present[..., None]
        return Posterior.single(means.transpose(0, 1).flatten(1), log_variances.transpose(0, 1).flatten(1))
