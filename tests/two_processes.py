"""What each of two processes does in `test_processes.py`: torchrun .. tests/two_processes.py OUT."""

import json
import math
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from conftest import let_pass
from msvae import api
from msvae.data import DataSet
from msvae.errors import CheckpointError, ConfigError, GateError, Interrupted, NonFiniteError
from msvae.models import SharedFlow
from msvae.models.base import Loss
from msvae.source import SourceBatch
from msvae.training import gates
from msvae.training.gates import Gate
from msvae.training.opening import Run
from msvae.training.processes import Processes
from msvae.training.run import resume_run, train_run
from msvae.training.schedule import BatchOrder
from test_shared_flow import DATA, config

OUT = Path(sys.argv[1])


def summed(processes: Processes) -> dict[str, Any]:
    """Gradients of weights that all, one and no process uses, for rows of two sources that no process has both of."""
    torch.manual_seed(0)
    layers = nn.ModuleDict({name: nn.Linear(3, 2) for name in ("all", "second", "none")})
    layers["all"].weight.data = layers["all"].weight.data.t().contiguous().t()  # in another layout
    rows = torch.randn(5, 3)
    mine = processes.part(torch.arange(5))
    loss = layers["all"](rows[mine]).square().sum() / 5
    if not processes.first:
        loss = loss + layers["second"](rows[mine]).square().sum() / 5
    loss.backward()
    processes.add_up(layers.parameters())
    gradients = {name: layer.weight.grad for name, layer in layers.items()}
    layers.zero_grad()
    (layers["all"](rows).square().sum() / 5 + layers["second"](rows[3:]).square().sum() / 5).backward()
    return {
        "rows": len(mine),
        "none": gradients["none"] is None,
        "wrong_by": max(float((gradients[name] - layers[name].weight.grad).abs().max()) for name in ("all", "second")),
    }


def numbers(run: Run) -> list[float]:
    return [float(value.double().sum()) for value in run.model.state_dict().values()]


def stopped_and_resumed(second: bool) -> dict[str, Any]:
    """Ctrl-C in the second process alone, in the second stage."""
    original, calls = BatchOrder.__call__, {"count": 0}

    def call(order: BatchOrder, step: int) -> torch.Tensor:
        calls["count"] += 1
        if second and calls["count"] == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return original(order, step)

    BatchOrder.__call__ = call  # type: ignore[method-assign]
    try:
        train_run(config(), OUT / "stopped", data=DATA)
        told = "nothing"
    except Interrupted as error:
        told = str(error)
    BatchOrder.__call__ = original  # type: ignore[method-assign]
    return {"told": told, "numbers": numbers(resume_run(OUT / "stopped", data=DATA))}


def raw_weights_of_own_networks(process: int) -> list[list[float]]:
    """At every step, where each process has made networks of its own, from a seed of its own."""
    torch.manual_seed(process)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    own = {"a": (encoder, nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8))))}
    seen: list[list[float]] = []
    original = Processes.add_up

    def add_up(self: Processes, weights: Iterable[torch.Tensor]) -> None:
        held = list(weights)
        seen.append([float(weight.double().sum()) for weight in held])
        original(self, held)

    Processes.add_up = add_up  # type: ignore[method-assign]
    settings = {"model.latent": 4, "training.steps": 3, "training.batch_size": 8}
    train_run(api.run_config(method="poe", settings=settings), OUT / "own", data=DATA, networks=own)
    Processes.add_up = original  # type: ignore[method-assign]
    return seen


def nan_in_one(second: bool) -> str:
    """A loss that is not finite in the second process alone."""
    original = SharedFlow.loss

    def loss(model: SharedFlow, batch: SourceBatch, generator: torch.Generator | None = None) -> Loss:
        found = original(model, batch, generator)
        return Loss(found.total * math.nan, found.terms) if second else found

    SharedFlow.loss = loss  # type: ignore[method-assign]
    told = refused((NonFiniteError, Interrupted), "nan", DATA)
    SharedFlow.loss = original  # type: ignore[method-assign]
    return told


def refused(error: type[Exception] | tuple[type[Exception], ...], name: str, data: DataSet) -> str:
    try:
        train_run(config(), OUT / name, data=data)
    except error as told:
        return str(told)
    return "nothing"


def main() -> None:
    torch.set_num_threads(1)
    processes = Processes(Accelerator(cpu=True))
    few = replace(DATA, splits={"train": DATA.split("train").take(torch.arange(15))})
    let_pass(pytest.MonkeyPatch())
    found = {
        "count": processes.count,
        "summed": summed(processes),
        "told": processes.told(lambda: processes.number),
        "any": [processes.any(False), processes.any(not processes.first)],
        "straight": numbers(train_run(config(), OUT / "straight", data=DATA)),
        "stopped": stopped_and_resumed(not processes.first),
        "own": raw_weights_of_own_networks(processes.number),
        "nan": nan_in_one(not processes.first),
        "taken": refused(CheckpointError, "straight", DATA),
        "too_few": refused(ConfigError, "few", few),
    }
    gates.GATES["reconstruction"] = lambda model, rows: Gate({}, "Too bad.")
    found["gate"] = refused(GateError, "gate", DATA)
    (OUT / f"{processes.number}.json").write_text(json.dumps(found))


main()
