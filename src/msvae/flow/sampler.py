"""Solving dx/dt = v(x, t): from noise to data, and back."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(state of (rows, ..), times of (rows,)) -> velocity of (rows, ..)"""
Solver = Literal["euler", "adams"]


def step_times(steps: int, early: float = 1.0) -> list[float]:
    """The ends of the steps from t = 0 to t = 1: u / (u + early (1 - u)) for u in equal steps.

    Above 1 the steps are shorter at first, where the noise decides what comes of it, and longer at the end (timestep
    shift: Esser et al. 2024, arXiv 2403.03206).

    Raises:
        ValueError: for fewer than one step, or `early` not above 0.
    """
    if steps < 1:
        raise ValueError(f"A flow needs at least one step, got {steps}.")
    if not early > 0:
        raise ValueError(f"Steps of a flow: expected early > 0, got {early}.")
    return [step / (step + early * (steps - step)) for step in range(steps + 1)]


def sample(
    velocity: Velocity,
    noise: Float[Tensor, "rows *shape"],
    steps: int,
    early: float = 1.0,
    solver: Solver = "euler",
) -> Float[Tensor, "rows *shape"]:
    """Steps from t = 0 to t = 1, at `step_times`, with one evaluation each.

    `adams` extrapolates the velocity to the middle of a step from that of the step before (Adams and Bashforth, second
    order): its error falls with the square of the number of steps, Euler's with the number.
    """
    state, before, length_before = noise, None, 0.0
    for time, after in pairwise(step_times(steps, early)):
        length = after - time
        now = velocity(state, torch.full((noise.shape[0],), time, device=noise.device))
        middle = now if before is None else now + length / (2 * length_before) * (now - before)
        state = state + length * middle
        if solver == "adams":
            before, length_before = now, length
    return state


def invert(
    velocity: Velocity, data: Float[Tensor, "rows *shape"], steps: int, early: float = 1.0, corrections: int = 10
) -> Float[Tensor, "rows *shape"]:
    """The noise that `sample` turns into the data: each Euler step x' = x + length v(x, t) is solved for x.

    The implicit step is solved by fixed-point iteration x <- x' - length v(x, t), which contracts where the velocity
    changes by less than 1 / length per unit of the state; more `corrections` come nearer to the exact inverse.
    """
    state = data
    for time, after in reversed(list(pairwise(step_times(steps, early)))):
        times = torch.full((len(data),), time, device=data.device)
        reached = state
        for _ in range(1 + corrections):
            state = reached - (after - time) * velocity(state, times)
    return state
