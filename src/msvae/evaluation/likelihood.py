"""The likelihood of a joint model: importance-sampled log p(x_S) of any sources, for every model alike."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from msvae import gaussian
from msvae.errors import ConfigError
from msvae.models.joint import JointVAE
from msvae.posterior import Posterior
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

    p(w_m) is the standard normal, from which the private codes of sources that a row lacks are drawn: they say nothing
    of its images. Likelihoods are unscaled, whatever the model was trained with. Burda et al. 2016, arXiv 1509.00519.

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
    present = batch.presence(model.source_names)
    rows, length = len(batch), model.shared_length
    posterior = _without_guards(model.encode(heard), present, length)
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


def _without_guards(posterior: Posterior, present: Bool[Tensor, "sources rows"], length: int) -> Posterior:
    """The proposal with the prior, not the guards, for private codes of sources that are in no likelihood: their weight
    p / q is 1 then; a guard's has no finite variance where it is narrow.

    Args:
        length: of the shared code, which stands before the private ones.
    """
    shared, private = posterior.log_variances[..., :length], posterior.log_variances[..., length:]
    by_source = private.unflatten(2, (len(present), -1)) * present.T[None, :, :, None]
    return replace(posterior, log_variances=torch.cat([shared, by_source.flatten(2)], dim=2))
