"""The loop: length, resume bit for bit, Ctrl-C, kill -9, NaN, and checkpoints that were tampered with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from conftest import TINY, TINY_TRAINING
from msvae import api
from msvae.config import RunConfig
from msvae.data import DataSet, Rows, complete_rows
from msvae.errors import CheckpointError, ConfigError, DataError, Interrupted, NonFiniteError
from msvae.files import refuse_unwritable, sha256, unambiguous, write_folder, write_json
from msvae.likelihoods import LIKELIHOODS
from msvae.posterior import Posterior
from msvae.source import Source
from msvae.training import loop
from msvae.training.average import RunningAverage
from msvae.training.checkpoint import RunFolder
from msvae.training.opening import Run, open_run
from msvae.training.progress import three_digits
from msvae.training.run import resume_run, train_run
from msvae.training.schedule import BatchOrder, BudgetMeter, derived_seed, learning_rate, progress_share


def config(**settings: object) -> RunConfig:
    base = {f"model.{key}": value for key, value in TINY.items()} | TINY_TRAINING
    return api.run_config(settings={**base, "data.options.variants": 1, **settings})


def weights(path: Path) -> dict[str, torch.Tensor]:
    folder = RunFolder(path).latest()
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "training.safetensors")}


def assert_same_weights(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train_run(config(**{"training.steps": 12, "training.seed": seed}), tmp_path / name)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    settings = config(**{"training.steps": 24, "training.precision": precision, "data.missing": 0.4})
    train_run(settings, tmp_path / "straight")
    original = loop.BatchOrder.__call__

    def ask_to_stop(self: BatchOrder, step: int) -> torch.Tensor:
        if step == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.BatchOrder, "__call__", ask_to_stop)
        with pytest.raises(Interrupted, match=r"step 11.*--resume"):
            train_run(settings, tmp_path / "stopped")
    assert RunFolder(tmp_path / "stopped").state().step == 11
    resume_run(tmp_path / "stopped")
    assert_same_weights(tmp_path / "straight", tmp_path / "stopped")
    steps = [json.loads(line)["step"] for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()]
    straight = [json.loads(line)["step"] for line in (tmp_path / "straight" / "metrics.jsonl").read_text().splitlines()]
    assert steps == straight


def test_a_folder_named_by_way_of_another_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").write_text("yes")

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError):
        write_folder(tmp_path / "new" / ".." / "old", full)
    assert (tmp_path / "old" / "kept").read_text() == "yes"
    assert not (tmp_path / "new").exists()
    assert unambiguous(tmp_path / "new" / ".." / "old") == tmp_path / "old"


def test_a_second_wish_to_stop_is_granted_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def twice(self: BatchOrder, step: int) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still here")

    monkeypatch.setattr(loop.BatchOrder, "__call__", twice)
    with pytest.raises(KeyboardInterrupt):
        train_run(config(**{"training.steps": 4}), tmp_path / "stopped")


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """kill -9 in the middle of an epoch, with a checkpoint every few steps."""
    words = ["train", "colours", "--method", "mopoe", "--steps", "400", "--out", str(tmp_path / "killed")]
    plain = {**{f"model.{k}": v for k, v in TINY.items()}, **TINY_TRAINING}
    plain |= {"data.options.variants": 1, "training.checkpoint_seconds": 0.2}
    for key, value in plain.items():
        words += ["--set", f"{key}={value}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from msvae.cli.main import main; main()", *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder, deadline = RunFolder(tmp_path / "killed"), time.monotonic() + 120
    while len(folder.checkpoints()) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped_at = folder.state().step
    assert 0 < stopped_at < 400
    assert not folder.state().finished
    for left in (".step-00000001.part", ".step-00000001.old"):
        (tmp_path / "killed" / "checkpoints" / left).mkdir(exist_ok=True)
    resume_run(tmp_path / "killed")
    assert not list((tmp_path / "killed" / "checkpoints").glob(".step-*"))
    train_run(api.run_config(method="mopoe", settings={**plain, "training.steps": 400}), tmp_path / "straight")
    assert_same_weights(tmp_path / "straight", tmp_path / "killed")


def test_a_budget_becomes_steps_and_the_same_steps_give_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The speed is measured within the warm-up, whose rates do not depend on the length."""
    answers = iter([None] * 25 + [45])
    monkeypatch.setattr(BudgetMeter, "add", lambda self, seconds: next(answers))
    budget = train_run(config(**{"training.budget": 100, "training.warmup_steps": 30}), tmp_path / "budget")
    assert budget.folder.state().total_steps == budget.folder.state().step == 45
    train_run(config(**{"training.steps": 45, "training.warmup_steps": 30}), tmp_path / "steps")
    assert_same_weights(tmp_path / "budget", tmp_path / "steps")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(10897.6, "10898"), (99.96, "100"), (26.44, "26.4"), (-1.3, "-1.30"), (0.03116, "0.0312"), (0.0, "0")],
)
def test_small_losses_are_shown_with_three_digits(value: float, shown: str) -> None:
    assert three_digits(value) == shown


