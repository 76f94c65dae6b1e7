"""What a training step costs when the machine has nothing else to do: a time budget becomes a number of steps.

The numbers are kept in a file, so that later runs, and runs beside other work, take as many steps as they would have
taken on the idle machine.
"""

import tempfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from msvae.benchmarking.machine import circumstances
from msvae.config import RunConfig
from msvae.data import load_data
from msvae.errors import ConfigError, unknown
from msvae.files import one_at_a_time, read_json, write_json
from msvae.models import MultiSourceModel, build_model
from msvae.networks.precision import flushed_denormals
from msvae.training.checkpoint import RunFolder
from msvae.training.log import MetricsLog
from msvae.training.loop import LOG_EVERY, fit
from msvae.training.progress import Display, Quiet

FORMAT_VERSION = 1
REPEATS = 3
ROUNDING = 1e-6  # of a step: 60 s of 0.2 s are 300
FEWEST_WINDOWS, MOST_WINDOWS = 3, 20
SECONDS_A_REPEAT = 15.0
SHORT_WINDOW = 5  # steps, of loops that are not ours; fewer, where these take longer than
SECONDS_A_WINDOW = 5.0
ONE_STAGE = {"training": 1.0}
Windows = Mapping[str, list[float]]


class Calibration:
    """Seconds of a step by what was measured, such as `poe` or `peer mvtcae`, kept in a file.

    Args:
        path: the file; it need not exist yet.

    Raises:
        ConfigError: if the file is of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_json(path) if path.exists() else {}
        if content.get("format_version", FORMAT_VERSION) > FORMAT_VERSION:
            raise ConfigError(f"{path} has format version {content['format_version']}; upgrade msvae to read it.")
        self.entries: dict[str, dict[str, Any]] = dict(content.get("entries", {}))

    def steps(self, name: str, budget: float, shares: Mapping[str, float] | None = None) -> dict[str, int]:
        """The number of steps of every stage that the budget (seconds) allows.

        Args:
            shares: of the budget, for stages that have others than when they were measured.

        Raises:
            ConfigError: if that has not been measured.
        """
        if name not in self.entries:
            raise ConfigError(f"{self.path}: {unknown('measured method', name, self.entries)}")
        stages = self.entries[name]["stages"]
        parts: dict[str, float] = {stage: facts["share"] for stage, facts in stages.items()}
        parts |= {stage: share for stage, share in (shares or {}).items() if stage in parts}
        whole = sum(parts.values())
        return {
            stage: max(1, int(budget * parts[stage] / whole / facts["seconds_per_step"] + ROUNDING))
            for stage, facts in stages.items()
        }

    def record(
        self, name: str, repeats: list[Windows], shares: Mapping[str, float] | None = None, **facts: Any
    ) -> dict[str, float]:
        """Keep what was measured, beside what other processes have, and return the seconds of a step of every stage.

        A repeat is a short run, measured in windows of some steps. For each window the fastest repeat counts, since
        what disturbs a run only ever slows it; then the mean over the windows.

        Args:
            repeats: seconds of a step in each window, by stage, in each repeat; without the very first windows, which
                allocate and compile.
            shares: of the budget, by stage; one stage has all of it.
            facts: whatever else is to be kept.
        """
        stages = {}
        for stage, share in (shares or ONE_STAGE).items():
            table = np.array([windows[stage] for windows in repeats])
            stages[stage] = {
                "share": share,
                "seconds_per_step": float(table.min(axis=0).mean()),
                "median": float(np.median(table)),
                "slowest": float(table.max()),
                "windows": table.shape[1],
            }
        with one_at_a_time(self.path):
            if self.path.exists():
                self.entries = read_json(self.path)["entries"]
            self.entries[name] = {"stages": stages, "repeats": len(repeats), **facts, **circumstances()}
            write_json(self.path, {"format_version": FORMAT_VERSION, "entries": self.entries})
        return {stage: facts["seconds_per_step"] for stage, facts in stages.items()}


@flushed_denormals()
def calibrate(
    calibration: Calibration,
    name: str,
    config_of: Callable[[Mapping[str, int]], RunConfig],
    display: Display | None = None,
) -> None:
    """Measure a method's steps with short runs of the real training loop, and keep it.

    Args:
        config_of: the settings of a run with so many steps in each stage.
    """
    display = display or Quiet()
    model = _model(config_of(dict.fromkeys(ONE_STAGE, 1)))
    shares = {stage.name: float(stage.share) for stage in model.stages if stage.steps != 0}
    first = _windows(config_of(dict.fromkeys(shares, 3 * LOG_EVERY)), shares)
    slowest = max(windows[-1] for windows in first.values()) * LOG_EVERY
    count = min(MOST_WINDOWS, max(FEWEST_WINDOWS, int(SECONDS_A_REPEAT / len(shares) / slowest)))
    config = config_of(dict.fromkeys(shares, (count + 1) * LOG_EVERY))
    seconds = calibration.record(
        name,
        [_windows(config, shares) for _ in range(REPEATS)],
        shares,
        batch_size=config.training.batch_size,
        rows={stage.name: stage.batch_size(config.training.batch_size) for stage in model.stages},
        model=config.model.model_dump(mode="json"),
    )
    told = ", ".join(f"{stage} {1000 * value:.1f} ms" for stage, value in seconds.items())
    display.note(f"{name}: {told} a step; {LOG_EVERY * count} steps measured {REPEATS} times")


@flushed_denormals()
def calibrate_loop(
    calibration: Calibration, name: str, fresh: Callable[[], Callable[[], float]], **facts: Any
) -> float:
    """Measure the steps of a training loop that is not ours as ours are measured, keep it, and return the seconds.

    Args:
        fresh: a training from its beginning: a function that takes a step and returns its seconds.
        facts: whatever else is to be kept.
    """
    advance = fresh()
    advance()  # allocates
    once = advance()
    length = min(SHORT_WINDOW, max(1, int(SECONDS_A_WINDOW / once)))
    count = min(MOST_WINDOWS, max(2, int(SECONDS_A_REPEAT / (length * once))))
    repeats = []
    for _ in range(REPEATS):
        advance = fresh()
        for _ in range(length):
            advance()
        windows = [sum(advance() for _ in range(length)) / length for _ in range(count)]
        repeats.append({"training": windows})
    (per_step,) = calibration.record(name, repeats, **facts).values()
    return per_step


def _model(config: RunConfig) -> MultiSourceModel:
    return build_model(load_data(config.data).sources, config.model)


def _windows(config: RunConfig, shares: Mapping[str, float]) -> dict[str, list[float]]:
    """Seconds of a step in each window of a run, by stage, without the first window of each."""
    training = config.training.model_copy(update={"checkpoint_seconds": 3600.0})
    data = load_data(config.data)
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name) / "run")
        folder.create(config, data.sources, {})
        fit(_model(config), data.split("train"), None, training, folder, measure=False)
        entries = [entry for entry in MetricsLog(folder.metrics_log).records() if "seconds" in entry]
    found: dict[str, list[float]] = {stage: [] for stage in shares}
    for earlier, later in pairwise(entries):
        if earlier.get("stage") == later.get("stage") and later["step"] > earlier["step"]:
            stage = later.get("stage", next(iter(shares)))
            found[stage].append((later["seconds"] - earlier["seconds"]) / (later["step"] - earlier["step"]))
    return found
