"""Every setting of a run: typed, bounded, with defaults, saved beside the weights."""

from msvae.config.base import Settings
from msvae.config.data import AugmentConfig, DataConfig
from msvae.config.flow import SAMPLING_SETTINGS, FlowConfig
from msvae.config.joint import ModelConfig
from msvae.config.run import RunConfig, parse
from msvae.config.training import TrainingConfig
from msvae.config.values import merged, read_yaml, seconds

__all__ = [
    "SAMPLING_SETTINGS",
    "AugmentConfig",
    "DataConfig",
    "FlowConfig",
    "ModelConfig",
    "RunConfig",
    "Settings",
    "TrainingConfig",
    "merged",
    "parse",
    "read_yaml",
    "seconds",
]