def test_progress_does_not_depend_on_when_the_length_becomes_known() -> None:
    """In the warm-up, where a budget is measured, it is 0 for a run of known length too."""
    shares = [progress_share(step, 30, total) for step, total in ((29, None), (29, 60), (30, 60), (59, 60), (9, 10))]
    assert shares == [0.0, 0.0, 0.5, 59 / 60, 0.0]


def test_a_folder_of_the_name_of_a_known_set_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colours").mkdir()  # where `msvae data export colours -o colours/` writes
    monkeypatch.chdir(tmp_path)
    run = train_run(config(**{"training.steps": 2}), tmp_path / "run")
    assert run.config.data.name == "colours"


def test_a_folder_is_replaced_also_where_a_kill_left_the_one_before(tmp_path: Path) -> None:
    for name in (".step.old", "step"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("before")
    write_folder(tmp_path / "step", lambda folder: write_json(folder / "file", {"now": 1}))
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
    assert "now" in (tmp_path / "step" / "file").read_text()


def test_a_folder_that_cannot_be_replaced_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "step", lambda folder: write_json(folder / "file", {"now": 1}))
    move = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return move(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(CheckpointError, match="What was there is unchanged"):
        write_folder(tmp_path / "step", lambda folder: write_json(folder / "file", {"now": 2}))
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
    assert '"now": 1' in (tmp_path / "step" / "file").read_text()


def test_a_folder_that_is_not_replaced_because_of_ctrl_c_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "step", lambda folder: write_json(folder / "file", {"now": 1}))
    move = Path.replace

    def stops(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", stops)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "step", lambda folder: write_json(folder / "file", {"now": 2}))
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
    assert '"now": 1' in (tmp_path / "step" / "file").read_text()


def test_a_checkpoint_that_a_kill_left_aside_is_one(tiny_run: Run, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    newest = folder.latest()
    before = folder.model_weights()
    newest.replace(newest.with_name(f".{newest.name}.old"))
    assert folder.latest().name == f".{newest.name}.old"
    assert all(torch.equal(value, before[name]) for name, value in folder.model_weights().items())
    shutil.copytree(folder.latest(), newest)
    assert folder.latest() == newest


def test_a_folder_that_cannot_be_written_is_found_before_long_work(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=f"Cannot write into {place}"):
            refuse_unwritable(place)


def test_a_budget_is_kept_roughly(tmp_path: Path) -> None:
    state = train_run(config(**{"training.budget": 2.0}), tmp_path / "budget").folder.state()
    assert state.total_steps == state.step > 1
    assert 0.2 < state.seconds < 20


def test_accumulation_computes_the_same_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sampling noise, a batch in parts of unequal size gives the same weights as at once."""
    monkeypatch.setattr(Posterior, "sample", lambda self, generator=None: self.mean)
    stored = []
    for parts in (1, 3):
        settings = {"training.steps": 3, "training.accumulation": parts, "model.method": "single"}
        train_run(config(**settings), tmp_path / str(parts))
        stored.append(weights(tmp_path / str(parts)))
    for name in stored[0]:
        if "exp_avg" in name:  # the gradients' moments; the weights themselves would hide their scale
            torch.testing.assert_close(stored[0][name], stored[1][name], rtol=1e-3, atol=1e-3)


def test_few_rows_get_a_smaller_sampler(tmp_path: Path) -> None:
    data = own_data(rows=4)
    run = api.train(data, out=tmp_path / "run", settings={**SMALL, "model.sampler_components": 20})
    assert run.folder.state().finished
    assert run.model.has_fitted_sampler


SMALL = {f"model.{key}": value for key, value in TINY.items()} | TINY_TRAINING | {"training.steps": 3}


def own_data(rows: int = 12, **fields: object) -> DataSet:
    generator = np.random.default_rng(0)
    sources = [Source("a", (1, 8, 8)), Source("b", (2, 9, 8))]
    images = {source.name: generator.random((rows, *source.shape)) for source in sources}  # float64, as NumPy gives it
    part = complete_rows(sources, images, np.arange(rows, dtype=np.int32) % 2)
    return DataSet(**{"name": "mine", "splits": {"train": part, "test": part}, "shared_content": True, **fields})


def test_own_rows_are_trained_tested_reported_and_resumed(tmp_path: Path) -> None:
    data = own_data()
    settings = {**SMALL, "data.missing": 0.4, "data.sources": ["b", "a"]}
    run = api.train(data, "poe", out=tmp_path / "run", settings=settings)
    assert run.config.data.name == "mine"
    assert run.model.source_names == ("b", "a")
    figures = api.evaluate(run, data=data)
    assert figures["data"] == "mine"
    assert api.report(run, data=data).exists()
    other = api.train(data, "poe", out=tmp_path / "other", settings=settings)
    with pytest.raises(DataError, match="other beside has not been tested"):
        api.report(run, data=data, beside=other)
    api.evaluate(other, data=data, baseline=False)
    assert "Beside it: poe" in api.report(run, data=data, beside=other).read_text()
    fewer = api.train(data, "poe", out=tmp_path / "fewer", settings={**settings, "data.sources": ["a"]})
    api.evaluate(fewer, data=data, baseline=False)
    with pytest.raises(DataError, match="fewer beside has other test rows: mine a, not mine b"):
        api.report(run, data=data, beside=fewer)
    assert api.resume(tmp_path / "run", data=data).folder.state().step == 3
    with pytest.raises(DataError, match="pass it again"):
        api.evaluate(run)
    with pytest.raises(DataError, match="differ from those of the run"):
        api.evaluate(run, data=own_data(splits={"train": digits_like(), "test": digits_like()}))


def digits_like() -> Rows:
    return complete_rows(
        [Source("b", (2, 9, 8)), Source("a", (1, 4, 4))], {"a": np.zeros((2, 1, 4, 4)), "b": np.zeros((2, 2, 9, 8))}
    )


def test_mixed_sources_with_holes_are_tested_and_reported(tmp_path: Path) -> None:
    """Two images and a map of classes; garbage where a source is absent; no labels."""
    generator = np.random.default_rng(0)
    sources = [
        Source("photo", (3, 8, 8)),
        Source("scan", (3, 8, 8), likelihood="normal", value_range=(-1.0, 1.0)),
        Source("map", (1, 8, 8), likelihood="categorical", categories=3),
    ]
    images = {
        "photo": generator.random((10, 3, 8, 8)),
        "scan": 2 * generator.random((10, 3, 8, 8)) - 1,
        "map": generator.integers(0, 3, (10, 1, 8, 8), dtype=np.uint8),
    }
    rows = complete_rows(sources, images)
    rows.present["photo"][::2] = False
    rows.values["photo"][::2] = float("nan")
    assert sorted(rows.all().values["map"].unique().tolist()) == [0.0, 1.0, 2.0]
    data = DataSet("mixed", {"train": rows, "test": rows}, shared_content=True)
    run = api.train(data, "poe", out=tmp_path / "run", settings=SMALL)
    figures = api.evaluate(run, data=data)
    assert 0 < figures["sources"]["map"]["accuracy"] <= 1
    assert figures["sources"]["map"]["psnr"] is None
    assert "Fusion by weights" in api.report(run, data=data).read_text()


def test_own_modules_are_trained_saved_and_wanted_again(tmp_path: Path) -> None:
    data = own_data()
    pair = (nn.Sequential(nn.Flatten(), nn.Linear(64, 12)), nn.Sequential(nn.Linear(6, 64), nn.Unflatten(1, (1, 8, 8))))
    before = [parameter.clone() for parameter in pair[0].parameters()]
    run = api.train(data, out=tmp_path / "run", settings=SMALL, networks={"a": pair})
    trained = run.model.state_dict()
    figures = api.evaluate(run, data=data, networks={"a": pair})
    assert figures["sources"]["a"]["single_psnr"] is not None
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, trained[name])
    assert all(torch.equal(old, new) for old, new in zip(before, pair[0].parameters(), strict=True))
    with pytest.raises(CheckpointError, match="networks of the caller's own for: a"):
        open_run(tmp_path / "run")
    assert open_run(tmp_path / "run", networks={"a": pair}).model.source_names == ("a", "b")


def test_rows_that_cannot_be_trained_on_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    whole = own_data().split("train")
    numbers = torch.zeros(12, dtype=torch.long).index_fill(0, torch.tensor(7), -1)
    broken = {
        "has NaN or infinity in row 3": replace(
            whole, values={**whole.values, "a": poisoned_row(whole.values["a"], 3)}
        ),
        "row 2 has no source": replace(whole, present={n: torch.arange(12) != 2 for n in whole.present}),
        "a label for each of 12 rows, got 5": replace(whole, labels=torch.zeros(5, dtype=torch.long)),
        "expected labels >= 0, got -1 in row 7": replace(whole, labels=numbers),
        "equal numbers of images": replace(whole, values={**whole.values, "a": whole.values["a"][:4]}),
    }
    for message, rows in broken.items():
        with pytest.raises(DataError, match=message):
            api.train(own_data(splits={"train": rows, "test": whole}), out=tmp_path / "run", settings=SMALL)
    with pytest.raises(DataError, match="no split 'train'"):
        api.train(own_data(splits={"test": whole}), out=tmp_path / "run", settings=SMALL)
    assert not (tmp_path / "run").exists()


def poisoned_row(values: torch.Tensor, row: int) -> torch.Tensor:
    values = values.clone()
    values[row, 0, 0, 0] = float("nan")
    return values


@pytest.mark.parametrize("setting", [{"training.device": "cuda"}, {"training.precision": "fp16"}])
def test_what_the_machine_lacks_is_refused(tmp_path: Path, setting: dict[str, str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(ConfigError, match=r"cuda|CUDA"):
        train_run(config(**setting), tmp_path / "run")


def test_a_run_answers_where_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = api.train(own_data(), out=tmp_path / "run", settings=SMALL).folder.path
    monkeypatch.setenv("MSVAE_DEVICE", "cpu")
    assert open_run(folder).model.device.type == "cpu"
    monkeypatch.setenv("MSVAE_DEVICE", "gpu")
    with pytest.raises(ConfigError, match="MSVAE_DEVICE: Unknown device 'gpu'"):
        open_run(folder)
    assert open_run(folder, device="cpu").model.device.type == "cpu"
    with pytest.raises(ConfigError, match="Unknown device 'cuda:x'"):
        open_run(folder, device="cuda:x")
    with pytest.raises(ConfigError, match="no cuda:99 device"):
        open_run(folder, device="cuda:99")


def test_the_baseline_follows_a_run_that_was_trained_on(tmp_path: Path) -> None:
    data = own_data()
    run = api.train(data, out=tmp_path / "run", settings=SMALL)
    assert api.single_baseline(run, data=data).folder.state().step == 3
    stored = RunFolder(tmp_path / "run" / "single").config().model_copy(update={})
    changed = stored.model_copy(update={"training": stored.training.model_copy(update={"steps": 2})})
    content = RunFolder(tmp_path / "run" / "single").description()
    write_json(tmp_path / "run" / "single" / "config.json", {**content, "config": changed.model_dump(mode="json")})
    assert api.single_baseline(run, data=data).config.training.steps == 3


def test_a_non_finite_loss_stops_the_run_and_names_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(**{"training.steps": 40, "training.checkpoint_seconds": 0.0})
    calls = {"count": 0}
    honest = LIKELIHOODS["laplace"].log_prob

    def poisoned(raw: torch.Tensor, values: torch.Tensor, source: Source) -> torch.Tensor:
        calls["count"] += source.name == "yellow"
        score = honest(raw, values, source)
        return score * float("nan") if source.name == "yellow" and calls["count"] > 8 else score

    monkeypatch.setattr(LIKELIHOODS["laplace"], "log_prob", poisoned)
    with pytest.raises(NonFiniteError, match=r"source 'yellow' is not finite.*last good checkpoint is step-"):
        train_run(settings, tmp_path / "run")
    monkeypatch.undo()
    stored = open_run(tmp_path / "run")
    assert all(bool(torch.isfinite(p).all()) for p in stored.model.parameters())


def test_weights_that_ran_away_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="not finite"):
        train_run(config(**{"training.steps": 30, "training.learning_rate": 1e30}), tmp_path / "run")
    assert RunFolder(tmp_path / "run").checkpoints() == []


def test_an_existing_folder_is_not_touched(tiny_run: Run, tmp_path: Path) -> None:
    before = sha256(tiny_run.folder.latest() / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"already holds a run.*--resume"):
        train_run(config(**{"training.steps": 1}), tiny_run.folder.path)
    with pytest.raises(CheckpointError, match="already holds a run"):
        train_run(config(**{"training.steps": 1}), tiny_run.folder.path / "new" / "..")
    assert sha256(tiny_run.folder.latest() / "model.safetensors") == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        train_run(config(**{"training.steps": 1}), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture
def copied(tiny_run: Run, tmp_path: Path) -> RunFolder:
    shutil.copytree(tiny_run.folder.path, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


def test_damaged_weights_are_noticed(copied: RunFolder) -> None:
    file = copied.latest() / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        open_run(copied.path)
    file.write_bytes(bytes(content[:100]))
    with pytest.raises(CheckpointError, match="damaged"):
        open_run(copied.path)
    file.unlink()
    with pytest.raises(CheckpointError, match="lacks"):
        open_run(copied.path)


@pytest.mark.parametrize("name", ["config.json", "checkpoint.json"])
def test_damaged_or_newer_descriptions_are_noticed(copied: RunFolder, name: str) -> None:
    file = copied.path / name if name == "config.json" else copied.latest() / name
    content = json.loads(file.read_text())
    write_json(file, {**content, "format_version": 99})
    with pytest.raises(CheckpointError, match=r"version 99.*Upgrade"):
        open_run(copied.path)
    file.write_text(json.dumps(content)[:50])
    with pytest.raises(CheckpointError, match="damaged"):
        open_run(copied.path)


@pytest.mark.parametrize(("setting", "value"), [("method", "mopooe"), ("latent", -3)])
def test_settings_of_a_run_that_do_not_fit_name_its_file(copied: RunFolder, setting: str, value: object) -> None:
    content = json.loads((copied.path / "config.json").read_text())
    content["config"]["model"][setting] = value
    write_json(copied.path / "config.json", content)
    with pytest.raises(ConfigError, match=r"config\.json: .*" + str(value)):
        open_run(copied.path)
    shutil.rmtree(copied.path / "checkpoints")  # as if it was stopped before the first
    with pytest.raises(ConfigError, match=r"config\.json: .*" + str(value)):
        resume_run(copied.path)


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        open_run(tmp_path / "nothing")


def test_a_finished_run_is_opened_not_trained(tiny_run: Run) -> None:
    before = sha256(tiny_run.folder.latest() / "training.safetensors")
    assert isinstance(resume_run(tiny_run.folder.path), Run)
    assert sha256(tiny_run.folder.latest() / "training.safetensors") == before


def test_an_opened_run_answers_like_the_trained_one(tiny_run: Run) -> None:
    batch = tiny_run.data().split("test").batch(slice(0, 4))
    opened = open_run(tiny_run.folder.path)
    first, second = (run.model.sample(batch, mode="mean").values["blue"] for run in (tiny_run, opened))
    torch.testing.assert_close(first, second)
    one, two = (run.model.draw(5, torch.Generator().manual_seed(0)) for run in (tiny_run, opened))
    torch.testing.assert_close(one, two)


def test_the_users_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_run(config(**{"training.steps": 2}), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_batch_order_covers_an_epoch_once_and_depends_on_the_seed() -> None:
    order = BatchOrder(100, 16, seed=1)
    rows = torch.cat([order(step) for step in range(6)])
    assert len(rows.unique()) == 96
    assert not torch.equal(order(0), order(6))
    assert torch.equal(order(3), BatchOrder(100, 16, seed=1)(3))
    assert not torch.equal(order(3), BatchOrder(100, 16, seed=2)(3))
    assert len(BatchOrder(5, 16, seed=0)(0)) == 5


def test_learning_rate_warms_up_and_falls_to_one_percent() -> None:
    rates = [learning_rate(step, 1.0, 10, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert [learning_rate(s, 1.0, 10, None) for s in range(10)] == rates[:10]


def test_the_budget_meter_divides_what_is_left_by_the_mean_step() -> None:
    meter = BudgetMeter(100.0, count=20)
    answers = [meter.add(seconds) for seconds in [3.0] * 5 + [0.5] * 10 + [1.5] * 10]
    assert answers[:21] == [None] * 21
    assert answers[21] == 22 + int((100 - 30.5) / (15.5 / 17))  # 30 % of the budget ended the measuring
    patient = BudgetMeter(1000.0, step=7, spent=100.0, count=20)
    answers = [patient.add(2.0) for _ in range(25)]
    assert answers[:24] == [None] * 24
    assert answers[24] == 7 + 25 + int((1000 - 100 - 50) / 2)
    assert [BudgetMeter(1.0, least=least).add(1.1) for least in (0, 40)] == [1, 40]


def test_the_budget_meter_is_not_misled_by_what_allocates_or_came_before() -> None:
    slow_at_first = BudgetMeter(10.0, count=20)
    assert [slow_at_first.add(seconds) for seconds in [3.5] + [0.02] * 7][7] == 8 + int((10 - 3.64) / 0.02)
    after_coding = BudgetMeter(18.0, spent=6.0)
    assert [after_coding.add(0.05) for _ in range(8)] == [None] * 7 + [8 + int((18 - 6.4) / 0.05)]
    hardly_a_step = BudgetMeter(1.0)
    assert [hardly_a_step.add(0.9) for _ in range(2)] == [None, 2]


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derived_seed(s, p, n) for s in range(5) for p in ("order", "noise") for n in range(50)}
    assert len(seeds) == 500


def test_the_moving_average_is_one() -> None:
    trained = torch.nn.ModuleDict({"learns": torch.nn.Linear(1, 1), "rests": torch.nn.BatchNorm1d(1)})
    trained["rests"].requires_grad_(False)
    average, expected = RunningAverage(trained, 0.9), 0.0
    with torch.no_grad():
        for count in range(200):
            trained["learns"].weight.fill_(count)
            trained["rests"].running_mean.fill_(count)
            average.update()
            decay = min(0.9, (1 + count) / (10 + count)) if count else 0.0
            expected = decay * expected + (1 - decay) * count
    assert average.model["learns"].weight.item() == pytest.approx(expected, rel=1e-5)
    assert float(average.model["rests"].running_mean) == 199
    trained["rests"].requires_grad_(True)
    trained["learns"].requires_grad_(False)
    average.begin(0.0)
    with torch.no_grad():
        trained["rests"].weight.fill_(3.0)
        trained["learns"].weight.fill_(7.0)
        average.update()
    assert average.model["rests"].weight.item() == 3.0
    assert average.model["learns"].weight.item() == pytest.approx(expected, rel=1e-5)
