"""What a training step of each method costs: time, operations and memory, on rows of noise."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from msvae.benchmarking.machine import circumstances
from msvae.benchmarking.timing import Step, alternating, operations, peak_megabytes, peak_of
from msvae.config import ModelConfig, parse
from msvae.errors import ConfigError
from msvae.files import write_json
from msvae.models import build_model, with_method
from msvae.source import Source, SourceBatch
from msvae.training.devices import device_named
from msvae.training.progress import Display, Quiet, tracked

SHAPE = (3, 28, 28)
COLUMNS = ["method", "min s", "median s", "operations", "peak MB"]
STEPS_FOR_PEAK = 3


def random_rows(sources: int, rows: int, missing: float = 0.0, seed: int = 0) -> SourceBatch:
    """Rows of noise in [0, 1] of PolyMNIST's shape; `missing`: share of images marked absent, every row keeps one."""
    generator = torch.Generator().manual_seed(seed)
    values = {f"m{i}": torch.rand(rows, *SHAPE, generator=generator) for i in range(sources)}
    lottery = torch.rand(sources, rows, generator=generator)
    present = lottery >= missing
    present[lottery.argmax(dim=0), torch.arange(rows)] = True
    return SourceBatch(values, {f"m{i}": present[i] for i in range(sources)})


def training_step(method: str, batch: SourceBatch, settings: Mapping[str, Any] | None = None) -> Step:
    """Forward, backward and Adam of a fresh joint VAE, in 32 bits.

    Args:
        settings: of the model, over the method's own.

    Raises:
        ConfigError: for the flow, whose stages cost something else each (`msvae bench calibrate` tells them).
    """
    if method == "flow":
        raise ConfigError("The flow has no one training step; `msvae bench calibrate` measures those of its stages.")
    sources = [Source(name, SHAPE) for name in batch.names]
    chosen = {**(settings or {}), "method": method, "sampler_components": 0}
    device = device_named()
    batch = batch.to(device)
    torch.manual_seed(0)
    model = build_model(sources, parse(ModelConfig, with_method(None, chosen))).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)  # as in training
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        loss = model.loss(batch, generator).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type != "cpu":
            torch.accelerator.synchronize()

    return step


def speed_table(
    methods: Sequence[str],
    out: Path,
    *,
    sources: int = 5,
    rows: int = 256,
    missing: float = 0.0,
    rounds: int = 12,
    settings: Mapping[str, Any] | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Time a step of every method, all in turns in this process, and keep the table.

    Args:
        rounds: steps of each that are timed.
        settings: of all models, such as `{"latent": 64}`.
    """
    display = display or Quiet()
    batch = random_rows(sources, rows, missing)
    steps = {method: training_step(method, batch, settings) for method in methods}
    timings = alternating(steps, rounds)
    table, measured = [], []
    for method in tracked(methods, display, "counting operations and memory", len(methods)):
        timing, count = timings[method], operations(steps[method])
        peak = _peak(method, sources, rows, missing, dict(settings or {}))
        table.append([method, f"{timing.minimum:.3f}", f"{timing.median:.3f}", str(count), f"{peak:.0f}"])
        measured.append(
            {"method": method, "seconds": list(timing.seconds), "operations": count, "peak_megabytes": peak}
        )
    lacking = f", {missing:.0%} of the images missing" if missing else ""
    content = {
        "format_version": 1,
        "title": f"Seconds of a training step, {sources} sources{lacking}",
        "note": f"Forward, backward and Adam in 32 bits; {rows} rows of 3x28x28, our own networks, {rounds} rounds in "
        "turns. Operations are the profiler's; peaks are of fresh processes.",
        "columns": COLUMNS,
        "table": table,
        "measured": measured,
        "settings": dict(settings or {}),
        "circumstances": circumstances(),
    }
    write_json(out, content)
    return content


def _peak(method: str, sources: int, rows: int, missing: float, settings: dict[str, Any]) -> float:
    """Peak memory of a fresh process that takes a few steps."""
    call = f"tell_peak({method!r}, {sources}, {rows}, {missing}, {settings!r}, {torch.get_num_threads()})"
    return peak_of(["-c", f"from msvae.benchmarking.speed import tell_peak; {call}"])["megabytes"]


def tell_peak(method: str, sources: int, rows: int, missing: float, settings: dict[str, Any], threads: int) -> None:
    """What the fresh process does: a few steps, then its peak as JSON."""
    torch.set_num_threads(threads)
    step = training_step(method, random_rows(sources, rows, missing), settings)
    for _ in range(STEPS_FOR_PEAK):
        step()
    print(f'{{"megabytes": {peak_megabytes()}}}')
