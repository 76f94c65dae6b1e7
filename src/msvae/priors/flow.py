"""A normalizing flow fitted to the codes of training rows, to draw new codes from (needs zuko, extra `flows`)."""

import importlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from msvae.errors import ConfigError, NonFiniteError
from msvae.priors.base import Prior

TRANSFORMS, HIDDEN = 3, (128, 128)
STEPS, BATCH, LEARNING_RATE = 1500, 256, 1e-3


def zuko() -> Any:
    """The library of flows.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        return importlib.import_module("zuko")
    except ImportError:
        raise ConfigError('Normalizing flows need zuko: pip install "msvae[flows]".') from None


class FittedFlow(Prior):
    """A masked autoregressive flow (Papamakarios et al. 2017, arXiv 1705.07057) over standardised codes; empty until
    `fit`, and saved with the model."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.flow = zuko().flows.MAF(latent, transforms=TRANSFORMS, hidden_features=HIDDEN)
        self.flow.requires_grad_(False)  # trained by `fit` alone
        self.register_buffer("center", torch.zeros(latent))
        self.register_buffer("deviation", torch.ones(latent))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.center: Tensor
        self.deviation: Tensor
        self.fitted: Tensor

    @property
    def is_fitted(self) -> bool:
        return bool(self.fitted)

    @torch.enable_grad()
    def fit(self, codes: Float[Tensor, "rows latent"], seed: int = 0) -> None:
        """Maximise the likelihood of the codes.

        Raises:
            NonFiniteError: for non-finite codes.
        """
        if not bool(torch.isfinite(codes).all()):
            raise NonFiniteError("The codes of the training rows are not finite; the sampler cannot be fitted.")
        self.center.copy_(codes.mean(dim=0))
        self.deviation.copy_(codes.std(dim=0).clamp_min(1e-3) if len(codes) > 1 else torch.ones_like(codes[0]))
        standard = (codes - self.center) / self.deviation
        generator = torch.Generator().manual_seed(seed)
        self.flow.requires_grad_(True)
        optimizer = torch.optim.AdamW(self.flow.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        with torch.autocast(codes.device.type, enabled=False):  # it would go on with the casts of the first weights
            for _ in range(STEPS):
                rows = torch.randint(len(standard), (BATCH,), generator=generator).to(standard.device)
                loss = -self.flow().log_prob(standard[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        optimizer.zero_grad()  # or the model's own optimiser would take it for its own
        self.flow.requires_grad_(False)
        self.fitted.fill_(True)

    def sample(self, rows: int, generator: Generator | None = None) -> Float[Tensor, "rows latent"]:
        noise = torch.randn(rows, len(self.center), generator=generator, device=self.center.device)
        return self.flow().transform.inv(noise) * self.deviation + self.center

    def log_density(self, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        standard = (code - self.center) / self.deviation
        return self.flow().log_prob(standard) - torch.log(self.deviation).sum()
