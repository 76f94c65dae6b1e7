"""The likelihood of a joint model: importance-sampled log p(x_S) of any sources, for every model alike."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from msvae import gaussian
from msvae.errors import ConfigError
from msvae.models.joint import JointVAE
from msvae.source import SourceBatch, check_batch

CODES_AT_ONCE = 2000


@torch.no_grad()
def log_likelihood(
    model: JointVAE,
    batch: SourceBatch,
    samples: int = 100,
    *,
    proposal: Sequence[str] | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " rows"]:
    """log p(x_S) in nats for each row, S the sources that the row has: a lower bound in expectation, tight for many
    samples.

        log (1/K) sum_k prod_m p(x_m | z^k, w_m^k) p(z^k) prod_m p(w_m^k) / q(z^k, w^k | x_T),   (z, w)^k ~ q(. | x_T)

    p(w_m) is the standard normal. Likelihoods are unscaled, whatever the model was trained with. Burda et al. 2016,
    arXiv 1509.00519.

    Args:
        samples: K, codes drawn for each row.
        proposal: the sources T that the code is drawn from, all of S by default. Any T gives the same quantity in the
            limit; with fewer sources it takes more samples.

    Raises:
        SourceError: for rows that do not fit the model or have no source of the proposal.
        ConfigError: for fewer than one sample.
    """
    if samples < 1:
        raise ConfigError(f"Likelihood: expected at least 1 sample, got {samples}.")
    batch = batch.to(model.device)
    check_batch(batch, model.sources)
    heard = batch if proposal is None else batch.select(proposal)
    check_batch(heard, model.sources)
    posterior = model.encode(heard)
    present = batch.presence(model.source_names)
    rows, length = len(batch), model.shared_length
    log_weights: list[Tensor] = []
    per_pass = max(1, CODES_AT_ONCE // rows)
    for first in range(0, samples, per_pass):
        copies = min(per_pass, samples - first)
        codes = posterior.samples(copies, generator)
        shared, private = codes[..., :length], codes[..., length:]
        private = private.unflatten(2, (len(model.sources), model.config.private)).transpose(1, 2)
        scores = model.log_likelihoods(shared, private, batch, present.expand(copies, -1, -1))
        zero = torch.zeros_like(private[0, 0, 0])
        prior = model.prior.log_density(shared.flatten(0, 1)).unflatten(0, (copies, rows))
        prior = prior + gaussian.log_density(private, zero, zero).sum(dim=1)
        log_weights.append(scores.sum(dim=1) + prior - posterior.log_density(codes))
    return torch.logsumexp(torch.cat(log_weights), dim=0) - math.log(samples)
