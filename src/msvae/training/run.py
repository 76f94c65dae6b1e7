"""A whole run: data, model, training and what is left on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from msvae.config import RunConfig
from msvae.data import DataSet, names_own_data
from msvae.errors import ConfigError, DataError, GateError
from msvae.models import MultiSourceModel, build_model
from msvae.networks.pairs import Pair
from msvae.networks.precision import flushed_denormals
from msvae.training.checkpoint import RunFolder
from msvae.training.content_kind import with_known_content
from msvae.training.devices import accelerator_for, chosen_precision, kept_random_state, training_device
from msvae.training.inheriting import as_reused, base_of, extended, inherit, with_whole_paths
from msvae.training.loop import fit
from msvae.training.opening import Run, has_changed, naming, open_run, own_networks, row_counts, rows_of_run
from msvae.training.plan import StagePlan
from msvae.training.processes import Processes
from msvae.training.progress import Display, Quiet
from msvae.training.refusals import refuse_contradictions, refuse_rows
from msvae.training.renderer_kind import with_known_renderer
from msvae.training.schedule import derived_seed


@flushed_denormals()
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
        CheckpointError: if the folder is not empty, or nothing can be written there.
        ConfigError: for settings that contradict each other or the data.
        DataError: for rows that the method cannot be trained on.
        And everything that `fit` raises.
    """
    folder = RunFolder(out)
    processes = Processes(accelerator_for(config.training))  # refuses devices that there are not
    if not processes.first:
        display = Quiet()
    processes.told(folder.refuse_taken)
    refuse_contradictions(config)
    precision = processes.told(chosen_precision, config.training)
    training = config.training.model_copy(update={"precision": precision})
    named = config.data if data is None else config.data.model_copy(update={"name": data.name, "options": {}})
    if data is None and names_own_data(named.name):
        named = named.model_copy(update={"name": str(Path(named.name).expanduser().resolve())})
    config = config.model_copy(update={"training": training, "data": named})
    config = with_whole_paths(config)
    rows = processes.one_after_the_other(rows_of_run, data, config, display)
    base = base_of(config)
    if base is not None:
        config = extended(base, config, rows)
        rows = rows_of_run(data, config, display)  # images are removed from the sources in their new order
    config = with_known_content(as_reused(config), rows, display or Quiet())
    config = with_known_renderer(config, display or Quiet())
    model = _fresh_model(rows, config, networks)
    refuse_rows(rows, model, config)
    plan = StagePlan(model.stages, training, len(rows.split("train")))  # refuses lengths of stages that there are not
    processes.refuse_few_rows(plan.stages, len(rows.split("train")))
    inherit(model, base)
    description = {
        "data": dict(rows.card),
        "rows": row_counts(rows),
        "own_data": data is not None,
        "own_networks": sorted(networks or {}),
        "device": training_device(training).type,
        "processes": processes.count,
    }
    processes.told(folder.create, config, rows.sources, description)
    processes.agree("settings or data", _what_counts(config, rows))
    return _trained(folder, config, rows, model, processes, resume=False, display=display, title=title)


@flushed_denormals()
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
    rows = processes.one_after_the_other(rows_of_run, data, config, display)
    if has_changed(rows, folder):
        raise DataError(
            f"The rows of {rows.name!r} (images, splits or labels) have changed since the run {folder.path} began, so "
            "it cannot go on bit for bit. Restore them, or train a new run."
        )
    if rows.sources != folder.sources():
        raise DataError(f"The sources of the data set {rows.name!r} differ from those of the run {folder.path}.")
    with naming(folder):
        model = _fresh_model(rows, config, own_networks(folder, networks))
        if not started:
            inherit(model, base_of(config))
    processes.agree("settings or data", _what_counts(config, rows))
    return _trained(folder, config, rows, model, processes, resume=started, display=display, title=title)


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


def _fresh_model(data: DataSet, config: RunConfig, networks: Mapping[str, Pair] | None) -> MultiSourceModel:
    with kept_random_state():
        torch.manual_seed(derived_seed(config.training.seed, "weights", 0))
        return build_model(data.sources, config.model, networks)


def _what_counts(config: RunConfig, data: DataSet) -> str:
    """What all processes of a training have to find alike."""
    return f"{config.model_dump_json()} {data.sources} {len(data.split('train'))} {data.card.get('fingerprint')}"


def _trained(
    folder: RunFolder,
    config: RunConfig,
    data: DataSet,
    model: MultiSourceModel,
    processes: Processes,
    *,
    resume: bool,
    display: Display | None,
    title: str,
) -> Run:
    with processes.entered_by_first(folder.alone()):  # before anything in it is read or cut
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
