"""What encoders and fusions say of the code of a row: experts per source, and one mixture over all of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from msvae import gaussian


@dataclass(frozen=True)
class Experts:
    """One diagonal Gaussian per source and row, before fusion.

    Where a source is absent its expert holds the standard normal (mean 0, log-variance 0).

    Args:
        means, log_variances: (sources, rows, latent).
        present: (sources, rows); fusions read only what is present.
    """

    means: Float[Tensor, "sources rows latent"]
    log_variances: Float[Tensor, "sources rows latent"]
    present: Bool[Tensor, "sources rows"]

    def restricted(self, subset: Bool[Tensor, "sources rows"]) -> "Experts":
        """The same experts with only the sources in `subset` still present."""
        return Experts(self.means, self.log_variances, self.present & subset)


@dataclass(frozen=True)
class Posterior:
    """q(z | x_S): a mixture of diagonal Gaussians per row; one component for PoE or barycenter, many for MoE or MoPoE.

    Args:
        means, log_variances: (components, rows, latent).
        log_weights: (components, rows), normalised over components; -inf where a component does not count in a row.
    """

    means: Float[Tensor, "components rows latent"]
    log_variances: Float[Tensor, "components rows latent"]
    log_weights: Float[Tensor, "components rows"]

    @classmethod
    def single(cls, mean: Float[Tensor, "rows latent"], log_variance: Float[Tensor, "rows latent"]) -> "Posterior":
        """One Gaussian a row."""
        return cls(mean[None], log_variance[None], mean.new_zeros(1, len(mean)))

    @classmethod
    def mixture(
        cls,
        means: Float[Tensor, "components rows latent"],
        log_variances: Float[Tensor, "components rows latent"],
        counts: Float[Tensor, "components rows"],
    ) -> "Posterior":
        """A mixture whose weights are proportional to `counts` >= 0; a row of zeros gets the standard normal."""
        total = counts.sum(dim=0, keepdim=True)
        nothing = total == 0
        first = torch.zeros_like(counts)
        first[0] = 1.0
        weights = torch.where(nothing, first, counts / torch.where(nothing, torch.ones_like(total), total))
        blank = nothing[0][None, :, None]
        return cls(
            torch.where(blank, torch.zeros_like(means), means),
            torch.where(blank, torch.zeros_like(log_variances), log_variances),
            torch.log(weights),
        )

    def __len__(self) -> int:
        return self.means.shape[1]

    @property
    def mean(self) -> Float[Tensor, "rows latent"]:
        """The mean of the mixture: the code behind every `mode="mean"` answer."""
        return (self.log_weights.exp()[..., None] * self.means).sum(dim=0)

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "rows latent"]:
        """One reparameterised code a row; the component is drawn, the Gaussian in it is differentiable."""
        noise = torch.randn(self.means.shape[1:], generator=generator, device=self.means.device, dtype=self.means.dtype)
        if len(self.means) == 1:
            return self.means[0] + noise * torch.exp(0.5 * self.log_variances[0])
        component = torch.multinomial(self.log_weights.exp().T, 1, generator=generator).squeeze(1)
        row = torch.arange(len(self), device=self.means.device)
        return self.means[component, row] + noise * torch.exp(0.5 * self.log_variances[component, row])

    def log_density(self, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        """log q(code | x_S) in nats."""
        return gaussian.mixture_log_density(code, self.means, self.log_variances, self.log_weights)

    def kl_to_standard(self) -> Float[Tensor, " rows"]:
        """sum_k w_k KL(q_k || N(0, I)) in nats: exact for one component, an upper bound for a mixture (convexity).

        With it the ELBO stays a lower bound; it is the bound that MoPoE trains with (Sutter et al. 2021).
        """
        weights = self.log_weights.exp()
        return (weights * gaussian.kl_to_standard(self.means, self.log_variances)).sum(dim=0)
