"""Priors that are learned with the model."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from msvae import gaussian
from msvae.posterior import Posterior
from msvae.priors.base import Prior


class LearnedScalePrior(Prior):
    """N(0, diag s^2) with a learned s, 1 at the start: dimensions that carry nothing may shrink."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(latent))

    def sample(self, rows: int, generator: Generator | None = None) -> Float[Tensor, "rows latent"]:
        noise = torch.randn(rows, len(self.log_variance), generator=generator, device=self.log_variance.device)
        return noise * torch.exp(0.5 * self.log_variance)

    def log_density(self, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        return gaussian.log_density(code, torch.zeros_like(self.log_variance), self.log_variance)

    def kl(self, posterior: Posterior, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        return posterior.kl_to(torch.zeros_like(code), self.log_variance.expand_as(code))


class LearnedMixturePrior(Prior):
    """sum_k pi_k N(mean_k, diag s_k^2), all learned: clusters of content (CMVAE, Palumbo et al. 2024).

    The KL has no closed form; the estimate from one drawn code stands for it.
    """

    def __init__(self, latent: int, components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, latent))
        self.log_variances = nn.Parameter(torch.zeros(components, latent))

    def sample(self, rows: int, generator: Generator | None = None) -> Float[Tensor, "rows latent"]:
        component = torch.multinomial(self.logits.softmax(dim=0), rows, replacement=True, generator=generator)
        noise = torch.randn(rows, self.means.shape[1], generator=generator, device=self.means.device)
        return self.means[component] + noise * torch.exp(0.5 * self.log_variances[component])

    def log_density(self, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        each = gaussian.log_density(code[:, None], self.means, self.log_variances)
        return torch.logsumexp(each + self.logits.log_softmax(dim=0), dim=1)


class Guard(nn.Module):
    """r_m = N(0, diag s_m^2): the private codes that a source is drawn with when its own is not known.

    Drawn from it, a source can show only what the shared code says, which keeps shared content out of the private
    codes (MMVAE+, Palumbo et al. 2023).

    Args:
        learned: whether s_m is learned, 1 at the start; 1 for ever otherwise.
    """

    def __init__(self, source_count: int, private: int, learned: bool) -> None:
        super().__init__()
        log_variances = torch.zeros(source_count, private)
        if learned and private:
            self.log_variances = nn.Parameter(log_variances)
        else:
            self.register_buffer("log_variances", log_variances, persistent=False)
        self.log_variances: Tensor

    def sample(
        self, copies: int, rows: int, generator: Generator | None = None
    ) -> Float[Tensor, "copies sources rows private"]:
        sources, private = self.log_variances.shape
        noise = torch.randn(copies, sources, rows, private, generator=generator, device=self.log_variances.device)
        return noise * torch.exp(0.5 * self.log_variances)[:, None]

    def kl_to_standard(self) -> Float[Tensor, " sources"]:
        """KL(r_m || N(0, I)) of every source."""
        return gaussian.kl_to_standard(torch.zeros_like(self.log_variances), self.log_variances)
