"""A trained run, opened to be asked: its settings, its data, its model."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msvae.config import RunConfig
from msvae.data import DataSet, check_data, load_data, prepared
from msvae.errors import CheckpointError, ConfigError, DataError
from msvae.models import MultiSourceModel, build_model
from msvae.networks.pairs import Pair
from msvae.training.checkpoint import Checkpoint, RunFolder
from msvae.training.devices import device_named
from msvae.training.progress import Display, Quiet, teller

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
            rows = rows_of_run(own, self.config)
            if rows.sources != self.model.sources:
                raise DataError(f"The sources of the data set {own.name!r} differ from those of the run.")
            return rows
        if self.folder.description().get("own_data"):
            raise DataError(f"The run {self.folder.path} was trained on a data set of the caller's own; pass it again.")
        data = load_data(self.config.data)
        if has_changed(data, self.folder):
            log.warning("The data of the run %s have changed since it was trained.", self.folder.path)
        return data


def open_run(
    path: str | Path,
    *,
    networks: Mapping[str, Pair] | None = None,
    device: str = "auto",
    sampling: Mapping[str, Any] | None = None,
) -> Run:
    """Open a run to ask it questions.

    Args:
        networks: the user's own `{source: (encoder, decoder)}` modules, of a run that was trained with some.
        device: where it answers: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`: what the environment variable MSVAE_DEVICE
            names, else the best there is.
        sampling: how a flow draws, in place of what its settings say, such as `{"guidance": 1.2, "evidence": 1}`
            (`msvae settings flow` has all).

    Raises:
        CheckpointError: if there is no run, or it is damaged or too new.
        ConfigError: for a device that is not there, settings in the run's config.json that do not fit, or a sampling
            setting that there is not.
    """
    answers_on = device_named(device)
    folder = RunFolder(path)
    config = folder.config()
    with naming(folder):
        model = build_model(folder.sources(), config.model, own_networks(folder, networks))
    try:
        model.load_state_dict(folder.model_weights())
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(
            f"The weights in {folder.latest()} do not fit the run's config.json: {detail[:SHOWN]}"
        ) from None
    if sampling:
        model.set_sampling(sampling)
    state = folder.state()
    left = untrained_stages(state, model)
    what = f"the stages {', '.join(left)} are not trained" if left else f"it was stopped at step {state.step}"
    if not state.finished:
        log.warning("The run %s is not finished: %s. msvae train --resume goes on.", path, what)
    elif left:
        log.warning("The run %s is finished, but %s: they were given no steps.", path, what)
    return Run(folder, config, model.to(answers_on).eval())


@contextmanager
def naming(folder: RunFolder) -> Iterator[None]:
    """Errors in a run's settings name the file that they are in."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{folder.path / 'config.json'}: {error}") from None


def untrained_stages(state: Checkpoint, model: MultiSourceModel) -> list[str]:
    """The stages that are still to come, the one at hand included, or were given no steps; none of models of one stage,
    and not what a model itself leaves out."""
    stored = state.extra.get("stages", {})
    done, lengths = stored.get("finished", []), stored.get("lengths", {})
    left = [
        stage.name
        for stage in model.stages
        if stage.steps != 0 and (lengths.get(stage.name) == 0 or not (state.finished or stage.name in done))
    ]
    return [] if len(model.stages) == 1 else left


def has_changed(data: DataSet, folder: RunFolder) -> bool:
    """Whether the rows differ from those of the run: in their number, in the images' fingerprint, or in the recipe and
    the options that a known set is made by."""
    description = folder.description()
    before, rows = description.get("data", {}), description.get("rows")
    if rows is not None and rows != row_counts(data):
        return True
    return any(name in before and before[name] != data.card.get(name) for name in ("fingerprint", "recipe", "options"))


def row_counts(data: DataSet) -> dict[str, int]:
    """Rows of each split."""
    return {split: len(rows) for split, rows in data.splits.items()}


def rows_of_run(own: DataSet | None, config: RunConfig, display: Display | None = None) -> DataSet:
    """What a run is trained on: the data that its settings name, or a checked data set of the caller's own, with the
    wanted sources and missing images.

    Raises:
        DataError: for rows that cannot be trained on.
    """
    if own is None:
        with teller(display or Quiet()) as tell:
            return load_data(config.data, tell)
    if not isinstance(own, DataSet):
        raise DataError(f"Expected the name of a data set, or a DataSet; got {type(own).__name__}.")
    check_data(own)
    return prepared(own, config.data)


def own_networks(folder: RunFolder, networks: Mapping[str, Pair] | None) -> Mapping[str, Pair] | None:
    """The caller's modules, refused (CheckpointError) where they are not of the sources that the run has some for."""
    needed = folder.description().get("own_networks", [])
    if sorted(networks or {}) != needed:
        raise CheckpointError(
            f"The run {folder.path} has networks of the caller's own for: {', '.join(needed) or 'no source'}; "
            f"given were some for: {', '.join(sorted(networks or {})) or 'no source'}."
        )
    return networks
