"""The straight path from noise to data: x_t = (1 - t) noise + t data, t from 0 (noise) to 1 (data).

Flow matching (Lipman et al. 2023, arXiv 2210.02747) and rectified flow (Liu et al. 2023, arXiv 2209.03003): a network
that predicts the velocity data - noise from x_t in the mean squared sense has learned E[data - noise | x_t], whose
ordinary differential equation carries noise into data.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def path_times(
    rows: int, spread: float = 1.0, generator: Generator | None = None, device: torch.device | None = None
) -> Float[Tensor, " rows"]:
    """Times for training, logit-normal: sigmoid(spread N(0, 1)), densest in the middle of the path.

    Source: Esser et al. 2024 (arXiv 2403.03206).
    """
    return torch.sigmoid(spread * torch.randn(rows, generator=generator, device=device))


def noisy(
    data: Float[Tensor, "rows *shape"], noise: Float[Tensor, "rows *shape"], time: Float[Tensor, " rows"]
) -> Float[Tensor, "rows *shape"]:
    """x_t = (1 - t) noise + t data, a time for each row."""
    share = _like(time, data)
    return (1 - share) * noise + share * data


def path_velocity(
    data: Float[Tensor, "rows *shape"], noise: Float[Tensor, "rows *shape"]
) -> Float[Tensor, "rows *shape"]:
    """dx_t / dt = data - noise, the same at all times."""
    return data - noise


def clean_prediction(
    state: Float[Tensor, "rows *shape"], velocity: Float[Tensor, "rows *shape"], time: Float[Tensor, " rows"]
) -> Float[Tensor, "rows *shape"]:
    """E[data | x_t] = x_t + (1 - t) E[data - noise | x_t]: exact for the exact velocity.

    At t = 0 the state says nothing of the data, so that one evaluation there is the conditional mean.
    """
    return state + (1 - _like(time, state)) * velocity


def _like(time: Tensor, values: Tensor) -> Tensor:
    return time.view(-1, *[1] * (values.dim() - 1))
