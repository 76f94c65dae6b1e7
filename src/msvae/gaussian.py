"""Diagonal-Gaussian algebra: pure functions on means and log-variances, exact where a closed form exists.

The last axis is always the latent one. Experts of M sources stand on a leading axis.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

LOG_TWO_PI = math.log(2.0 * math.pi)
LARGEST_LOG_VARIANCE = 12.0  # approached, never reached: a hard limit would have no gradient to come back by


def bounded_log_variance(raw: Tensor) -> Tensor:
    """What a network says of a log-variance, softly kept within +-12."""
    return LARGEST_LOG_VARIANCE * torch.tanh(raw / LARGEST_LOG_VARIANCE)


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
    mean: Float[Tensor, "*#batch latent"],
    log_variance: Float[Tensor, "*#batch latent"],
    other_mean: Float[Tensor, "*#batch latent"],
    other_log_variance: Float[Tensor, "*#batch latent"],
) -> Float[Tensor, "*#batch"]:
    """KL( N(mean, ..) || N(other_mean, ..) ) in nats, both diagonal."""
    ratio = torch.exp(log_variance - other_log_variance)
    squared = (mean - other_mean).square() * torch.exp(-other_log_variance)
    return 0.5 * (ratio + squared - 1.0 - log_variance + other_log_variance).sum(dim=-1)


Pool = Callable[[Tensor], Tensor]
"""Weighted sums over sources, by row or by subset."""


def pool_rows(weights: Float[Tensor, "sources rows"]) -> Pool:
    """Sums over sources with a weight per source and row: (sources, rows, latent) -> (rows, latent)."""
    return lambda values: (weights[..., None] * values).sum(dim=0)


def pool_subsets(membership: Float[Tensor, "subsets sources"]) -> Pool:
    """Sums over every subset at once, by one matrix product instead of a loop over 2^M subsets.

    (sources, rows, latent) -> (subsets, rows, latent); `membership` holds 0 where a source is not a member.
    """

    def pool(values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):  # a posterior in bf16 would be off by its own deviation
            return torch.tensordot(membership, values, dims=1)

    return pool


def product(pool: Pool, means: Tensor, log_variances: Tensor, prior_precision: float) -> tuple[Tensor, Tensor]:
    """Generalised product of experts: N ~ p^prior_precision * prod_m q_m^a_m.

        T = prior_precision + sum_m a_m T_m,  T_m = exp(-log_variance_m)
        mean = (sum_m a_m T_m mean_m) / T;  variance = 1 / T

    Weights of 1 are the product of experts (Wu & Goodman 2018, arXiv 1802.05335); weights that sum to 1 the
    logarithmic opinion pool (Cao & Fleet 2014, arXiv 1410.7827); weight 0 removes an expert exactly. Where all weights
    are 0 and there is no prior expert the product is undefined and the standard normal stands in for it.

    Args:
        means, log_variances: (sources, rows, latent).
        prior_precision: 1 with the standard-normal prior expert, 0 without it.
    """
    precision = torch.exp(-log_variances)
    return _from_precision(pool(precision), pool(precision * means), prior_precision)


def consensus(
    weights: Float[Tensor, "sources rows"],
    means: Float[Tensor, "sources rows latent"],
    log_variances: Float[Tensor, "sources rows latent"],
    dependence: float,
    prior_precision: float,
) -> tuple[Tensor, Tensor]:
    """Consensus of dependent experts: the errors of any two experts have correlation rho, per latent dimension.

        mean = 1' C^-1 mu / A;  variance = 1 / A;  A = 1' C^-1 1;  C_ij = rho s_i s_j (i != j),  C_ii = s_i^2

    rho = 0 is the product of experts. Source: CoDE-VAE (ICML 2025), which has no weights. Here a weight scales an
    expert's precision, as in the product, and with r_m = a_m / max a its share of the common error:

        C_ij = rho sqrt(r_i r_j) s_i s_j / sqrt(a_i a_j) (i != j),  C_ii = s_i^2 / a_i

    C has the correlations l l' + diag(1 - l^2), l_m = sqrt(rho r_m) < 1: positive definite for all weights, the paper's
    for equal ones of 1, and an expert is out of it without a jump as its weight goes to 0. The inverse is that of
    Sherman and Morrison.

    Args:
        weights: a_m >= 0 for each source and row; 0 removes a source exactly.
        dependence: rho, in [0, 1).
        prior_precision: as in `product`; the prior expert is independent of the others.
    """
    share = dependence * weights / weights.amax(dim=0).clamp_min(torch.finfo(weights.dtype).tiny)
    own = 1.0 - share  # what is not common of an expert's error
    inverse_deviation = weights.sqrt()[..., None] * torch.exp(-0.5 * log_variances)
    loading = (share.sqrt() / own)[..., None]
    shrink = 1.0 / (1.0 + (share / own).sum(dim=0))[:, None]
    common = (loading * inverse_deviation).sum(dim=0)

    def inverse(values: Tensor) -> Tensor:
        """1' C^-1 values."""
        plain = (inverse_deviation.square() * values / own[..., None]).sum(dim=0)
        return plain - shrink * common * (loading * inverse_deviation * values).sum(dim=0)

    return _from_precision(inverse(torch.ones_like(means)), inverse(means), prior_precision)


