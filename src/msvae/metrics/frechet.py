"""The Fréchet distance of two sets of features. It is named by its features; only Inception-V3's may be called FID."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class Moments:
    """Number, mean and covariance of feature vectors, gathered part by part: memory does not grow with the number."""

    def __init__(self) -> None:
        self.count = 0
        self._origin: Tensor | None = None  # the first part's mean: sums around it lose no digits
        self._sum = torch.zeros(0)
        self._products = torch.zeros(0)

    def add(self, features: Float[Tensor, "rows features"]) -> "Moments":
        """Take up some more vectors; returns itself."""
        if len(features) == 0:
            return self
        values = features.detach().cpu().double()
        if self._origin is None:
            self._origin = values.mean(dim=0)
            self._sum = torch.zeros_like(self._origin)
            self._products = torch.zeros(len(self._origin), len(self._origin), dtype=torch.float64)
        values = values - self._origin
        self.count += len(values)
        self._sum += values.sum(dim=0)
        self._products += values.T @ values
        return self

    @property
    def mean(self) -> Float[Tensor, " features"]:
        assert self._origin is not None
        return self._origin + self._sum / self.count

    @property
    def covariance(self) -> Float[Tensor, "features features"]:
        """The unbiased estimate; it needs two vectors."""
        return (self._products - torch.outer(self._sum, self._sum) / self.count) / (self.count - 1)


def frechet_of_moments(first: Moments, second: Moments) -> float:
    """The Fréchet distance of sets whose moments are known; see `frechet_distance`."""
    if min(first.count, second.count) < 2:
        raise ValueError("The Fréchet distance needs at least two rows in each set.")
    gap = (first.mean - second.mean).numpy()
    covariance_one, covariance_two = first.covariance.numpy(), second.covariance.numpy()
    root = _symmetric_root(covariance_one)
    eigenvalues = np.linalg.eigvalsh(root @ covariance_two @ root)
    cross = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    return float(gap @ gap + np.trace(covariance_one) + np.trace(covariance_two) - 2 * cross)


def frechet_distance(first: Float[Tensor, "rows features"], second: Float[Tensor, "others features"]) -> float:
    """|mean_1 - mean_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of the Gaussians fitted to both sets, in float64.

    With fewer rows than features the covariances are singular and the figure is biased upwards. Source: Dowson &
    Landau 1982; Heusel et al. 2017 (arXiv 1706.08500).

    Raises:
        ValueError: for fewer than two rows in a set.
    """
    return frechet_of_moments(Moments().add(first), Moments().add(second))


def _symmetric_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
