"""msvae: multi-source variational autoencoders. One generative model over several image sources of the same thing.

    import msvae
    run = msvae.train("colours", out="runs/first", budget="60s")
    green = msvae.convert(run, given={"blue": images}, to="green")["green"]

Names are imported when first used, so that `import msvae` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Source": "msvae.source",
    "SourceBatch": "msvae.source",
    "MsvaeError": "msvae.errors",
    "SourceError": "msvae.errors",
    "ConfigError": "msvae.errors",
    "CheckpointError": "msvae.errors",
    "DataError": "msvae.errors",
    "NonFiniteError": "msvae.errors",
    "GateError": "msvae.errors",
    "Interrupted": "msvae.errors",
    "DataSet": "msvae.data",
    "Rows": "msvae.data",
    "complete_rows": "msvae.data",
    "load_data": "msvae.data",
    "JointVAE": "msvae.models",
    "SharedFlow": "msvae.models",
    "MultiSourceModel": "msvae.models",
    "METHODS": "msvae.models",
    "RunConfig": "msvae.config",
    "DataConfig": "msvae.config",
    "ModelConfig": "msvae.config",
    "FlowConfig": "msvae.config",
    "TrainingConfig": "msvae.config",
    "Run": "msvae.training.opening",
    "open_run": "msvae.training.opening",
    "train": "msvae.api",
    "resume": "msvae.api",
    "evaluate": "msvae.api",
    "reconstruct": "msvae.questions",
    "convert": "msvae.questions",
    "fuse": "msvae.questions",
    "interpolate": "msvae.questions",
    "weight_path": "msvae.questions",
    "generate": "msvae.questions",
    "impute": "msvae.questions",
    "features": "msvae.questions",
    "likelihood": "msvae.questions",
    "export": "msvae.exporting",
    "report": "msvae.api",
    "methods": "msvae.api",
    "demo": "msvae.api",
}

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from msvae.api import demo, evaluate, methods, report, resume, train
    from msvae.config import DataConfig, FlowConfig, ModelConfig, RunConfig, TrainingConfig
    from msvae.data import DataSet, Rows, complete_rows, load_data
    from msvae.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        GateError,
        Interrupted,
        MsvaeError,
        NonFiniteError,
        SourceError,
    )
    from msvae.exporting import export
    from msvae.models import METHODS, JointVAE, MultiSourceModel, SharedFlow
    from msvae.questions import (
        convert,
        features,
        fuse,
        generate,
        impute,
        interpolate,
        likelihood,
        reconstruct,
        weight_path,
    )
    from msvae.source import Source, SourceBatch
    from msvae.training.opening import Run, open_run


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'msvae' has no attribute {name!r}")
