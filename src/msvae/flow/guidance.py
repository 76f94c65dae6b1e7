"""Velocities made of velocities: guidance towards a condition, and several conditions by weights."""

from jaxtyping import Float
from torch import Tensor


def guided_velocity(
    conditional: Float[Tensor, "rows *shape"], unconditional: Float[Tensor, "rows *shape"], guidance: float
) -> Float[Tensor, "rows *shape"]:
    """v = v_0 + g (v_c - v_0): g = 1 is the conditional flow, above it exaggerates what the condition adds.

    Source: Ho & Salimans 2022 (arXiv 2207.12598).
    """
    return unconditional + guidance * (conditional - unconditional)


def composed_velocity(
    conditionals: Float[Tensor, "sources rows *shape"],
    unconditional: Float[Tensor, "rows *shape"],
    weights: Float[Tensor, "sources rows"],
) -> Float[Tensor, "rows *shape"]:
    """v = v_0 + sum_m a_m (v_m - v_0): what each condition adds to the unconditional flow, by weights.

    Weight 0 removes a condition exactly, the only weight 1 is its own flow. Source: Liu et al. 2022 (arXiv 2206.01714).
    """
    shares = weights.view(*weights.shape, *[1] * (unconditional.dim() - 1))
    return unconditional + (shares * (conditionals - unconditional)).sum(dim=0)
