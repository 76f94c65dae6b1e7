"""What a training step costs when the machine has nothing else to do: a time budget becomes a number of steps.

The numbers are kept in a file, so that later runs, and runs beside other work, take as many steps as they would have
taken on the idle machine.
"""

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from msvae.benchmarking.machine import circumstances
from msvae.config import RunConfig
from msvae.errors import ConfigError, unknown
from msvae.training.files import read_json, write_json
from msvae.training.log import MetricsLog
from msvae.training.loop import LOG_EVERY
from msvae.training.progress import Display, Quiet
from msvae.training.run import train_run

FORMAT_VERSION = 1
REPEATS = 3
ROUNDING = 1e-6  # of a step: 60 s of 0.2 s are 300
FEWEST_WINDOWS, MOST_WINDOWS = 3, 20
SECONDS_A_REPEAT = 15.0


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

    def steps(self, name: str, budget: float) -> int:
        """The number of steps that the budget (seconds) allows.

        Raises:
            ConfigError: if that has not been measured.
        """
        return max(1, int(budget / self.seconds(name) + ROUNDING))

    def seconds(self, name: str) -> float:
        """Seconds of one step."""
        if name not in self.entries:
            raise ConfigError(f"{self.path}: {unknown('measured method', name, self.entries)}")
        return float(self.entries[name]["seconds_per_step"])

    def record(self, name: str, windows: list[list[float]], **facts: Any) -> float:
        """Keep what was measured, and return the seconds of a step.

        A repeat is a short run, measured in windows of some steps. For each window the fastest repeat counts, since
        what disturbs a run only ever slows it; then the mean over the windows, since a method's phases may differ.

        Args:
            windows: seconds of a step, by repeat and window; the very first window, which allocates and compiles, is
                left out by the caller.
            facts: whatever else is to be kept.
        """
        table = np.array(windows)
        seconds = float(table.min(axis=0).mean())
        self.entries[name] = {
            "seconds_per_step": seconds,
            "median": float(np.median(table)),
            "slowest": float(table.max()),
            "repeats": len(windows),
            "windows": table.shape[1],
            **facts,
            **circumstances(),
        }
        write_json(self.path, {"format_version": FORMAT_VERSION, "entries": self.entries})
        return seconds


def calibrate(
    calibration: Calibration,
    name: str,
    config_of: Callable[[int], RunConfig],
    display: Display | None = None,
) -> float:
    """Measure a method's step with short runs of the real training loop, and keep it.

    Args:
        config_of: the settings of a run of so many steps.
    """
    display = display or Quiet()
    first = _window_seconds(config_of(2 * LOG_EVERY))[-1] * LOG_EVERY
    count = min(MOST_WINDOWS, max(FEWEST_WINDOWS, int(SECONDS_A_REPEAT / first)))
    repeats = [_window_seconds(config_of((count + 1) * LOG_EVERY)) for _ in range(REPEATS)]
    config = config_of(1)
    seconds = calibration.record(
        name, repeats, batch_size=config.training.batch_size, model=config.model.model_dump(mode="json")
    )
    display.note(f"{name}: {1000 * seconds:.1f} ms a step, {LOG_EVERY * count} steps measured {REPEATS} times")
    return seconds


def _window_seconds(config: RunConfig) -> list[float]:
    """Seconds of a step in each window of a run, without the first."""
    training = config.training.model_copy(update={"checkpoint_seconds": 3600.0})
    model = config.model.model_copy(update={"sampler_components": 0})
    with tempfile.TemporaryDirectory() as folder:
        run = train_run(config.model_copy(update={"training": training, "model": model}), Path(folder) / "run")
        seconds = [
            float(entry["seconds"]) for entry in MetricsLog(run.folder.metrics_log).records() if "seconds" in entry
        ]
    return [(later - earlier) / LOG_EVERY for earlier, later in pairwise(seconds)]