def _from_precision(total: Tensor, weighted_mean: Tensor, prior_precision: float) -> tuple[Tensor, Tensor]:
    total = total + prior_precision
    if prior_precision == 0:  # nothing multiplied: the standard normal
        total = torch.where(total == 0, torch.ones_like(total), total)
    return weighted_mean / total, -torch.log(total)


def barycenter(pool: Pool, means: Tensor, log_variances: Tensor) -> tuple[Tensor, Tensor]:
    """Wasserstein-2 barycenter of diagonal Gaussians: means average, and so do standard deviations (not variances).

        mean = sum_m a_m mean_m;  deviation = sum_m a_m deviation_m,  sum_m a_m = 1

    Where all weights are 0 it is the standard normal. Source: arXiv 2412.20487.
    """
    deviation = pool(torch.exp(0.5 * log_variances))
    undefined = deviation == 0
    return pool(means), 2.0 * torch.log(torch.where(undefined, torch.ones_like(deviation), deviation))


def mixture_log_density(
    value: Float[Tensor, "*copies rows latent"],
    means: Float[Tensor, "components rows latent"],
    log_variances: Float[Tensor, "components rows latent"],
    log_weights: Float[Tensor, "components rows"],
) -> Float[Tensor, "*copies rows"]:
    """log sum_k w_k N(value; mean_k, ..) per row, by logsumexp; components of log-weight -inf do not count."""
    if len(means) == 1:
        return log_density(value, means[0], log_variances[0]) + log_weights[0]
    densities = log_density(value.unsqueeze(-3), means, log_variances)
    return torch.logsumexp(log_weights + densities, dim=-2)


def hellinger_affinity(
    mean: Float[Tensor, "*batch latent"],
    log_variance: Float[Tensor, "*batch latent"],
    other_mean: Float[Tensor, "*batch latent"],
    other_log_variance: Float[Tensor, "*batch latent"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch latent"], Float[Tensor, "*batch latent"]]:
    """sqrt(q_i q_j) of two diagonal Gaussians = S_ij N(mean_ij, variance_ij), exactly: log S_ij, mean_ij, log-variance.

    variance_ij = 2 s_i^2 s_j^2 / (s_i^2 + s_j^2);  mean_ij = (mu_i s_j^2 + mu_j s_i^2) / (s_i^2 + s_j^2)
    S_ij = prod_d sqrt(2 s_i s_j / (s_i^2 + s_j^2)) exp(-(mu_i - mu_j)^2 / (4 (s_i^2 + s_j^2)))
    """
    log_total = torch.logaddexp(log_variance, other_log_variance)
    between = mean * torch.exp(other_log_variance - log_total) + other_mean * torch.exp(log_variance - log_total)
    gap = (mean - other_mean).square() * torch.exp(-log_total) / 4
    log_ratio = math.log(2) + 0.5 * (log_variance + other_log_variance) - log_total
    log_affinity = (0.5 * log_ratio - gap).sum(dim=-1)
    return log_affinity, between, math.log(2) + log_variance + other_log_variance - log_total
