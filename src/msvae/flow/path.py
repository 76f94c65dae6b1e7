"""The straight path from noise to data: x_t = (1 - t) noise + t data, t from 0 (noise) to 1 (data).

Flow matching (Lipman et al. 2023, arXiv 2210.02747) and rectified flow (Liu et al. 2023, arXiv 2209.03003): a network
that predicts the velocity data - noise from x_t in the mean squared sense has learned E[data - noise | x_t], whose
ordinary differential equation carries noise into data.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

MEAN_SHARE = 0.1


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


@dataclass(frozen=True)
class PathPoints:
    """Places on paths to train a velocity on.

    Args:
        state: (rows, ..) x_t.
        time: (rows,) t.
        velocity: (rows, ..) the target, data - noise.
    """

    state: Tensor
    time: Tensor
    velocity: Tensor


def path_points(
    data: Float[Tensor, "rows *shape"],
    spread: float = 1.0,
    generator: Generator | None = None,
    mean_share: float = MEAN_SHARE,
) -> PathPoints:
    """A random place on a random path to each row of data.

    Some rows are at t = 0 with the noise 0, where the target is the data itself. A state of 0 says nothing of the data,
    so that what the network predicts there is the conditional mean that `mode="mean"` answers with; logit-normal times
    hardly ever come near it.
    """
    noise = torch.randn(data.shape, generator=generator, device=data.device)
    time = path_times(len(data), spread, generator, data.device)
    at_mean = torch.rand(len(data), generator=generator, device=data.device) < mean_share
    time = time.masked_fill(at_mean, 0.0)
    noise = torch.where(_like(at_mean, data), torch.zeros_like(noise), noise)
    return PathPoints(noisy(data, noise, time), time, path_velocity(data, noise))


def _like(time: Tensor, values: Tensor) -> Tensor:
    return time.view(-1, *[1] * (values.dim() - 1))
