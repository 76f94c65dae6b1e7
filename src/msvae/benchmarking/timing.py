"""How long a step takes, how many operations it starts, and how much memory it needs."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

Step = Callable[[], object]
WARM_UP = 2


@dataclass(frozen=True)
class Timing:
    """Seconds of a step in every round."""

    seconds: tuple[float, ...]

    @property
    def minimum(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def alternating(steps: Mapping[str, Step], rounds: int) -> dict[str, Timing]:
    """Time several steps in turns, so that whatever disturbs the machine disturbs all of them alike.

    The order turns round by round; the first steps, which allocate, are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM_UP):
        for step in steps.values():
            step()
    for number in range(rounds):
        names = list(steps)
        for name in names if number % 2 == 0 else reversed(names):
            began = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def ratio(first: Timing, second: Timing) -> float:
    """Median over the rounds of how much longer the first takes: both of a round met the same machine."""
    return statistics.median(a / b for a, b in zip(first.seconds, second.seconds, strict=True))


def operations(step: Step) -> int:
    """Torch operations that one step starts: the profiler's `aten::` events, those within others included."""
    for _ in range(WARM_UP):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        step()
    return sum(event.count for event in record.key_averages() if event.key.startswith("aten::"))


def peak_megabytes() -> float:
    """The most memory that this process has held so far.

    On Linux the system's own record of it: `getrusage` counts what the parent held before this process began.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def peak_of(command: Sequence[str]) -> dict[str, float]:
    """What a fresh process of that Python command tells in its last line, as JSON: peaks are of processes.

    Raises:
        RuntimeError: with its last words, if it fails.
    """
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=dict(os.environ), check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
