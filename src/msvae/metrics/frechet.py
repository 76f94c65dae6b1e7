"""The Fréchet distance of two sets of features. It is named by its features; only Inception-V3's may be called FID."""

import numpy as np
from jaxtyping import Float
from torch import Tensor


def frechet_distance(first: Float[Tensor, "rows features"], second: Float[Tensor, "others features"]) -> float:
    """|mean_1 - mean_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of the Gaussians fitted to both sets, in float64.

    With fewer rows than features the covariances are singular and the figure is biased upwards. Source: Dowson &
    Landau 1982; Heusel et al. 2017 (arXiv 1706.08500).

    Raises:
        ValueError: for fewer than two rows in a set.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("The Fréchet distance needs at least two rows in each set.")
    one, two = first.cpu().double().numpy(), second.cpu().double().numpy()
    gap = one.mean(axis=0) - two.mean(axis=0)
    covariance_one, covariance_two = np.atleast_2d(np.cov(one.T)), np.atleast_2d(np.cov(two.T))
    root = _symmetric_root(covariance_one)
    eigenvalues = np.linalg.eigvalsh(root @ covariance_two @ root)
    cross = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    return float(gap @ gap + np.trace(covariance_one) + np.trace(covariance_two) - 2 * cross)


def _symmetric_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
