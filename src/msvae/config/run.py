"""All settings of a run, and how plain values become them. A misspelt key names the nearest."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, Discriminator, Tag, ValidationError

from msvae.config.base import Settings
from msvae.config.data import DataConfig
from msvae.config.flow import FlowConfig
from msvae.config.joint import ModelConfig
from msvae.config.training import TrainingConfig
from msvae.errors import ConfigError, unknown


def _family(model: Any) -> str:
    """Which class of settings a model's are, by its method."""
    method = model.get("method") if isinstance(model, Mapping) else getattr(model, "method", None)
    return "shared-flow" if method == "flow" else "joint-vae"


AnyModelConfig = Annotated[
    Annotated[ModelConfig, Tag("joint-vae")] | Annotated[FlowConfig, Tag("shared-flow")], Discriminator(_family)
]
FAMILIES: dict[str, type[Settings]] = {"joint-vae": ModelConfig, "shared-flow": FlowConfig}


class RunConfig(Settings):
    """All settings of a run."""

    data: DataConfig = DataConfig()
    model: AnyModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()


S = TypeVar("S", bound=Settings)


def parse(kind: type[S], values: Mapping[str, Any]) -> S:
    """Settings from plain values.

    Raises:
        ConfigError: one line per mistake: the key, what was expected, what came, and the nearest key for a misspelt
            one.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(kind, problem) for problem in error.errors())) from None


def _explain(kind: type[BaseModel], problem: Any) -> str:
    family = next((FAMILIES[part] for part in problem["loc"] if part in FAMILIES), None)
    path = [str(part) for part in problem["loc"] if part not in FAMILIES]
    if problem["type"] == "extra_forbidden":
        owner: Any = kind
        for part in path[:-1]:
            if part == "model" and family is not None:
                owner = family
            else:
                owner = owner.model_fields[part].annotation if hasattr(owner, "model_fields") else get_args(owner)[-1]
        return unknown("setting", ".".join(path), [".".join([*path[:-1], key]) for key in owner.model_fields])
    return f"Setting {'.'.join(path)!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}."
