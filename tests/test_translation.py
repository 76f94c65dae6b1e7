"""The comparison of the flow with a U-Net of one direction: the rival learns, and the table says what was measured."""

import json
import sys
from pathlib import Path

import pytest
import torch

import msvae
from conftest import TINY_FLOW, TINY_TRAINING, let_pass
from msvae.config import DataConfig, TrainingConfig
from msvae.data import DataSet, load_data
from msvae.source import Source

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from translation import judging, last_stage, run, settings, unet
from translation.unet import Training


def test_the_unet_learns_a_direction_and_answers_with_its_best_average(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet, "VALIDATIONS", 3)
    sources = {source.name: source for source in digits.sources}
    config = TrainingConfig(batch_size=16, warmup_steps=5, precision="fp32")
    training = Training(sources["blue"], sources["yellow"], digits.split("train"), config)
    untrained = training._validation_loss(digits.split("validation"))
    best = training.best_of(24, digits.split("validation"))
    trained = training._validation_loss(digits.split("validation"))
    assert training.step == 24
    assert trained < 0.5 * untrained or trained < 0 < untrained
    rows = digits.split("validation").batch(torch.arange(64))
    with torch.no_grad():
        loss = float(best.loss(rows.values["blue"], rows.values["yellow"]))
    assert loss < 0.5 * untrained or loss < 0 < untrained
    assert best(rows.values["blue"]).shape == rows.values["yellow"].shape


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The embedded set as a scene, with plain features in place of ImageNet's, and steps that nobody has to measure."""

    def features(
        network: None, images: torch.Tensor, source: Source, wanted: tuple[int, ...]
    ) -> dict[int, torch.Tensor]:
        return {wanted[0]: torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)}

    monkeypatch.setattr(judging, "load_efficientnet", lambda: None)
    monkeypatch.setattr(judging, "pooled_features", features)
    let_pass(monkeypatch)
    tiny = {f"model.{key}": value for key, value in TINY_FLOW.items()}
    monkeypatch.setitem(settings.DIRECTIONS, "colours", ("blue", "yellow"))
    monkeypatch.setattr(run, "flow_settings", lambda data: {**tiny, **TINY_TRAINING})
    model = run.flow_config("colours", {"sources": 1}, 0, {}).model.model_dump(mode="json")
    stage = {"share": 1.0, "seconds_per_step": 1.0}
    stages = dict.fromkeys(("sources", "code", "converter", "renderer"), stage)
    entries = {
        "flow": {"stages": stages, "model": json.loads(json.dumps(model))},
        "unet blue->yellow": {"stages": {"training": stage}, "model": None},
    }
    (tmp_path / "steps.json").write_text(json.dumps({"format_version": 1, "entries": entries}))
    return tmp_path


def compared(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, object]:
    fixed = ["--data", "colours", "--budget", "8s", "--steps-from", str(folder / "steps.json")]
    places = ["--results", str(folder), "--runs", str(folder / "runs")]
    monkeypatch.setattr(sys, "argv", ["run.py", *fixed, *places, *words])
    run.main()
    return json.loads((folder / "translation-colours-8s.json").read_text())


def test_rows_are_kept_and_replaced_where_settings_differ(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compared(small, monkeypatch)
    assert [row["method"] for row in first["rows"]] == ["flow", "unet"]
    assert [row["steps"] for row in first["rows"]] == [8, 8]
    assert first["rows"][0]["stages"] == {"sources": 2, "code": 2, "converter": 2, "renderer": 2}
    for row in first["rows"]:
        assert 0 <= row["figures"]["pairwise"] <= 1
        assert row["figures"]["psnr"] > 0
    assert first["real"]["blue->yellow"]["rows"] == len(load_data(DataConfig()).split("test"))
    assert len(first["table"]) == 3
    assert all(len(line) == len(first["columns"]) for line in first["table"])
    again = compared(small, monkeypatch)
    assert again["rows"] == first["rows"]
    slower = ("--set", "training.learning_rate=0.001")
    with pytest.raises(SystemExit, match=r"'method': 'flow'.* of other settings"):
        compared(small, monkeypatch, "--methods", "flow", *slower)
    with pytest.raises(SystemExit, match="has unet of other images or training settings"):
        compared(small, monkeypatch, "--methods", "flow", "--again", *slower)
    assert compared(small, monkeypatch)["rows"] == first["rows"]
    other = compared(small, monkeypatch, "--again", *slower)
    assert [row["settings"]["training"]["learning_rate"] for row in other["rows"]] == [0.001, 0.001]
    with pytest.raises(SystemExit):
        compared(small, monkeypatch, "--methods", "unets")


def test_the_last_stage_alone_leaves_the_others_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_pass(monkeypatch)
    tiny = {f"model.{key}": value for key, value in TINY_FLOW.items()}
    scene = {"model.content": "scene", "model.aligned_width": 8, "model.grid": 2, "model.patch": 2}
    lengths = {"training.stage_steps": dict.fromkeys(("sources", "code", "converter", "renderer", "alignment"), 1)}
    trained = msvae.train(
        "colours",
        "flow",
        out=tmp_path / "run",
        settings={**tiny, **TINY_TRAINING, **scene, **lengths, "training.steps": 5},
    )
    data = trained.data()
    model, seconds = last_stage.with_last_stage(trained, data, 3, {"model.aligned_width": 16})
    before, after = trained.model.state_dict(), model.state_dict()
    kept = [name for name in before if not name.startswith("alignment.")]
    assert all(torch.equal(before[name], after[name]) for name in kept)
    head = "alignment.drawers.of_blue.head.weight"
    assert before[head].shape[1] == 8
    assert after[head].shape[1] == 16
    assert seconds > 0
    assert set(last_stage.others(model, data)) == {"blue", "yellow", "green"}
    with pytest.raises(SystemExit, match="change other stages"):
        last_stage.with_last_stage(trained, data, 1, {"model.code": 16})
