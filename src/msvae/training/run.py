"""A whole run: data, model, training and what is left on disk; and opening it again."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from msvae.config import SAMPLING_SETTINGS, FlowConfig, RunConfig, parse
from msvae.data import DataSet, check_data, load_data, names_own_data, prepared
from msvae.errors import CheckpointError, ConfigError, DataError, GateError
from msvae.models import MultiSourceModel, SharedFlow, build_model
from msvae.networks.pairs import Pair
from msvae.training.checkpoint import Checkpoint, RunFolder
from msvae.training.content_kind import with_content, with_known_content
from msvae.training.devices import accelerator_for, chosen_precision, device_named, kept_random_state, training_device
from msvae.training.loop import fit
from msvae.training.plan import StagePlan
from msvae.training.processes import Processes
from msvae.training.progress import Display, Quiet, teller
from msvae.training.renderer_kind import with_known_renderer
from msvae.training.schedule import derived_seed

log = logging.getLogger("msvae.training")
SHOWN = 400  # letters of an error that may be long


@dataclass(frozen=True)
class Run:
    """An opened run: its folder, its settings, and its model ready to answer."""

    folder: RunFolder
    config: RunConfig
    model: MultiSourceModel

    def data(self, own: DataSet | None = None) -> DataSet:
        """The data set that the run was trained on, with the same images missing from training rows.

        Args:
            own: the rows of a run that was trained on a data set of the caller's own.

        Raises:
            DataError: if such rows are needed and not given, or do not fit the run.
        """
        if own is not None:
            rows = _rows(own, self.config)
            if rows.sources != self.model.sources:
                raise DataError(f"The sources of the data set {own.name!r} differ from those of the run.")
            return rows
        if self.folder.description().get("own_data"):
            raise DataError(f"The run {self.folder.path} was trained on a data set of the caller's own; pass it again.")
        data = load_data(self.config.data)
        if _has_changed(data, self.folder):
            log.warning("The data of the run %s have changed since it was trained.", self.folder.path)
        return data


def train_run(
    config: RunConfig,
    out: str | Path,
    *,
    data: DataSet | None = None,
    networks: Mapping[str, Pair] | None = None,
    display: Display | None = None,
    title: str = "training",
) -> Run:
    """Train a new run into the folder `out`.

    Args:
        data: rows to train on instead of those that the settings name.
        networks: the user's own `{source: (encoder, decoder)}` modules.

    Raises:
        CheckpointError: if the folder exists, and everything that `fit` raises.
    """
    folder = RunFolder(out)
    processes = Processes(accelerator_for(config.training))  # refuses devices that there are not
    if not processes.first:
        display = Quiet()
    processes.told(folder.refuse_taken)
    _refuse_contradictions(config)
    precision = processes.told(chosen_precision, config.training)
    training = config.training.model_copy(update={"precision": precision})
    named = config.data if data is None else config.data.model_copy(update={"name": data.name, "options": {}})
    if data is None and names_own_data(named.name):
        named = named.model_copy(update={"name": str(Path(named.name).expanduser().resolve())})
    config = config.model_copy(update={"training": training, "data": named})
    config = _with_whole_paths(config)
    rows = processes.one_after_the_other(_rows, data, config, display)
    base = _base(config)
    if base is not None:
        config = _extended(base, config, rows)
        rows = _rows(data, config, display)  # images are removed from the sources in their new order
    config = with_known_content(_as_reused(config), rows, display or Quiet())
    config = with_known_renderer(config, display or Quiet())
    model = _fresh_model(rows, config, networks)
    _refuse_rows(rows, model, config.model.method)
    plan = StagePlan(model.stages, training, len(rows.split("train")))  # refuses lengths of stages that there are not
    processes.refuse_few_rows(plan.stages, len(rows.split("train")))
    _inherit(model, base)
    description = {
        "data": dict(rows.card),
        "own_data": data is not None,
        "own_networks": sorted(networks or {}),
        "device": training_device(training).type,
        "processes": processes.count,
    }
    processes.told(folder.create, config, rows.sources, description)
    processes.agree("settings or data", _what_counts(config, rows))
    return _trained(folder, config, rows, model, resume=False, display=display, title=title)


def resume_run(
    out: str | Path,
    *,
    data: DataSet | None = None,
    networks: Mapping[str, Pair] | None = None,
    display: Display | None = None,
    title: str = "training",
) -> Run:
    """Go on with an interrupted run, on a CPU bit for bit as if it had never stopped. A finished run is opened as is.

    Raises:
        CheckpointError: if there is no run, or it is damaged.
        ConfigError: for settings in the run's config.json that do not fit.
    """
    folder = RunFolder(out)
    config = folder.config()
    started = bool(folder.checkpoints())
    if started and folder.state().finished:
        (display or Quiet()).note(f"The run {folder.path} is finished; there is nothing to resume.")
        return open_run(out, networks=networks)
    if data is None and folder.description().get("own_data"):
        raise DataError(
            f"The run {folder.path} was trained on a data set of the caller's own; pass it again to resume."
        )
    processes = Processes(accelerator_for(config.training))
    if not processes.first:
        display = Quiet()
    several = folder.description().get("processes", 1)
    if several != processes.count:
        raise ConfigError(
            f"The run {folder.path} began with {several} process(es) and cannot go on with {processes.count}: "
            "its steps would have other rows."
        )
    before, now = folder.description().get("device"), training_device(config.training).type
    if before is not None and before != now:
        (display or Quiet()).note(
            f"The run {folder.path} began on {before} and goes on on {now}, which draws other random numbers."
        )
    rows = processes.one_after_the_other(_rows, data, config, display)
    if _has_changed(rows, folder):
        raise DataError(
            f"The images, splits or labels of {rows.name!r} have changed since the run {folder.path} began, so it "
            "cannot go on bit for bit. Restore them, or train a new run."
        )
    if rows.sources != folder.sources():
        raise DataError(f"The sources of the data set {rows.name!r} differ from those of the run {folder.path}.")
    with _naming(folder):
        model = _fresh_model(rows, config, _own_networks(folder, networks))
        if not started:
            _inherit(model, _base(config))
    processes.agree("settings or data", _what_counts(config, rows))
    return _trained(folder, config, rows, model, resume=started, display=display, title=title)


def open_run(path: str | Path, *, networks: Mapping[str, Pair] | None = None, device: str = "auto") -> Run:
    """Open a run to ask it questions.

    Args:
        device: where it answers: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`: what the environment variable MSVAE_DEVICE
            names, else the best there is.

    Raises:
        CheckpointError: if there is no run, or it is damaged or too new.
        ConfigError: for a device that is not there, or settings in the run's config.json that do not fit.
    """
    answers_on = device_named(device)
    folder = RunFolder(path)
    config = folder.config()
    with _naming(folder):
        model = build_model(folder.sources(), config.model, _own_networks(folder, networks))
    try:
        model.load_state_dict(folder.model_weights())
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(
            f"The weights in {folder.latest()} do not fit the run's config.json: {detail[:SHOWN]}"
        ) from None
    state = folder.state()
    if not state.finished:
        left = _untrained_stages(state, model)
        what = f"the stages {', '.join(left)} are not trained" if left else f"it was stopped at step {state.step}"
        log.warning("The run %s is not finished: %s. msvae train --resume goes on.", path, what)
    return Run(folder, config, model.to(answers_on).eval())


def past_gates(training: Callable[[], Run], going_on: Callable[[], Run], display: Display | None = None) -> Run:
    """A training that goes on where it stops at a gate, which is told: for what has to come to its end in any case.

    Args:
        going_on: how, after the first such gate.
    """
    try:
        return training()
    except GateError as error:
        (display or Quiet()).note(str(error))
    return past_gates(going_on, going_on, display)


@contextmanager
def _naming(folder: RunFolder) -> Iterator[None]:
    """Errors in a run's settings name the file that they are in."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{folder.path / 'config.json'}: {error}") from None


def _untrained_stages(state: Checkpoint, model: MultiSourceModel) -> list[str]:
    """The stages of an unfinished run that are still to come, the one at hand included; none of models of one stage."""
    done = state.extra.get("stages", {}).get("finished", [])
    left = [stage.name for stage in model.stages if stage.name not in done and stage.steps != 0]
    return [] if state.finished or len(model.stages) == 1 else left


def _has_changed(data: DataSet, folder: RunFolder) -> bool:
    """Whether the images themselves differ from those of the run, where the set knows a fingerprint of them."""
    before = folder.description().get("data", {}).get("fingerprint")
    return before is not None and before != data.card.get("fingerprint")


def _rows(own: DataSet | None, config: RunConfig, display: Display | None = None) -> DataSet:
    if own is None:
        return load_data(config.data, teller(display or Quiet()))
    if not isinstance(own, DataSet):
        raise DataError(f"Expected the name of a data set, or a DataSet; got {type(own).__name__}.")
    check_data(own)
    return prepared(own, config.data)


def _with_whole_paths(config: RunConfig) -> RunConfig:
    """Other runs by their whole paths, as data is named: a run may be resumed from anywhere."""
    model = config.model
    if not isinstance(model, FlowConfig):
        return config
    named = {"reuse": model.reuse, "extends": model.extends}
    whole = {key: str(Path(path).expanduser().resolve()) for key, path in named.items() if path is not None}
    return config.model_copy(update={"model": model.model_copy(update=whole)})


def _refuse_contradictions(config: RunConfig) -> None:
    """Settings that no single one of them makes wrong."""
    model = config.model
    if not isinstance(model, FlowConfig):
        return
    if model.extends is None and (model.added or model.trained):
        raise ConfigError("Settings 'model.added' and 'model.trained' are set by 'model.extends' alone.")
    if model.extends is not None and model.reuse is not None:
        raise ConfigError("Settings 'model.extends' and 'model.reuse': only one run can be built on.")


def _refuse_rows(data: DataSet, model: MultiSourceModel, method: str) -> None:
    """Rows that the model cannot be trained on.

    Raises:
        DataError: for a source that no training row has, rows that lack sources where none may, or rows of one source
            each where the method learns from pairs.
    """
    if isinstance(model, SharedFlow):
        _refuse_unpaired(data, model)
    for split, rows in data.splits.items():
        present = torch.stack([rows.present[name] for name in model.source_names])
        never = ~present.any(dim=1)
        if split == "train" and bool(never.any()):
            name = model.source_names[int(never.nonzero()[0])]
            raise DataError(f"No training row of {data.name!r} has source {name!r}; leave it out (data.sources).")
        lacking = ~present.all(dim=0)
        if model.needs_complete_rows and split != "test" and bool(lacking.any()):
            row = int(lacking.nonzero()[0])
            lost = [name for name, has in zip(model.source_names, present[:, row].tolist(), strict=True) if not has]
            raise DataError(
                f"The method {method!r} needs complete rows; {int(lacking.sum())} of the {len(rows)} rows of {split!r} "
                f"lack a source, first row {row} ({', '.join(lost)}). `msvae methods` tells which methods do not."
            )


def _refuse_unpaired(data: DataSet, model: SharedFlow) -> None:
    """The shared code is learnt from rows of two sources or more; of added sources each has to be in one."""
    present = torch.stack([data.split("train").present[name] for name in model.source_names])
    paired = (present & (present.sum(dim=0) > 1)).any(dim=1)
    alone = [name for name, has in zip(model.source_names, paired.tolist(), strict=True) if not has]
    added = [name for name in alone if name in model.config.trained]
    if len(present) > 1 and (added or not bool(paired.any())):
        raise DataError(
            f"No training row of {data.name!r} has source {(added or alone)[0]!r} beside another one, and what sources "
            "share is learnt from such rows. Do the names of their files fit?"
        )


def _fresh_model(data: DataSet, config: RunConfig, networks: Mapping[str, Pair] | None) -> MultiSourceModel:
    with kept_random_state():
        torch.manual_seed(derived_seed(config.training.seed, "weights", 0))
        return build_model(data.sources, config.model, networks)


def _base(config: RunConfig) -> SharedFlow | None:
    """The trained model that a run adds sources to, if it does."""
    if not isinstance(config.model, FlowConfig) or config.model.extends is None:
        return None
    run = open_run(config.model.extends, device="cpu")
    if not isinstance(run.model, SharedFlow):
        raise ConfigError(f"Setting 'model.extends': the run {config.model.extends} is of another method than 'flow'.")
    if not run.folder.state().finished:
        raise ConfigError(f"Setting 'model.extends': the run {config.model.extends} is not finished; resume it first.")
    return run.model


def _as_reused(config: RunConfig) -> RunConfig:
    """Where autoencoders are taken over, the kind of content that they were made for."""
    model = config.model
    if not isinstance(model, FlowConfig) or model.reuse is None or model.content != "auto":
        return config
    other = RunFolder(model.reuse).config().model
    return config if not isinstance(other, FlowConfig) else with_content(config, other.content)


def _inherit(model: MultiSourceModel, base: SharedFlow | None) -> None:
    """Give a fresh flow what its settings say it takes over: all of a model of some of its sources, or autoencoders."""
    if not isinstance(model, SharedFlow):
        return
    if base is not None:
        model.extend(base)
    elif model.config.reuse is not None:
        run = open_run(model.config.reuse, device="cpu")
        if "sources" in _untrained_stages(run.folder.state(), run.model):
            raise ConfigError(
                f"Setting 'model.reuse': the autoencoders of {model.config.reuse} are not trained; resume it first."
            )
        model.take_autoencoders(run.model)


def _extended(base: SharedFlow, config: RunConfig, data: DataSet) -> RunConfig:
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


def _own_networks(folder: RunFolder, networks: Mapping[str, Pair] | None) -> Mapping[str, Pair] | None:
    needed = folder.description().get("own_networks", [])
    if sorted(networks or {}) != needed:
        raise CheckpointError(
            f"The run {folder.path} has networks of the caller's own for: {', '.join(needed) or 'no source'}; "
            f"given were some for: {', '.join(sorted(networks or {})) or 'no source'}."
        )
    return networks


def _what_counts(config: RunConfig, data: DataSet) -> str:
    """What all processes of a training have to find alike."""
    return f"{config.model_dump_json()} {data.sources} {len(data.split('train'))} {data.card.get('fingerprint')}"


def _trained(
    folder: RunFolder,
    config: RunConfig,
    data: DataSet,
    model: MultiSourceModel,
    *,
    resume: bool,
    display: Display | None,
    title: str,
) -> Run:
    trained = fit(
        model,
        data.split("train"),
        data.splits.get("validation"),
        config.training,
        folder,
        resume=resume,
        display=display,
        title=title,
    )
    return Run(folder, config, trained.to(training_device(config.training)))
