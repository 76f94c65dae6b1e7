"""Models: the contract, the joint VAE, and the published methods by name."""

from collections.abc import Mapping, Sequence

from msvae.config import FlowConfig, ModelConfig
from msvae.errors import ConfigError
from msvae.models.aligned_flow import AlignedFlow
from msvae.models.base import Features, Loss, MultiSourceModel
from msvae.models.joint import JointVAE
from msvae.models.masked_diffusion import MaskedDiffusion
from msvae.models.presets import check_method, method_named, with_method
from msvae.models.published import METHODS, Method
from msvae.models.shared_flow import SharedFlow
from msvae.networks.pairs import Pair
from msvae.source import Source


def build_model(
    sources: Sequence[Source], config: ModelConfig | FlowConfig, networks: Mapping[str, Pair] | None = None
) -> MultiSourceModel:
    """The model that the settings describe, with fresh weights.

    Args:
        networks: the user's own `{source: (encoder, decoder)}` modules.
    """
    if isinstance(config, FlowConfig):
        if networks:
            raise ConfigError("Method 'flow' has networks of its own; it takes no modules of yours.")
        return (AlignedFlow if config.aligned else SharedFlow)(sources, config)
    check_method(config)
    if config.sampler == "masked_diffusion":
        return MaskedDiffusion(sources, config, networks)
    return JointVAE(sources, config, networks)


__all__ = [
    "METHODS",
    "AlignedFlow",
    "Features",
    "JointVAE",
    "Loss",
    "Method",
    "MultiSourceModel",
    "SharedFlow",
    "build_model",
    "method_named",
    "with_method",
]
