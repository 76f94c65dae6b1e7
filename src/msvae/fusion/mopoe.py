"""Mixture of products of experts: every subset of the sources speaks. MoPoE (Sutter et al. 2021, arXiv 2105.02470)."""

import torch
from jaxtyping import Float
from torch import Tensor

from msvae import gaussian
from msvae.fusion.base import Fusion
from msvae.posterior import Experts, Posterior
from msvae.subsets import all_subsets, contained


class MixtureOfProducts(Fusion):
    """q(z | x_S) = 1/(2^|S| - 1) sum over non-empty S' of S of PoE(x_S').

    With user weights a_m a subset counts by the sum of its members' weights, and its product is the generalised one
    with the members' weights scaled to sum to 1: one-hot weights give that source's own posterior, exactly and as a
    limit.
    """

    def forward(self, experts: Experts, weights: Float[Tensor, " sources"] | None = None) -> Posterior:
        present = experts.present
        if weights is not None:
            present = present & (weights > 0)[:, None]
        subsets = all_subsets(len(present), present.device)
        counts = contained(subsets, present).to(experts.means.dtype)
        membership = subsets.to(experts.means.dtype)
        if weights is not None:
            membership = membership * weights
            strength = membership.sum(dim=1, keepdim=True)
            counts = counts * strength
            membership = membership / strength.clamp_min(torch.finfo(membership.dtype).tiny)
        means, log_variances = gaussian.subset_products(
            experts.means, experts.log_variances, membership, self.prior_precision
        )
        return Posterior.mixture(means, log_variances, counts)
