"""The density of what a flow draws: its differential equation backwards, with the divergence of its velocity."""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from msvae.flow.sampler import Velocity, step_times

EARLY = 0.1  # steps are shorter at the end, where velocities of data that hardly vary in a direction change most


def log_density(
    velocity: Velocity,
    data: Float[Tensor, "rows *shape"],
    steps: int,
    generator: Generator | None = None,
    *,
    exact: bool = False,
) -> Float[Tensor, " rows"]:
    """log p(data) in nats for dx/dt = v(x, t) with x_0 ~ N(0, I) and data = x_1.

        log p(x_1) = log N(x_0; 0, I) - int_0^1 div v(x_t, t) dt

    by midpoint steps from t = 1 back to 0, at `step_times(steps, EARLY)`. The divergence is Hutchinson's estimate
    e' (dv/dx) e with one random sign vector e for each row, which is unbiased for the integral; `exact` sums over all
    dimensions instead (slow).

    Sources: Chen et al. 2018 (arXiv 1806.07366), Grathwohl et al. 2019 (arXiv 1810.01367).

    Raises:
        ValueError: for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"A density needs at least one step, got {steps}.")
    shape = data.shape[1:]
    if exact:
        units = torch.eye(shape.numel(), dtype=data.dtype, device=data.device)
        probes = [unit.view(1, *shape).expand_as(data) for unit in units]
    else:
        signs = torch.randint(0, 2, data.shape, generator=generator, device=data.device)
        probes = [signs.to(data.dtype) * 2 - 1]
    state, divergence = data, data.new_zeros(len(data))
    for time, end in reversed(list(pairwise(step_times(steps, EARLY)))):
        length, after = end - time, torch.full((len(data),), end, dtype=data.dtype, device=data.device)
        middle = after - length / 2
        with torch.no_grad():
            halfway = state - velocity(state, after) * length / 2
        with torch.enable_grad():
            halfway = halfway.detach().requires_grad_(True)
            speed = velocity(halfway, middle)
            for probe in probes:
                (pulled,) = torch.autograd.grad(speed, halfway, probe, retain_graph=True)
                divergence = divergence + (pulled * probe).flatten(1).sum(dim=1).detach() * length
        state = state - speed.detach() * length
    return normal_log_density(state) - divergence


def normal_log_density(values: Float[Tensor, "rows *shape"]) -> Float[Tensor, " rows"]:
    """log N(values; 0, I) of each row, in nats."""
    flat = values.flatten(1)
    return -0.5 * (flat.square().sum(dim=1) + flat.shape[1] * math.log(2 * math.pi))
