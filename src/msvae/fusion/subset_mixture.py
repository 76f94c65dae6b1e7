"""Mixtures over all subsets of the sources: every subset speaks by its own product, or its own barycenter."""

from jaxtyping import Float
from torch import Tensor

from msvae import gaussian
from msvae.fusion.base import Fusion, normalised
from msvae.posterior import Experts, Posterior
from msvae.subsets import all_subsets, contained


class SubsetMixture(Fusion):
    """q(z | x_S) = 1/(2^|S| - 1) sum over non-empty S' of S of one Gaussian for S'.

    With user weights a_m a subset counts by the sum of its members' weights, and in it the members' weights are scaled
    to sum to 1: one-hot weights give that source's own posterior, exactly and as a limit.
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
            counts = counts * membership.sum(dim=1, keepdim=True)
            membership = normalised(membership, dim=1)
        means, log_variances = self.of_subsets(experts, membership)
        return Posterior.mixture(means, log_variances, counts)

    def of_subsets(
        self, experts: Experts, membership: Float[Tensor, "subsets sources"]
    ) -> tuple[Float[Tensor, "subsets rows latent"], Float[Tensor, "subsets rows latent"]]:
        """Means and log-variances of every subset's Gaussian; membership holds 0 for sources outside of it."""
        raise NotImplementedError


class MixtureOfProducts(SubsetMixture):
    """Mixture of products of experts. MoPoE (Sutter et al. 2021, arXiv 2105.02470)."""

    options = frozenset({"prior_expert"})

    def of_subsets(
        self, experts: Experts, membership: Float[Tensor, "subsets sources"]
    ) -> tuple[Float[Tensor, "subsets rows latent"], Float[Tensor, "subsets rows latent"]]:
        pool = gaussian.pool_subsets(membership)
        return gaussian.product(pool, experts.means, experts.log_variances, self.prior_precision)


class MixtureOfBarycenters(SubsetMixture):
    """Mixture of the Wasserstein barycenters of all subsets. MWB-VAE (arXiv 2412.20487)."""

    def of_subsets(
        self, experts: Experts, membership: Float[Tensor, "subsets sources"]
    ) -> tuple[Float[Tensor, "subsets rows latent"], Float[Tensor, "subsets rows latent"]]:
        pool = gaussian.pool_subsets(normalised(membership, dim=1))
        return gaussian.barycenter(pool, experts.means, experts.log_variances)
