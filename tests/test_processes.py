"""One model trained by two processes (gloo, on the CPU): the same weights in both, nothing that hangs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Command
from msvae.errors import ConfigError
from msvae.training.opening import open_run
from msvae.training.run import resume_run
from test_shared_flow import DATA, STEPS
from test_stage_ends import looked_at
from test_training import assert_same_weights

LAUNCHED = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def launched(*words: object) -> str:
    done = subprocess.run(
        [*LAUNCHED, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder, and what each process found."""
    folder = tmp_path_factory.mktemp("two")
    launched(Path(__file__).with_name("two_processes.py"), folder)
    return folder, [json.loads((folder / f"{number}.json").read_text()) for number in (0, 1)]


def test_gradients_are_those_of_all_rows(both: tuple[Path, list[dict[str, Any]]]) -> None:
    _, found = both
    assert [one["count"] for one in found] == [2, 2]
    assert [one["summed"]["rows"] for one in found] == [3, 2]
    for one in found:
        assert one["summed"]["none"]
        assert one["summed"]["wrong_by"] < 1e-6
        assert one["told"] == 0
        assert one["any"] == [False, True]


def test_all_processes_have_the_weights_that_are_kept(both: tuple[Path, list[dict[str, Any]]]) -> None:
    """A flow in all of its stages, half of the images missing."""
    folder, (first, second) = both
    assert first["straight"] == second["straight"]
    kept = open_run(folder / "straight", device="cpu").model.state_dict()
    assert first["straight"] == [float(value.double().sum()) for value in kept.values()]
    assert looked_at(folder / "straight") == list(STEPS)
    steps = [json.loads(line)["step"] for line in (folder / "straight" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert max(steps) == sum(STEPS.values())


def test_own_networks_are_the_first_process_s(both: tuple[Path, list[dict[str, Any]]]) -> None:
    _, (first, second) = both
    assert len(first["own"]) == 3
    assert first["own"] == second["own"]


def test_a_wish_of_one_stops_all_and_they_resume_bit_for_bit(both: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, found = both
    for one in found:
        assert "Stopped at step 7" in one["stopped"]["told"]
        assert one["stopped"]["numbers"] == one["straight"]
    assert_same_weights(folder / "straight", folder / "stopped")


def test_what_stops_one_stops_all(both: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, found = both
    for one in found:
        assert "15 training rows are too few for 2 processes" in one["too_few"]
        assert "Too bad." in one["gate"]
        assert "already holds a run" in one["taken"]
    assert "another process" in found[0]["nan"]
    assert "the loss is not finite" in found[1]["nan"]
    assert not (folder / "few").exists()


def test_another_number_of_processes_cannot_go_on(both: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = both
    with pytest.raises(ConfigError, match="began with 2 process"):
        resume_run(folder / "gate", data=DATA)


def test_what_is_for_one_process_is_refused_in_several(msvae: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "is for one" in msvae("evaluate", "run", code=2).stderr
    assert "start them with torchrun" in msvae("train", "colours", code=2).stderr  # not by this launcher


def test_the_command_speaks_once(tmp_path: Path) -> None:
    settings = ("--steps", 3, "--set", "model.width=8", "--set", "data.options.variants=1")
    said = launched("-m", "msvae", "train", "colours", "--method", "poe", *settings, "-o", tmp_path / "run")
    assert said.count("Trained poe for 3 steps") == 1
    assert open_run(tmp_path / "run", device="cpu").folder.state().finished
