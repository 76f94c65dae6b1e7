"""A Gaussian mixture fitted to the codes of training rows, to draw new codes from where the data really is.

After training the aggregate posterior differs from the prior; drawing from a density fitted to it mends generation
without touching the model (ex-post density estimation, Ghosh et al. 2020, arXiv 1903.12436).
"""

import warnings

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from msvae.errors import NonFiniteError
from msvae.priors.base import Prior


class FittedMixture(Prior):
    """A mixture of full-covariance Gaussians; empty until `fit`, and saved with the model.

    Args:
        components, latent: number of Gaussians and length of a code.
    """

    def __init__(self, components: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((components,), 1.0 / components))
        self.register_buffer("means", torch.zeros(components, latent))
        self.register_buffer("factors", torch.eye(latent).expand(components, latent, latent).clone())
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.weights: Tensor
        self.means: Tensor
        self.factors: Tensor
        self.fitted: Tensor

    @property
    def is_fitted(self) -> bool:
        return bool(self.fitted)

    def fit(self, codes: Float[Tensor, "rows latent"], seed: int = 0) -> None:
        """Fit to codes by expectation maximisation (scikit-learn); few codes get fewer Gaussians, one alone none.

        Raises:
            NonFiniteError: for non-finite codes.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        if not bool(torch.isfinite(codes).all()):
            raise NonFiniteError("The codes of the training rows are not finite; the sampler cannot be fitted.")
        if len(codes) < 2:
            return
        used = min(len(self.weights), max(1, len(codes) // 2))
        estimator = GaussianMixture(used, reg_covar=1e-4, max_iter=50, random_state=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 50 rounds are enough to sample from
            estimator.fit(codes.cpu().double().numpy())
        self.weights.zero_()
        self.weights[:used] = torch.from_numpy(estimator.weights_)
        self.means[:used] = torch.from_numpy(estimator.means_)
        self.factors[:used] = torch.linalg.cholesky(torch.from_numpy(estimator.covariances_))
        self.fitted.fill_(True)

    def sample(self, rows: int, generator: Generator | None = None) -> Float[Tensor, "rows latent"]:
        component = torch.multinomial(self.weights, rows, replacement=True, generator=generator)
        noise = torch.randn(rows, self.means.shape[1], generator=generator, device=self.means.device)
        return self.means[component] + torch.einsum("bij,bj->bi", self.factors[component], noise)

    def sample_given(
        self,
        precision: Float[Tensor, "rows latent"],
        pull: Float[Tensor, "rows latent"],
        generator: Generator | None = None,
    ) -> Float[Tensor, "rows latent"]:
        """Codes z given observations y_m ~ N(z, 1 / precision_m) of them, this mixture being their prior.

        The posterior is a mixture again: with L L' the covariance of a component, Lambda the precision and
        C C' = I + L' Lambda L, that component becomes N(mean + L C^-T u, L C^-T C^-1 L') where
        u = C^-1 L' (pull - Lambda mean).

        Args:
            precision: the sum of the observations' precisions; rows of zeros draw from the mixture itself.
            pull: the sum of precision_m y_m.
        """
        precision, pull = precision.to(self.means), pull.to(self.means)
        patterns, pattern_of = precision.unique(dim=0, return_inverse=True)  # rows with the same sources have the same
        codes = torch.empty_like(pull)
        with torch.autocast(precision.device.type, enabled=False):  # of precisions of a thousand bf16 keeps two digits
            for index, pattern in enumerate(patterns):
                rows = (pattern_of == index).nonzero().squeeze(1)
                codes[rows] = self._given(pattern, pull[rows], generator)
        return codes

    def _given(
        self, precision: Float[Tensor, " latent"], pull: Float[Tensor, "rows latent"], generator: Generator | None
    ) -> Float[Tensor, "rows latent"]:
        seen = self.factors.mT @ (precision[:, None] * self.factors)
        root = torch.linalg.cholesky(torch.eye(len(precision), device=seen.device) + seen)
        away = pull - precision * self.means[:, None]  # (components, rows, latent)
        moved = torch.linalg.solve_triangular(root, (away @ self.factors).mT, upper=False).mT
        misfit = torch.where(precision > 0, away.square() / precision, 0.0).sum(dim=2)
        volume = root.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        evidence = 0.5 * (moved.square().sum(dim=2) - misfit) + (self.weights.log() - volume)[:, None]
        component = torch.multinomial(evidence.T.softmax(dim=1), 1, generator=generator).squeeze(1)
        noise = torch.randn(pull.shape, generator=generator, device=pull.device)
        widths = torch.linalg.solve_triangular(root, self.factors.mT, upper=False).mT  # L C^-T
        here = moved[component, torch.arange(len(pull), device=pull.device)]
        return self.means[component] + torch.einsum("rij,rj->ri", widths[component], here + noise)

    def log_density(self, code: Float[Tensor, "rows latent"]) -> Float[Tensor, " rows"]:
        components = torch.distributions.MultivariateNormal(self.means, scale_tril=self.factors)
        return torch.logsumexp(self.weights.log() + components.log_prob(code[:, None, :]), dim=1)
