"""A lower bound of the shared-latent flow's log p(x_S)."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from msvae.errors import ConfigError
from msvae.flow.autoencoders import present_values
from msvae.flow.density import log_density, normal_log_density
from msvae.likelihoods import likelihood_of
from msvae.models.shared_flow import SharedFlow
from msvae.source import SourceBatch, check_batch

STEPS = 40


def likelihood_bound(
    model: SharedFlow,
    batch: SourceBatch,
    samples: int = 10,
    *,
    steps: int = STEPS,
    generator: Generator | None = None,
) -> Float[Tensor, " rows"]:
    """A bound of log p(x_S) in nats for each row, S the sources that the row has; the flows unguided.

        E_q [ log p(w) - log q(w | x_S) + sum_m ( log p(x_m | h_m) + log p(h_m | w) - log q(h_m | x_m) ) ]

    q(w | x_S) is `model.encode`, q(h_m | x_m) the autoencoders' posterior; the two flows' densities come from their
    differential equations (`msvae.flow.density`). Draws are averaged, not weighed: the divergence is an unbiased
    estimate of a logarithm, of which only a mean is unbiased.

    Args:
        samples: draws of (w, h), one at a time.
        steps: of each differential equation; two evaluations of the network and a gradient each.

    Raises:
        SourceError: for rows that do not fit the model.
        ConfigError: for fewer than one sample.
    """
    if samples < 1:
        raise ConfigError(f"Likelihood: expected at least 1 sample, got {samples}.")
    batch = batch.to(model.device)
    check_batch(batch, model.sources)
    draws = [_one_draw(model, batch, steps, generator) for _ in range(samples)]
    return torch.stack(draws).mean(dim=0)


def _one_draw(model: SharedFlow, batch: SourceBatch, steps: int, generator: Generator | None) -> Tensor:
    with torch.no_grad():
        posterior = model.encode(batch)
        code = posterior.sample(generator)
        encoded = model.autoencoders.latents(present_values(batch, model.source_names))
    slots = code.unflatten(1, (model.content.slots, model.content.size))
    prior = model.converter.velocity(model.content.evidence(model.nothing(len(batch))))
    bound = log_density(prior, slots, steps, generator) - posterior.log_density(code)
    noise_scale = model.autoencoders.noise
    for name, mean in encoded.items():
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        latents = mean + noise_scale * noise
        rows = batch.present[name].nonzero().squeeze(1)
        source = model.autoencoders.sources[name]
        with torch.no_grad():
            raw = model.autoencoders.decode({name: latents})[name]
            score = likelihood_of(source).log_prob(raw, source.normalise(batch.values[name][rows]), source)
        entropy = -normal_log_density(noise) + mean.shape[1] * math.log(noise_scale)
        velocity = model.renderer.velocity([(name, len(rows))], slots[rows])
        bound = bound.index_add(0, rows, score + log_density(velocity, latents, steps, generator) + entropy)
    return bound.detach()
