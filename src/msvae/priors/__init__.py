"""Priors and samplers of the shared code."""

from msvae.priors.base import Prior
from msvae.priors.fitted import FittedMixture
from msvae.priors.standard import StandardPrior

__all__ = ["FittedMixture", "Prior", "StandardPrior"]
