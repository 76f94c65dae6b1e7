"""Models: the contract, the joint VAE, and the published methods by name."""

from collections.abc import Mapping, Sequence

from msvae.config import ModelConfig
from msvae.models.base import Features, Loss, MultiSourceModel
from msvae.models.joint import JointVAE
from msvae.models.presets import check_method, method_named, with_method
from msvae.models.published import METHODS, Method
from msvae.networks.pairs import Pair
from msvae.source import Source


def build_model(
    sources: Sequence[Source], config: ModelConfig, networks: Mapping[str, Pair] | None = None
) -> MultiSourceModel:
    """The model that the settings describe, with fresh weights.

    Args:
        networks: the user's own `{source: (encoder, decoder)}` modules.
    """
    check_method(config)
    return JointVAE(sources, config, networks)


__all__ = [
    "METHODS",
    "Features",
    "JointVAE",
    "Loss",
    "Method",
    "MultiSourceModel",
    "build_model",
    "method_named",
    "with_method",
]
