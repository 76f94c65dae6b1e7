"""What a prior is: the distribution of the code when no source is given."""

from jaxtyping import Float
from torch import Generator, Tensor, nn

from msvae.posterior import Posterior


class Prior(nn.Module):
    """The contract of p(z)."""

    def sample(self, rows: int, generator: Generator | None = None) -> Float[Tensor, "rows latent"]:
        """Codes drawn from the prior, on the prior's device."""
        raise NotImplementedError

    def log_density(self, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        """log p(code) in nats."""
        raise NotImplementedError

    def kl(self, posterior: Posterior, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        """KL(posterior || prior) in nats; by default the estimate from one drawn code, unbiased for any pair."""
        return posterior.log_density(code) - self.log_density(code)
