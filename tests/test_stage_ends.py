"""What kills, stops and rows without pairs do at the ends of stages; and two processes on one run."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from msvae.data import DataSet
from msvae.errors import CheckpointError, ConfigError, DataError, Interrupted
from msvae.metrics import nearness, pixel_quality
from msvae.models import SharedFlow
from msvae.source import Source
from msvae.training import gates, run
from msvae.training.checkpoint import RunFolder
from msvae.training.gates import Gate
from msvae.training.opening import Run
from msvae.training.progress import PlainLines, shown
from msvae.training.run import resume_run, train_run
from test_shared_flow import DATA, STAGES, config
from test_training import assert_same_weights


def looked_at(folder: Path) -> list[str]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["gate"] for record in records if "gate" in record]


@pytest.fixture
def straight(passing: None, tmp_path: Path) -> Run:
    return train_run(config(), tmp_path / "straight", data=DATA)


@pytest.mark.parametrize("stage", ["code", "renderer"])
def test_a_gate_in_which_a_run_was_killed_is_looked_at_when_it_goes_on(
    stage: str, straight: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(model: object, rows: object) -> Gate:
        raise KeyboardInterrupt

    gate = next(one.gate for one in straight.model.stages if one.name == stage)
    with monkeypatch.context() as patch:
        patch.setitem(gates.GATES, str(gate), dies)
        with pytest.raises(KeyboardInterrupt):
            train_run(config(), tmp_path / "killed", data=DATA)
    assert stage not in looked_at(tmp_path / "killed")
    resume_run(tmp_path / "killed", data=DATA)
    assert looked_at(tmp_path / "killed") == looked_at(straight.folder.path) == list(STAGES)
    assert_same_weights(straight.folder.path, tmp_path / "killed")


def test_a_wish_to_stop_in_the_last_gate_is_not_forgotten(
    passing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks(model: object, rows: object) -> Gate:
        os.kill(os.getpid(), signal.SIGINT)
        return Gate({})

    monkeypatch.setitem(gates.GATES, "samples", asks)
    with pytest.raises(Interrupted, match="finished, and saved"):
        train_run(config(), tmp_path / "run", data=DATA)
    assert RunFolder(tmp_path / "run").state().finished


def with_presence(split: str, **present: torch.Tensor) -> DataSet:
    rows = DATA.split(split)
    return replace(DATA, splits={**DATA.splits, split: replace(rows, present={**rows.present, **present})})


def test_rows_of_one_source_each_are_refused_by_what_learns_from_pairs(
    straight: Run, passing: None, tmp_path: Path
) -> None:
    number = torch.arange(40)
    apart = with_presence("train", a=number < 10, b=(number >= 10) & (number < 30), c=number >= 30)
    with pytest.raises(DataError, match=r"source 'a' beside another one.*names of their files"):
        train_run(config(**{"data.missing": 0.0}), tmp_path / "apart", data=apart)
    two = DATA.only(["a", "b"])
    trained = train_run(config(), tmp_path / "two", data=two).folder.path
    alone = with_presence("train", a=number < 20, b=number < 20, c=number >= 20)
    adding = config(**{"model.extends": str(trained), "data.missing": 0.0})
    with pytest.raises(DataError, match="source 'c' beside another one"):
        train_run(adding, tmp_path / "more", data=alone)
    assert not (tmp_path / "apart").exists()
    assert not (tmp_path / "more").exists()


def test_validation_rows_without_any_source_are_not_looked_at(tmp_path: Path) -> None:
    none = torch.zeros(40, dtype=torch.bool)
    data = with_presence("validation", a=none, b=none)
    trained = train_run(config(**{"data.sources": ["a", "b"]}), tmp_path / "run", data=data)
    assert trained.folder.state().finished
    assert not looked_at(tmp_path / "run")


def test_lengths_of_stages_that_there_are_not_leave_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'source'"):
        train_run(config(**{"training.stage_steps": {"source": 3}}), tmp_path / "run", data=DATA)
    assert not (tmp_path / "run").exists()


def test_a_place_that_is_taken_is_found_before_data_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(run, "rows_of_run", lambda *_: pytest.fail("read"))
    with pytest.raises(CheckpointError, match="not empty"):
        train_run(config(), tmp_path)


def test_other_runs_are_named_by_their_whole_path(
    straight: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(straight.folder.path.parent)
    reusing = train_run(config(**{"model.reuse": straight.folder.path.name}), tmp_path / "reusing", data=DATA)
    assert reusing.folder.config().model.model_dump()["reuse"] == str(straight.folder.path.resolve())


def test_one_process_at_a_time_trains_in_a_folder(
    straight: Run, passing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self: SharedFlow, name: str, rows: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SharedFlow, "end_stage", dies)
        with pytest.raises(KeyboardInterrupt):
            train_run(config(), tmp_path / "run", data=DATA)
    log = RunFolder(tmp_path / "run").metrics_log
    with log.open("a") as file:
        file.write('{"step": 1000000}\n')  # what the other process has written since its checkpoint
    with RunFolder(tmp_path / "run").alone(), pytest.raises(CheckpointError, match="Another process is training"):
        resume_run(tmp_path / "run", data=DATA)
    assert "1000000" in log.read_text()
    with RunFolder(tmp_path / "run").alone(), pytest.raises(CheckpointError, match="Another process is training"):
        RunFolder(tmp_path / "run").discard()
    resume_run(tmp_path / "run", data=DATA)
    assert_same_weights(straight.folder.path, tmp_path / "run")


def test_time_left_is_told_by_what_was_done_since_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("msvae.training.progress.time.monotonic", lambda: next(clock))
    display = PlainLines(Console())

    def breaks() -> None:
        with shown(display, "training", 1000, 900):
            display.update(910, 1000, {})
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        breaks()
    assert capsys.readouterr().out.splitlines() == ["training: 910/1000 , 1:30 left", "training: stopped after 0:20"]


def test_gates_compare_as_tests_do_a_part_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    picture, classes = Source("a", (3, 16, 16)), Source("b", (1, 8, 8), likelihood="categorical", categories=4)
    for source in (picture, classes):
        images, truth = torch.rand(2, 7, *source.shape, generator=generator)
        if source.categories:
            images, truth = (4 * images).floor(), (4 * truth).floor()
        quality = pixel_quality(images, truth, source)
        assert float(nearness(images, truth, source).mean()) == pytest.approx(quality.psnr or quality.accuracy)
        typical = truth.mode(dim=0).values if source.categories else truth.mean(dim=0)
        torch.testing.assert_close(gates._mean_image(truth.split(3), source), typical)
