"""Priors of the shared code, and samplers fitted to the codes of training rows."""

from collections.abc import Callable

from msvae.config import FlowConfig, ModelConfig
from msvae.errors import ConfigError, unknown
from msvae.priors.base import Prior
from msvae.priors.fitted import FittedMixture
from msvae.priors.flow import FittedFlow
from msvae.priors.learned import Guard, LearnedMixturePrior, LearnedScalePrior
from msvae.priors.standard import StandardPrior

PRIORS: dict[str, Callable[[ModelConfig, int], Prior]] = {
    "standard": lambda config, latent: StandardPrior(latent),
    "learned_scale": lambda config, latent: LearnedScalePrior(latent),
    "mixture": lambda config, latent: LearnedMixturePrior(latent, config.prior_components),
}

Sampler = FittedMixture | FittedFlow

SAMPLERS: dict[str, Callable[[int, int], Sampler | None]] = {
    "none": lambda components, latent: None,
    "mixture": lambda components, latent: FittedMixture(components, latent) if components else None,
    "flow": lambda components, latent: FittedFlow(latent),
    "masked_diffusion": lambda components, latent: None,  # a model of its own, see `msvae.models.masked_diffusion`
}


def build_prior(config: ModelConfig, latent: int) -> Prior:
    """The prior that the settings name, over codes of that length.

    Raises:
        ConfigError: for an unknown name.
    """
    if config.prior not in PRIORS:
        raise ConfigError(unknown("prior", config.prior, PRIORS))
    return PRIORS[config.prior](config, latent)


def build_sampler(config: ModelConfig | FlowConfig, latent: int) -> Sampler | None:
    """The sampler that the settings name, to be fitted to codes of that length; None for the prior alone.

    Raises:
        ConfigError: for an unknown name, or a flow without zuko.
    """
    if config.sampler not in SAMPLERS:
        raise ConfigError(unknown("sampler", config.sampler, SAMPLERS))
    return SAMPLERS[config.sampler](config.sampler_components, latent)


__all__ = [
    "PRIORS",
    "SAMPLERS",
    "FittedMixture",
    "Guard",
    "Prior",
    "Sampler",
    "StandardPrior",
    "build_prior",
    "build_sampler",
]
