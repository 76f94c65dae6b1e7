"""The settings that all methods of a comparison share, by data set: one size of networks, one way to train."""

from collections.abc import Mapping
from typing import Any

from msvae.api import run_config
from msvae.config import RunConfig

MISSING_SEED = 1
COMPARED: dict[str, dict[str, Any]] = {
    "colours": {
        "data.options.pairing": "class",
        "model.width": 16,
        "model.latent": 64,
        "training.batch_size": 32,
        "training.learning_rate": 4e-3,
    },
    "polymnist": {
        "model.width": 32,
        "model.latent": 64,
        "training.batch_size": 128,
        "training.learning_rate": 2e-3,
    },
}


def compared_config(
    data: str, method: str, steps: int, seed: int = 0, missing: float = 0.0, settings: Mapping[str, Any] | None = None
) -> RunConfig:
    """The settings of one run of a comparison.

    Args:
        settings: over those of the data set, by dotted names.
    """
    return run_config(
        data,
        method,
        settings={
            **COMPARED.get(data, {}),
            "data.missing": missing,
            "data.missing_seed": MISSING_SEED,
            "training.steps": steps,
            "training.seed": seed,
            **(settings or {}),
        },
    )
