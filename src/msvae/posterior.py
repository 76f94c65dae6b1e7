"""What encoders and fusions say of the code of a row: experts per source, and one mixture over all of them."""

from dataclasses import dataclass, replace

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
        tokens: (sources, rows, token): what a learned fusion reads of each source beside its Gaussian; None for others.
    """

    means: Float[Tensor, "sources rows latent"]
    log_variances: Float[Tensor, "sources rows latent"]
    present: Bool[Tensor, "sources rows"]
    tokens: Float[Tensor, "sources rows token"] | None = None

    def restricted(self, subset: Bool[Tensor, "sources rows"]) -> "Experts":
        """The same experts with only the sources in `subset` still present."""
        return replace(self, present=self.present & subset)

    def stacked(self, subsets: Bool[Tensor, "copies sources rows"]) -> "Experts":
        """Every row once for each of several restrictions: rows become copies x rows, a restriction after the other."""
        copies = len(subsets)

        def repeated(part: Tensor) -> Tensor:
            return part.repeat(1, copies, 1)

        present = (self.present & subsets).transpose(0, 1).flatten(1)
        tokens = None if self.tokens is None else repeated(self.tokens)
        return Experts(repeated(self.means), repeated(self.log_variances), present, tokens)

    def detached(self) -> "Experts":
        """The same Gaussians, their parameters held."""
        return replace(self, means=self.means.detach(), log_variances=self.log_variances.detach())

    def sample(
        self, copies: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "copies sources rows latent"]:
        """Reparameterised codes drawn from every expert by itself."""
        noise = torch.randn(
            copies, *self.means.shape, generator=generator, device=self.means.device, dtype=self.means.dtype
        )
        return self.means + noise * torch.exp(0.5 * self.log_variances)


@dataclass(frozen=True)
class Evidence:
    """What the encoders say of a batch: of the shared code, and of each source's private code (of length 0 if none).

    Args:
        shared: experts on the code that all sources have in common; fusions join them.
        private: posteriors of what only that source shows; nothing joins them.
    """

    shared: Experts
    private: Experts

    @property
    def present(self) -> Bool[Tensor, "sources rows"]:
        return self.shared.present


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
        return cls.weighted(means, log_variances, torch.log(counts))

    @classmethod
    def weighted(
        cls,
        means: Float[Tensor, "components rows latent"],
        log_variances: Float[Tensor, "components rows latent"],
        log_counts: Float[Tensor, "components rows"],
    ) -> "Posterior":
        """`mixture` with logarithms, for weights that depend on the experts: -inf leaves a component out."""
        nothing = torch.isneginf(log_counts).all(dim=0)
        first = torch.full_like(log_counts, -torch.inf)
        first[0] = 0.0
        blank = nothing[None, :, None]
        return cls(
            torch.where(blank, torch.zeros_like(means), means),
            torch.where(blank, torch.zeros_like(log_variances), log_variances),
            torch.log_softmax(torch.where(nothing, first, log_counts), dim=0),
        )

    def __len__(self) -> int:
        return self.means.shape[1]

    @property
    def mean(self) -> Float[Tensor, "rows latent"]:
        """The mean of the mixture: the code behind every `mode="mean"` answer."""
        return (self.log_weights.exp()[..., None] * self.means).sum(dim=0)

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "rows latent"]:
        """One reparameterised code a row; the component is drawn, the Gaussian in it is differentiable."""
        return self.samples(1, generator)[0]

    def samples(self, copies: int, generator: torch.Generator | None = None) -> Float[Tensor, "copies rows latent"]:
        """Several codes of each row, each as `sample` draws it."""
        shape = (copies, *self.means.shape[1:])
        noise = torch.randn(shape, generator=generator, device=self.means.device, dtype=self.means.dtype)
        if len(self.means) == 1:
            return self.means[0] + noise * torch.exp(0.5 * self.log_variances[0])
        component = torch.multinomial(self.log_weights.exp().T, copies, replacement=True, generator=generator).T
        row = torch.arange(len(self), device=self.means.device)
        return self.means[component, row] + noise * torch.exp(0.5 * self.log_variances[component, row])

    def detached(self) -> "Posterior":
        """The same distribution, its parameters held: no gradient reaches the encoders through its density."""
        return Posterior(self.means.detach(), self.log_variances.detach(), self.log_weights.detach())

    def log_density(self, code: Float[Tensor, "*copies rows latent"]) -> Float[Tensor, "*copies rows"]:
        """log q(code | x_S) in nats, for one code of each row or several."""
        return gaussian.mixture_log_density(code, self.means, self.log_variances, self.log_weights)

    def kl_to_standard(self) -> Float[Tensor, " rows"]:
        """sum_k w_k KL(q_k || N(0, I)) in nats: exact for one component, an upper bound for a mixture (convexity).

        With it the ELBO stays a lower bound; it is the bound that MoPoE trains with (Sutter et al. 2021).
        """
        weights = self.log_weights.exp()
        return (weights * gaussian.kl_to_standard(self.means, self.log_variances)).sum(dim=0)

    def kl_to(
        self, mean: Float[Tensor, "*others rows latent"], log_variance: Float[Tensor, "*others rows latent"]
    ) -> Float[Tensor, "*others rows"]:
        """sum_k w_k KL(q_k || N(mean, exp log_variance)) in nats, exact for one component, else an upper bound."""
        means, log_variances = self.means.unsqueeze(-3), self.log_variances.unsqueeze(-3)
        if mean.dim() == 2:
            means, log_variances = self.means, self.log_variances
        each = gaussian.kl_divergence(means, log_variances, mean, log_variance)
        weights = self.log_weights.exp()
        return (each * (weights if mean.dim() == 2 else weights[:, None])).sum(dim=0)
