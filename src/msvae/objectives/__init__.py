"""Training objectives by name."""

from collections.abc import Callable

from msvae.config import ModelConfig
from msvae.errors import ConfigError, unknown
from msvae.objectives.base import Objective
from msvae.objectives.elbo import Elbo

OBJECTIVES: dict[str, Callable[[ModelConfig], Objective]] = {"elbo": Elbo}


def build_objective(config: ModelConfig) -> Objective:
    """The objective that the settings name.

    Raises:
        ConfigError: for an unknown name.
    """
    if config.objective not in OBJECTIVES:
        raise ConfigError(unknown("objective", config.objective, OBJECTIVES))
    return OBJECTIVES[config.objective](config)


__all__ = ["OBJECTIVES", "Objective", "build_objective"]
