"""The settings that all methods of a comparison share, by data set: one size of networks, one way to train."""

from collections.abc import Mapping
from typing import Any

from msvae.api import run_config
from msvae.config import RunConfig
from msvae.models import method_named

MISSING_SEED = 1
ROWS: dict[str, dict[str, Any]] = {"colours": {"data.options.pairing": "class"}}
#: Of all joint VAEs; other models have networks and rates of their own, which their defaults say.
JOINT: dict[str, dict[str, Any]] = {
    "colours": {
        "model.width": 16,
        "model.latent": 64,
        "training.batch_size": 32,
    },
    "polymnist": {
        "model.width": 32,
        "model.latent": 64,
        # The published balance: beta 2.5 at Laplace scale .75 is 18.75 at our scale of .1. On validation rows MVTCAE is
        # more coherent with it than with 1.
        "model.beta": 18.75,
        "training.batch_size": 128,
    },
}
#: Of single methods, where their own defaults could not be trained in a budget of minutes, or are left to the data.
OWN: dict[str, dict[str, Any]] = {
    "codevae": {"model.decodes": "drawn"},  # all 2^M - 1 subsets would leave it a hundred steps
    "flow": {"model.content": "class"},
}
#: Of single methods on a set: weights beside beta, brought to the scale of its likelihoods.
RESCALED: dict[str, dict[str, dict[str, Any]]] = {
    "polymnist": {"jmvae": {"model.alignment": 0.75}},  # the published .1, as beta 18.75 is of 2.5
}


def compared_config(
    data: str,
    method: str,
    steps: Mapping[str, int],
    seed: int = 0,
    missing: float = 0.0,
    settings: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The settings of one run of a comparison.

    Args:
        steps: of every stage of training, by name; most methods have one stage.
        settings: over those of the data set, by dotted names.
    """
    is_joint = "fusion" in method_named(method).settings
    lengths: dict[str, Any] = {"training.steps": sum(steps.values())}
    if len(steps) > 1:
        lengths["training.stage_steps"] = dict(steps)
    return run_config(
        data,
        method,
        settings={
            **ROWS.get(data, {}),
            **(JOINT.get(data, {}) if is_joint else {}),
            **OWN.get(method, {}),
            **RESCALED.get(data, {}).get(method, {}),
            "data.missing": missing,
            "data.missing_seed": MISSING_SEED,
            "training.seed": seed,
            **(settings or {}),
            **lengths,
        },
    )
