"""Fusions by name: how experts of several sources become one posterior over the shared code."""

from msvae.errors import ConfigError, unknown
from msvae.fusion.barycenter import Barycenter
from msvae.fusion.base import Fusion
from msvae.fusion.mixture import MixtureOfExperts
from msvae.fusion.mopoe import MixtureOfProducts
from msvae.fusion.product import ProductOfExperts
from msvae.fusion.separate import Separate

FUSIONS: dict[str, type[Fusion]] = {
    "poe": ProductOfExperts,
    "moe": MixtureOfExperts,
    "mopoe": MixtureOfProducts,
    "barycenter": Barycenter,
    "separate": Separate,
}


def build_fusion(name: str, source_count: int, prior_expert: bool = True) -> Fusion:
    """The fusion of that name.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in FUSIONS:
        raise ConfigError(unknown("fusion", name, FUSIONS))
    return FUSIONS[name](source_count, prior_expert)


__all__ = ["FUSIONS", "Fusion", "build_fusion"]
