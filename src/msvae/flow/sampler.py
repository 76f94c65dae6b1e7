"""Solving dx/dt = v(x, t): from noise to data, and back."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(state of (rows, ..), times of (rows,)) -> velocity of (rows, ..)"""


def sample(velocity: Velocity, noise: Float[Tensor, "rows *shape"], steps: int) -> Float[Tensor, "rows *shape"]:
    """Euler steps of equal length from t = 0 to t = 1.

    Raises:
        ValueError: for fewer than one step.
    """
    _check(steps)
    state = noise
    for step in range(steps):
        time = torch.full((len(noise),), step / steps, device=noise.device)
        state = state + velocity(state, time) / steps
    return state


def invert(
    velocity: Velocity, data: Float[Tensor, "rows *shape"], steps: int, corrections: int = 3
) -> Float[Tensor, "rows *shape"]:
    """The noise that `sample` turns into the data: each Euler step x' = x + v(x, t) / steps is solved for x.

    The implicit step is solved by fixed-point iteration x <- x' - v(x, t) / steps, which contracts where the
    velocity changes by less than `steps` per unit of the state; more `corrections` come nearer to the exact inverse.

    Raises:
        ValueError: for fewer than one step.
    """
    _check(steps)
    state = data
    for step in reversed(range(steps)):
        time = torch.full((len(data),), step / steps, device=data.device)
        after = state
        for _ in range(1 + corrections):
            state = after - velocity(state, time) / steps
    return state


def _check(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"A flow needs at least one step, got {steps}.")
