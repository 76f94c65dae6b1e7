"""What a run of the flow takes over from another one: autoencoders, or a whole model to which sources are added."""

from pathlib import Path
from typing import Any

from msvae.config import SAMPLING_SETTINGS, FlowConfig, RunConfig, parse
from msvae.data import DataSet
from msvae.errors import ConfigError
from msvae.models import MultiSourceModel, SharedFlow
from msvae.training.checkpoint import RunFolder
from msvae.training.content_kind import with_content
from msvae.training.opening import open_run, untrained_stages


def with_whole_paths(config: RunConfig) -> RunConfig:
    """Other runs by their whole paths, as data is named: a run may be resumed from anywhere."""
    model = config.model
    if not isinstance(model, FlowConfig):
        return config
    named = {"reuse": model.reuse, "extends": model.extends}
    whole = {key: str(Path(path).expanduser().resolve()) for key, path in named.items() if path is not None}
    return config.model_copy(update={"model": model.model_copy(update=whole)})


def base_of(config: RunConfig) -> SharedFlow | None:
    """The trained model that a run adds sources to, if it does."""
    if not isinstance(config.model, FlowConfig) or config.model.extends is None:
        return None
    run = open_run(config.model.extends, device="cpu")
    if not isinstance(run.model, SharedFlow):
        raise ConfigError(f"Setting 'model.extends': the run {config.model.extends} is of another method than 'flow'.")
    if not run.folder.state().finished:
        raise ConfigError(f"Setting 'model.extends': the run {config.model.extends} is not finished; resume it first.")
    return run.model


def as_reused(config: RunConfig) -> RunConfig:
    """Where autoencoders are taken over, the kind of content that they were made for."""
    model = config.model
    if not isinstance(model, FlowConfig) or model.reuse is None or model.content != "auto":
        return config
    other = RunFolder(model.reuse).config().model
    return config if not isinstance(other, FlowConfig) else with_content(config, other.content)


def inherit(model: MultiSourceModel, base: SharedFlow | None) -> None:
    """Give a fresh flow what its settings say it takes over: all of a model of some of its sources, or autoencoders."""
    if not isinstance(model, SharedFlow):
        return
    if base is not None:
        model.extend(base)
    elif model.config.reuse is not None:
        run = open_run(model.config.reuse, device="cpu")
        if "sources" in untrained_stages(run.folder.state(), run.model):
            raise ConfigError(
                f"Setting 'model.reuse': the autoencoders of {model.config.reuse} are not trained; resume it first."
            )
        model.take_autoencoders(run.model)


def extended(base: SharedFlow, config: RunConfig, data: DataSet) -> RunConfig:
    """Settings of a run that adds sources: the sizes of the trained model, its sources first.

    Of the settings that a person chose, those of sampling count; others have to be the trained model's.

    Raises:
        ConfigError: if the data set lacks a source of the trained model, or has no other; or for a setting that is not
            the trained model's.
    """
    assert isinstance(config.model, FlowConfig)
    names = tuple(source.name for source in data.sources)
    lost = [source.name for source in base.sources if source not in data.sources]
    new = tuple(name for name in names if name not in base.source_names)
    if lost or not new:
        what = f"lacks {', '.join(lost)} as it was trained" if lost else "has no further source"
        raise ConfigError(f"Setting 'model.extends': the data set {data.name!r} {what}; sources: {', '.join(names)}.")
    chosen = config.model.chosen
    kept: dict[str, Any] = {name: getattr(config.model, name) for name in ("extends", "shares", "favoured")}
    kept |= {key: value for key, value in chosen.items() if key in SAMPLING_SETTINGS}
    if chosen.get("content") == "auto":
        del chosen["content"]
    for key, value in chosen.items():
        there = getattr(base.config, key)
        if key not in (*kept, "reuse", "added", "trained") and value != there:
            raise ConfigError(
                f"Setting 'model.{key}': {value} was given, but the model that sources are added to has {there}."
            )
    kept |= {"reuse": None, "added": (*base.config.added, *new), "trained": new}
    model = parse(FlowConfig, {**base.config.model_dump(), **kept})
    rows = config.data.model_copy(update={"sources": (*base.source_names, *new)})
    return config.model_copy(update={"model": model, "data": rows})
