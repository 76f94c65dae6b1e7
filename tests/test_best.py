"""The last stage of scenes ends with the weights that did best on validation rows, also when it was stopped."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY_TRAINING, tiny_model, tiny_settings
from msvae import api
from msvae.config import RunConfig, TrainingConfig
from msvae.data import complete_rows
from msvae.errors import Interrupted
from msvae.models.stages import Stage
from msvae.objectives import Loss
from msvae.source import Source, SourceBatch
from msvae.training import loop, validation
from msvae.training.best import BestWeights
from msvae.training.checkpoint import RunFolder
from msvae.training.opening import Run
from msvae.training.run import resume_run, train_run
from msvae.training.schedule import BatchOrder
from test_alignment import ALIGNED, scenes
from test_training import assert_same_weights

STAGES = {"sources": 1, "code": 1, "converter": 1, "renderer": 1, "alignment": 16}
DATA = scenes()


def config() -> RunConfig:
    settings = {**tiny_settings("flow"), **TINY_TRAINING, **{f"model.{key}": value for key, value in ALIGNED.items()}}
    return api.run_config(method="flow", settings={**settings, "training.stage_steps": STAGES, "training.steps": 20})


@pytest.fixture
def seen(passing: None, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, dict[str, torch.Tensor]]]:
    """What validation found in the last stage, whose third look of eight is told to be the best."""
    found: list[tuple[float, dict[str, torch.Tensor]]] = []

    def validate(model: Any, *arguments: Any) -> dict[str, float]:
        if model.stage != "alignment":
            return {"loss": 0.0}
        loss = 1.0 if len(found) % 8 == 2 else 2.0
        found.append((loss, {name: value.clone() for name, value in model.alignment.state_dict().items()}))
        return {"loss": loss}

    monkeypatch.setattr(loop, "validation_losses", validate)
    return found


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.model.alignment.state_dict()  # type: ignore[union-attr]


def test_the_best_weights_are_kept(seen: list[tuple[float, dict[str, torch.Tensor]]], tmp_path: Path) -> None:
    run = train_run(config(), tmp_path / "run", data=DATA)
    assert len(seen) == 8
    for name, value in weights(run).items():
        assert torch.equal(value, seen[2][1][name])
    assert not all(torch.equal(value, seen[-1][1][name]) for name, value in weights(run).items())
    records = [json.loads(line) for line in (run.folder.path / "metrics.jsonl").read_text().splitlines()]
    assert sum("validation/loss" in record and record["stage"] == "alignment" for record in records) == 8


@pytest.mark.parametrize("stop_at", [4, 9, 15])
def test_they_are_resumed_with(
    stop_at: int,
    seen: list[tuple[float, dict[str, torch.Tensor]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before and after the best ones were found, and after the stage's last step."""
    train_run(config(), tmp_path / "straight", data=DATA)
    order = BatchOrder.__call__

    def stops(self: BatchOrder, step: int) -> torch.Tensor:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return order(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(BatchOrder, "__call__", stops)
        with pytest.raises(Interrupted):
            train_run(config(), tmp_path / "stopped", data=DATA)
    assert RunFolder(tmp_path / "stopped").state().step == 4 + stop_at + 1
    resume_run(tmp_path / "stopped", data=DATA)
    assert_same_weights(tmp_path / "straight", tmp_path / "stopped")


def test_a_loss_that_is_not_a_number_is_never_the_best() -> None:
    best, layer = BestWeights(), torch.nn.Linear(1, 1)
    best.look(float("nan"), 3, layer)
    assert best.as_dict() == {}
    best.look(1.0, 4, layer)
    best.look(1.0, 5, layer)
    assert best.as_dict() == {"loss": 1.0, "step": 4}


def test_validation_counts_rows_not_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows in parts of two: the last part is one row alone."""

    def brightness(batch: SourceBatch, generator: torch.Generator) -> Loss:
        mean = batch.values["grey"].mean()
        return Loss(mean, {"brightness": mean, **({"alone": mean} if len(batch) == 1 else {})})

    model = tiny_model("poe", [Source("grey", (1, 8, 8))])
    images = torch.tensor([0.0, 0.0, 0.9])[:, None, None, None].expand(3, 1, 8, 8)
    monkeypatch.setattr(model, "loss", brightness)
    monkeypatch.setattr(validation, "FEWEST_AT_ONCE", 2)
    rows = complete_rows(model.sources, {"grey": images.numpy()})
    found = validation.validation_losses(model, rows, Stage(), TrainingConfig(batch_size=2))
    assert found == pytest.approx({"loss": 0.3, "brightness": 0.3, "alone": 0.9})
