"""Methods compared: the same rows, networks, budget and judges for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msvae.benchmarking.calibration import Calibration, calibrate
from msvae.benchmarking.machine import circumstances, commit
from msvae.benchmarking.results import Results, Terms, real_ceilings, summary
from msvae.benchmarking.settings import compared_config
from msvae.config import SAMPLING_SETTINGS, DataConfig, FlowConfig, RunConfig
from msvae.data import DataSet, load_data, names_own_data
from msvae.errors import ConfigError
from msvae.evaluation import Extent, Yardstick, evaluate_model, make_yardstick
from msvae.files import write_json
from msvae.models import MultiSourceModel, SharedFlow, method_named
from msvae.networks.precision import flushed_denormals
from msvae.training.checkpoint import RunFolder
from msvae.training.content_kind import with_content
from msvae.training.log import MetricsLog
from msvae.training.opening import Run, open_run
from msvae.training.progress import Display, Quiet
from msvae.training.renderer_kind import renderer_of
from msvae.training.run import past_gates, resume_run, train_run

ONE_STEP = {"training": 1}


@dataclass(frozen=True)
class Comparison:
    """What is compared, and where it is kept.

    Args:
        terms: data set, budget, share of missing images, and how much is looked at.
        calibration: file of the measured seconds of a step; what it lacks is measured and added.
        results: folder of the tables.
        runs: folder of the trained runs; a run that was stopped goes on when the comparison is started again.
        settings: over the data set's own (see `settings.JOINT`), by dotted names.
    """

    terms: Terms
    calibration: Path
    results: Path
    runs: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def extent(self) -> Extent:
        made = max(self.terms.generated_rows, self.terms.photographs)
        return Extent(self.terms.test_rows, made, self.terms.photographs)

    @property
    def table(self) -> Results:
        return Results(self.results / self.terms.file_name, self.terms)

    def settings_of(self, method: str) -> dict[str, Any]:
        """What was chosen, over what `msvae train` takes for such a budget."""
        return {**self._of_budget(method), **self.settings}

    def measured_as(self, method: str) -> str:
        """Its name in the file of measured steps."""
        return f"{method}, tokens" if self._of_budget(method) else method

    def shares_of(self, method: str) -> dict[str, float]:
        """Of the budget, for stages that have others than they have by default."""
        chosen = compared_config(self.terms.data, method, ONE_STEP, settings=self.settings_of(method)).model
        return {**chosen.shares} if isinstance(chosen, FlowConfig) else {}

    def _of_budget(self, method: str) -> dict[str, Any]:
        chosen = compared_config(self.terms.data, method, ONE_STEP, settings=self.settings).model
        return {f"model.{name}": value for name, value in renderer_of(chosen, self.terms.budget).items()}

    def folder_of(self, method: str, seed: int) -> Path:
        """Where its run is."""
        return self.runs / self.terms.file_name.removesuffix(".json") / f"{method}-seed{seed}"


@flushed_denormals()
def compare(
    comparison: Comparison,
    methods: Sequence[str],
    seeds: Sequence[int] = (0,),
    *,
    again: bool = False,
    display: Display | None = None,
) -> Results:
    """Train and test every method with every seed, and keep a row of each at once; rows that are there stay.

    Args:
        again: train and test also what is there.

    Raises:
        ConfigError: before anything is trained, for an unknown method, one that cannot be used, data that are not a
            known set, a table of other terms, a table with rows of other settings, or a run of other settings where one
            is to be.
    """
    display = display or Quiet()
    if names_own_data(comparison.terms.data):
        raise ConfigError(f"Methods are compared on known sets (msvae data list), not on {comparison.terms.data!r}.")
    for method in methods:
        if comparison.terms.missing and not method_named(method).partial_rows:
            raise ConfigError(f"The method {method!r} needs complete rows; leave it out where images are missing.")
    table = comparison.table
    pairs = [(m, s) for s in seeds for m in methods]
    replaced = pairs if again else []
    table.refuse_other_settings(comparison.settings, replaced)
    wanted = [(m, s) for m, s in pairs if again or not table.has(m, s)]
    for method in dict.fromkeys(method for method, _ in wanted):
        model = _config(comparison, method, ONE_STEP).model
        table.refuse_other_models(method, model.model_dump(mode="json"), replaced)
    calibration = Calibration(comparison.calibration)
    whole = replace(comparison, terms=replace(comparison.terms, missing=0.0))  # what steps are measured on
    for method in dict.fromkeys(method for method, _ in wanted):
        measured = comparison.measured_as(method)
        if measured not in calibration.entries:
            calibrate(calibration, measured, lambda steps, m=method: _config(whole, m, steps), display)
    if not wanted:
        return table
    data = comparison_data(comparison)
    steps_of = {
        method: calibration.steps(comparison.measured_as(method), comparison.terms.budget, comparison.shares_of(method))
        for method, _ in wanted
    }
    if not again:
        for method, seed in wanted:
            refuse_other_run(_config(comparison, method, steps_of[method], seed), comparison.folder_of(method, seed))
    yardstick = comparison_yardstick(comparison, data, display)
    table.refuse_other_counts(yardstick)
    for method, seed in wanted:
        steps = steps_of[method]
        for setting, measured in measured_otherwise(comparison, method, calibration).items():
            display.note(f"{calibration.path}: the steps of {method} were measured with {setting}={measured}.")
        config = _config(comparison, method, steps, seed)
        folder = comparison.folder_of(method, seed)
        run = trained_past_gates(config, folder, again=again, display=display, title=f"{method}, seed {seed}")
        facts = {**facts_of(run, steps, data), "chosen": dict(comparison.settings)}
        figures = judge(comparison, run.model, data, yardstick, method, seed, facts, display)
        write_json(run.folder.path / "metrics.json", figures)
    return comparison.table


def measured_otherwise(comparison: Comparison, method: str, calibration: Calibration) -> dict[str, Any]:
    """The chosen settings of the model that its steps were measured without, with what they were then."""
    entry = calibration.entries[comparison.measured_as(method)]
    known = {f"model.{name}": value for name, value in entry.get("model", {}).items() if name not in SAMPLING_SETTINGS}
    known["training.batch_size"] = entry.get("batch_size")
    known.pop("model.shares", None)  # they change how many steps there are, not what one costs
    chosen = comparison.settings_of(method)
    return {name: known[name] for name in chosen if name in known and chosen[name] != known[name]}


def facts_of(run: Run, steps: Mapping[str, int], data: DataSet) -> dict[str, Any]:
    """What the row of a run of ours says beside its figures."""
    failed = failed_gates(run)
    return {
        **({"failed_gates": failed} if failed else {}),
        "steps": sum(steps.values()),
        "stages": dict(steps),
        "training_seconds": round(run.folder.state().seconds, 1),
        "batch_size": run.config.training.batch_size,
        "rows_in_training": len(data.split("train")),
        "precision": run.config.training.precision,
        "optimizer": run.config.training.optimizer,
        "settings": run.config.model.model_dump(mode="json"),
    }


def comparison_data(comparison: Comparison) -> DataSet:
    """The rows that all methods are trained and tested on."""
    commit()  # asked for before anything is trained: of these sources, whatever is committed meanwhile
    return load_data(_data_config(comparison))


def comparison_yardstick(comparison: Comparison, data: DataSet, display: Display | None = None) -> Yardstick:
    """The judges of all methods: verifiers of training rows that no image was removed from."""
    whole = _data_config(comparison).model_copy(update={"missing": 0.0})
    return make_yardstick(data, comparison.extent, load_data(whole).split("train"), display)


def judge(
    comparison: Comparison,
    model: MultiSourceModel,
    data: DataSet,
    yardstick: Yardstick,
    method: str,
    seed: int,
    facts: Mapping[str, Any],
    display: Display | None = None,
) -> dict[str, Any]:
    """Test a trained model and put its row into the table; returns all figures.

    Args:
        facts: what the row says besides: steps, batch size, settings.
    """
    figures = evaluate_model(model, data, seed=seed, extent=comparison.extent, yardstick=yardstick, display=display)
    row = {
        "method": method,
        "seed": seed,
        **facts,
        "parameters": sum(p.numel() for p in model.parameters()),
        "evaluation_seconds": figures["seconds"],
        **circumstances(),
        "judges": figures["judges"],
        "figures": summary(figures),
    }
    comparison.table.add(row, real_ceilings(figures))
    return figures


def _config(comparison: Comparison, method: str, steps: Mapping[str, int], seed: int = 0) -> RunConfig:
    return compared_config(
        comparison.terms.data, method, steps, seed, comparison.terms.missing, comparison.settings_of(method)
    )


def _data_config(comparison: Comparison) -> DataConfig:
    """The rows, whatever the method: settings of models do not fit all of them."""
    of_data = {name: value for name, value in comparison.settings.items() if name.startswith("data.")}
    return _config(replace(comparison, settings=of_data), "poe", ONE_STEP).data


def trained_past_gates(
    config: RunConfig, folder: Path, *, again: bool = False, display: Display | None = None, title: str = "training"
) -> Run:
    """`trained_as`, past gates: the rows of a table that follow it shall come too."""
    return past_gates(
        lambda: trained_as(config, folder, again=again, display=display, title=title),
        lambda: trained_as(config, folder, display=display, title=title),
        display,
    )


def failed_gates(run: Run) -> list[str]:
    """The stages that did not pass."""
    records = MetricsLog(run.folder.metrics_log).records()
    return [record["gate"] for record in records if record.get("passed") is False]


def refuse_other_run(config: RunConfig, folder: Path) -> None:
    """A run of other settings, which trained for a while, is not replaced without a word.

    Raises:
        ConfigError: if there is one in the folder.
    """
    stored = RunFolder(folder)
    if stored.checkpoints() and not _same(stored, config):
        raise ConfigError(
            f"{folder} holds a run of other settings. Choose another folder of runs (--runs), or replace it (--again)."
        )


def trained_as(
    config: RunConfig, folder: Path, *, again: bool = False, display: Display | None = None, title: str = "training"
) -> Run:
    """The run of these settings in a folder: opened where it is finished, resumed where it was stopped, or trained.

    Args:
        again: train it whatever is there.

    Raises:
        ConfigError: if there is a run of other settings, but for those of sampling: they are no part of what is
            trained, and the opened run answers by the ones asked for.
    """
    stored = RunFolder(folder)
    if again:
        stored.discard()
    refuse_other_run(config, folder)
    if not stored.checkpoints():
        stored.discard()  # stopped before its first checkpoint
        return train_run(config, folder, display=display, title=title)
    run = open_run(folder) if stored.state().finished else resume_run(folder, display=display, title=title)
    if isinstance(run.model, SharedFlow) and isinstance(config.model, FlowConfig):
        run.model.set_sampling({name: getattr(config.model, name) for name in SAMPLING_SETTINGS})
        run = replace(run, config=run.config.model_copy(update={"model": config.model}))
    return run


def _same(stored: RunFolder, config: RunConfig) -> bool:
    """Whether a run on disk is one of these settings, but for what `auto` precision became, and for sampling."""
    if not (stored.path / "config.json").exists():
        return False
    known = stored.config()
    training = known.training.model_copy(update={"precision": config.training.precision})
    model = known.model
    if isinstance(model, FlowConfig) and isinstance(config.model, FlowConfig):
        if config.model.content == "auto":
            config = with_content(config, model.content)  # as the data had it
        model = model.model_copy(update={name: getattr(config.model, name) for name in SAMPLING_SETTINGS})
    return known.model_copy(update={"training": training, "model": model}) == config
