"""The standard-normal prior, N(0, I)."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from msvae import gaussian
from msvae.posterior import Posterior
from msvae.priors.base import Prior


class StandardPrior(Prior):
    """N(0, I) of `latent` dimensions; its KL is closed for one Gaussian and an upper bound for mixtures."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(latent), persistent=False)
        self.zero: Tensor

    def sample(self, rows: int, generator: Generator | None = None) -> Float[Tensor, "rows latent"]:
        return torch.randn(rows, len(self.zero), generator=generator, device=self.zero.device)

    def log_density(self, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        return gaussian.log_density(code, self.zero, self.zero)

    def kl(self, posterior: Posterior, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        return posterior.kl_to_standard()
