"""Fusions by name: how experts of several sources become one posterior over the shared code."""

from msvae.errors import ConfigError, unknown
from msvae.fusion.attention import Attention
from msvae.fusion.barycenter import Barycenter, ParameterAverage
from msvae.fusion.base import Fusion, FusionSettings
from msvae.fusion.consensus import Consensus
from msvae.fusion.generalised import GeneralisedProduct
from msvae.fusion.hellinger import HellingerGaussian, HellingerMixture
from msvae.fusion.joint_encoder import JointEncoder
from msvae.fusion.joint_flows import JointFlows
from msvae.fusion.mixture import MixtureOfExperts
from msvae.fusion.product import ProductOfExperts
from msvae.fusion.separate import Separate
from msvae.fusion.subset_mixture import MixtureOfBarycenters, MixtureOfProducts

FUSIONS: dict[str, type[Fusion]] = {
    "poe": ProductOfExperts,
    "gpoe": GeneralisedProduct,
    "moe": MixtureOfExperts,
    "mopoe": MixtureOfProducts,
    "average": ParameterAverage,
    "barycenter": Barycenter,
    "barycenters": MixtureOfBarycenters,
    "hellinger": HellingerGaussian,
    "hellinger_mixture": HellingerMixture,
    "consensus": Consensus,
    "attention": Attention,
    "joint": JointEncoder,
    "joint_flows": JointFlows,
    "separate": Separate,
}


def build_fusion(name: str, settings: FusionSettings) -> Fusion:
    """The fusion of that name.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in FUSIONS:
        raise ConfigError(unknown("fusion", name, FUSIONS))
    return FUSIONS[name](settings)


__all__ = ["FUSIONS", "Fusion", "FusionSettings", "build_fusion"]
