"""Diagonal-Gaussian algebra: pure functions on means and log-variances, exact where a closed form exists.

The last axis is always the latent one. Experts of M sources stand on a leading axis.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LOG_TWO_PI = math.log(2.0 * math.pi)


def log_density(
    value: Float[Tensor, "*#batch latent"],
    mean: Float[Tensor, "*#batch latent"],
    log_variance: Float[Tensor, "*#batch latent"],
) -> Float[Tensor, "*#batch"]:
    """log N(value; mean, diag exp(log_variance)), summed over the latent axis, in nats; shapes broadcast."""
    squared = (value - mean).square() * torch.exp(-log_variance)
    return -0.5 * (squared + log_variance + LOG_TWO_PI).sum(dim=-1)


def kl_to_standard(
    mean: Float[Tensor, "*batch latent"], log_variance: Float[Tensor, "*batch latent"]
) -> Float[Tensor, "*batch"]:
    """KL( N(mean, diag exp(log_variance)) || N(0, I) ) in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=-1)


def kl_divergence(
    mean: Float[Tensor, "*batch latent"],
    log_variance: Float[Tensor, "*batch latent"],
    other_mean: Float[Tensor, "*batch latent"],
    other_log_variance: Float[Tensor, "*batch latent"],
) -> Float[Tensor, "*batch"]:
    """KL( N(mean, ..) || N(other_mean, ..) ) in nats, both diagonal."""
    ratio = torch.exp(log_variance - other_log_variance)
    squared = (mean - other_mean).square() * torch.exp(-other_log_variance)
    return 0.5 * (ratio + squared - 1.0 - log_variance + other_log_variance).sum(dim=-1)


def weighted_product(
    means: Float[Tensor, "sources rows latent"],
    log_variances: Float[Tensor, "sources rows latent"],
    weights: Float[Tensor, "sources rows"],
    prior_precision: float,
) -> tuple[Float[Tensor, "rows latent"], Float[Tensor, "rows latent"]]:
    """Generalised product of experts, row by row: N ~ p^prior_precision * prod_m q_m^a_m.

        T = prior_precision + sum_m a_m T_m,  T_m = exp(-log_variance_m)
        mean = (sum_m a_m T_m mean_m) / T;  variance = 1 / T

    Weights of 1 are the product of experts (Wu & Goodman 2018, arXiv 1802.05335); weights that sum to 1 the
    logarithmic opinion pool (Cao & Fleet 2014, arXiv 1410.7827); weight 0 removes an expert exactly. Where all weights
    are 0 and there is no prior expert the product is undefined and the standard normal stands in for it.

    Args:
        prior_precision: 1 with the standard-normal prior expert, 0 without it.
    """
    precision = weights[..., None] * torch.exp(-log_variances)
    return _from_precision(precision.sum(dim=0), (precision * means).sum(dim=0), prior_precision)


def subset_products(
    means: Float[Tensor, "sources rows latent"],
    log_variances: Float[Tensor, "sources rows latent"],
    membership: Float[Tensor, "subsets sources"],
    prior_precision: float,
) -> tuple[Float[Tensor, "subsets rows latent"], Float[Tensor, "subsets rows latent"]]:
    """The generalised product of every subset at once: two matrix products instead of a loop over 2^M subsets.

    Args:
        membership: the weight of each source in each subset, 0 where it is not a member.
    """
    precision = torch.exp(-log_variances)
    with torch.autocast(means.device.type, enabled=False):  # a posterior in bf16 would be off by its own deviation
        total = torch.tensordot(membership, precision, dims=1)
        weighted_mean = torch.tensordot(membership, precision * means, dims=1)
    return _from_precision(total, weighted_mean, prior_precision)


def _from_precision(total: Tensor, weighted_mean: Tensor, prior_precision: float) -> tuple[Tensor, Tensor]:
    total = total + prior_precision
    if prior_precision == 0:  # nothing multiplied: the standard normal
        total = torch.where(total == 0, torch.ones_like(total), total)
    return weighted_mean / total, -torch.log(total)


def barycenter(
    means: Float[Tensor, "sources rows latent"],
    log_variances: Float[Tensor, "sources rows latent"],
    weights: Float[Tensor, "sources rows"],
) -> tuple[Float[Tensor, "rows latent"], Float[Tensor, "rows latent"]]:
    """Wasserstein-2 barycenter of diagonal Gaussians: means average, and so do standard deviations (not variances).

        mean = sum_m a_m mean_m;  deviation = sum_m a_m deviation_m,  sum_m a_m = 1

    A row whose weights are all 0 gives the standard normal. Source: arXiv 2412.20487.
    """
    mean = (weights[..., None] * means).sum(dim=0)
    deviation = (weights[..., None] * torch.exp(0.5 * log_variances)).sum(dim=0)
    undefined = (weights.sum(dim=0) == 0)[:, None]
    deviation = torch.where(undefined, torch.ones_like(deviation), deviation)
    return mean, 2.0 * torch.log(deviation)


def wasserstein2(
    mean: Float[Tensor, "*batch latent"],
    log_variance: Float[Tensor, "*batch latent"],
    other_mean: Float[Tensor, "*batch latent"],
    other_log_variance: Float[Tensor, "*batch latent"],
) -> Float[Tensor, "*batch"]:
    """Squared Wasserstein-2 distance of two diagonal Gaussians."""
    deviation_gap = torch.exp(0.5 * log_variance) - torch.exp(0.5 * other_log_variance)
    return ((mean - other_mean).square() + deviation_gap.square()).sum(dim=-1)


def mixture_log_density(
    value: Float[Tensor, "rows latent"],
    means: Float[Tensor, "components rows latent"],
    log_variances: Float[Tensor, "components rows latent"],
    log_weights: Float[Tensor, "components rows"],
) -> Float[Tensor, " rows"]:
    """log sum_k w_k N(value; mean_k, ..) per row, by logsumexp; components of log-weight -inf do not count."""
    return torch.logsumexp(log_weights + log_density(value[None], means, log_variances), dim=0)
