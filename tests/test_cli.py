"""The real commands, each in a process of its own."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import TINY, TINY_TRAINING, Command
from msvae.training.opening import Run

SETTINGS = [
    word
    for key, value in (
        {f"model.{k}": v for k, v in TINY.items()} | TINY_TRAINING | {"data.options.variants": 1}
    ).items()
    for word in ("--set", f"{key}={value}")
]


def test_help_and_version(msvae: Command) -> None:
    text = msvae("--help").stdout
    questions = ("reconstruct", "convert", "fuse", "interpolate", "generate", "impute", "features", "likelihood")
    for name in ("train", "evaluate", "report", "demo", *questions):
        assert name in text
        assert "Example" in msvae(name, "--help").stdout
    assert msvae("--version").stdout.startswith("msvae ")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, msvae.cli.main; print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_train_evaluate_report(msvae: Command, tmp_path: Path) -> None:
    answer = json.loads(msvae("train", "colours", "--steps", 15, "-o", "run", *SETTINGS, "--json").stdout)
    assert answer["steps"] == 15
    figures = json.loads(msvae("evaluate", "run", "--json").stdout)
    assert figures == json.loads((tmp_path / "run" / "metrics.json").read_text())
    named = {
        "sources",
        "conditional_coherence",
        "joint_coherence",
        "conversion",
        "probe",
        "ceilings",
        "seconds",
        "seed",
    }
    assert named <= set(figures)
    assert set(figures["sources"]["blue"]) >= {"psnr", "ssim", "single_psnr", "single_ssim"}
    assert figures["sources"]["blue"]["single_psnr"] > 0
    assert set(figures["conditional_coherence"]) == {"1", "2"}
    msvae("report", "run")
    html = (tmp_path / "run" / "report.html").read_text()
    for heading in (
        "The data",
        "Losses",
        "Tests",
        "Reconstruction",
        "Fusion by weights",
        "Generated rows",
        "Imputation",
    ):
        assert f"<h2>{heading}</h2>" in html
    assert "http" not in html.replace("http://www.w3.org", "")  # nothing is loaded from anywhere
    table = msvae("evaluate", "run", "--no-baseline").stdout
    assert "Reconstruction of test rows" in table


def test_single_sources_train_alone(msvae: Command, tmp_path: Path) -> None:
    msvae("train", "colours", "--method", "single", "--sources", "green", "--steps", 5, "-o", "green", *SETTINGS)
    msvae("reconstruct", "green", "--given", "green", "--rows", "0:2", "-o", "out")
    assert {path.name for path in (tmp_path / "out" / "green").iterdir()} == {"00000.png", "00001.png"}


@pytest.fixture
def run(tiny_run: Run) -> Path:
    return tiny_run.folder.path


def test_convert_takes_single_files_and_folders(msvae: Command, run: Path, tmp_path: Path) -> None:
    msvae("reconstruct", run, "--given", "blue", "--rows", "0:3", "-o", "first")
    done = msvae("convert", run, "--given", "blue=first/blue/00001.png", "--to", "green", "-o", "one", "--json")
    assert json.loads(done.stdout)["files"] == ["one/green/00001.png"]
    with Image.open(tmp_path / "one" / "green" / "00001.png") as image:
        assert image.size == (32, 32)
    msvae("convert", run, "--given", "blue=first/blue", "-n", 2, "--mode", "sample", "-o", "many")
    assert len(list((tmp_path / "many" / "yellow").iterdir())) == 6
    assert (tmp_path / "many" / "grid.png").exists()


def test_fuse_interpolate_generate_impute_features(msvae: Command, run: Path, tmp_path: Path) -> None:
    msvae("fuse", run, "-g", "blue", "-g", "green", "-w", "blue=0.7", "-w", "green=0.3", "--to", "yellow", "-o", "a")
    assert len(list((tmp_path / "a" / "yellow").iterdir())) == 8
    msvae("fuse", run, "-g", "blue", "-g", "green", "--by", "pyramid", "--rows", "2:4", "-o", "b")
    assert len(list((tmp_path / "b" / "fused").iterdir())) == 2
    msvae("interpolate", run, "-g", "blue", "--rows", "1:3", "--steps", 4, "--mode", "sample", "--seed", 1, "-o", "c")
    assert len(list((tmp_path / "c" / "green").iterdir())) == 4
    msvae("interpolate", run, "-g", "blue", "-g", "green", "--between", "blue,green", "--rows", 1, "-o", "d")
    assert len(list((tmp_path / "d" / "green").iterdir())) == 9
    msvae("generate", run, "--n", 5, "--seed", 3, "-o", "e")
    assert len(list((tmp_path / "e" / "blue").iterdir())) == 5
    (tmp_path / "e" / "blue" / "00002.png").unlink()
    answer = json.loads(msvae("impute", run, "-g", "blue=e/blue", "-g", "green=e/green", "-o", "f", "--json").stdout)
    assert answer["filled"]["blue"] == ["00002"]
    assert answer["filled"]["green"] == []
    msvae("features", run, "-g", "blue", "-g", "green", "-o", "g/features.npz", "--rows", "0:6")
    told = json.loads(msvae("likelihood", run, "-g", "blue", "-k", "5", "--rows", "0:4", "--json").stdout)
    assert len(told["nats"]) == 4
    with np.load(tmp_path / "g" / "features.npz") as arrays:
        assert arrays["pooled"].shape == (6, 6)
        assert arrays["maps_blue"].shape[0] == 6


def test_answers_do_not_replace_what_is_given_and_the_spread_of_imputed_rows_is_kept(
    msvae: Command, run: Path, tmp_path: Path
) -> None:
    msvae("generate", run, "--n", 3, "-o", "e")
    given = ("-g", "blue=e/blue", "-g", "green=e/green")
    before = sorted((tmp_path / "e" / "blue").iterdir())[0].read_bytes()
    refused = msvae("impute", run, *given, "-o", "e", code=2)
    assert "answers would replace the given images of e/blue" in " ".join(refused.stderr.split())
    assert sorted((tmp_path / "e" / "blue").iterdir())[0].read_bytes() == before
    (tmp_path / "e" / "mine.png").write_bytes(before)
    refused = msvae("convert", run, "-g", "blue=e/mine.png", "-o", "e", code=2)  # its grid.png lies among them
    assert "answers would replace the given images" in " ".join(refused.stderr.split())
    msvae("convert", run, *given, "-o", "e")  # yellow alone
    answer = json.loads(msvae("impute", run, *given, "-o", "f", "-n", 3, "--json").stdout)
    spread = np.load(tmp_path / answer["spread"])
    assert spread["yellow"].std() > 0
    assert not spread["blue"].any()
    found = json.loads(msvae("data", "check", "f", "--json").stdout)
    assert set(found["sources"]) == {"blue", "yellow", "green"}  # the images, not their spread


def test_catalogue(msvae: Command, tmp_path: Path) -> None:
    assert "mopoe" in json.loads(msvae("methods", "--json").stdout)
    assert "barycenter" in msvae("methods").stdout
    assert json.loads(msvae("settings", "mmvae+", "--json").stdout)["model.private"]["value"] == 32
    assert "training.augment.rotate" in msvae("settings", "flow").stdout
    assert "Did you mean 'flow'" in msvae("settings", "flwo", code=2).stderr
    assert json.loads(msvae("data", "list", "--json").stdout)["data"][0] == "colours"
    assert json.loads(msvae("data", "info", "colours", "--json").stdout)["rows"]["test"] == 359
    msvae("data", "preview", "colours", "-o", "grid.png", "--set", "variants=1", "--set", "pairing=class")
    assert (tmp_path / "grid.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "colors"], "Did you mean 'colours'"),
        (["train", "--method", "mopo"], "Did you mean 'mopoe'"),
        (["train", "--set", "training.batchsize=3"], "Did you mean 'training.batch_size'"),
        (["train", "--set", "nonsense"], "expected KEY=VALUE"),
        (["train", "--budget", "soon"], "such as 90s"),
        (["train", "--sources", "blue,gren"], "Did you mean 'green'"),
        (["train", "--config", "none.yaml"], "none.yaml"),
        (["train", "--resume", "none"], "holds no run"),
        (["evaluate", "none"], "holds no run"),
        (["convert", "RUN", "--given", "bleu"], "Did you mean 'blue'"),
        (["convert", "RUN", "--given", "blue", "--to", "gren"], "Did you mean 'green'"),
        (["convert", "RUN", "--given", "blue=none.png"], "no file or folder none.png"),
        (["convert", "RUN", "--given", "blue", "--given", "blue"], "given twice"),
        (["convert", "RUN", "--given", "blue", "--rows", "5:500"], "between 0 and 359"),
        (["convert", "RUN", "--given", "blue", "--rows", "a:b"], "such as 0:16"),
        (["convert", "RUN", "--given", "blue", "--rows", ":0"], "between 0 and 359"),
        (["convert", "RUN", "--given", "blue", "--mode", "means"], "Did you mean 'mean'"),
        (["fuse", "RUN", "-g", "blue", "-w", "blue=heavy"], "such as blue=0.7"),
        (["fuse", "RUN", "-g", "blue", "-w", "green=1"], "no image of it is given"),
        (["fuse", "RUN", "-g", "blue", "--by", "magic"], "Unknown fusion rule"),
        (["interpolate", "RUN", "-g", "blue", "--rows", "0:3"], "needs two of them; 3 are given"),
        (["generate", "RUN", "--n", "0"], "n >= 1"),
        (["generate", "RUN", "--set", "model.guidance=1.2"], "draws in one way"),
        (["train", "--resume", "RUN", "--steps", "9"], "takes no others"),
        (["interpolate", "RUN", "-g", "blue", "-g", "green", "--between", "blue,green", "--by", "mean"], "latent rule"),
        (
            ["interpolate", "RUN", "-g", "blue", "--between", "blue,green", "--rows", "1"],
            "Unknown given source 'green'",
        ),
        (["convert", "RUN", "--given", "blue="], "expected a path"),
        (["train", "-o", "RUN/config.json/x", "--steps", "1"], "Cannot write"),
        (["data", "info", "colors"], "Did you mean 'colours'"),
        (["data", "preview", "colours", "--split", "tset"], "Did you mean 'test'"),
    ],
)
def test_bad_input_is_one_clear_paragraph(msvae: Command, run: Path, words: list[str], message: str) -> None:
    done = msvae(*[word.replace("RUN", str(run)) for word in words], code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_an_existing_run_is_kept(msvae: Command, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "mine")
    assert "already holds a run" in msvae("train", "-o", "mine", "--steps", 1, code=2).stderr
    assert "nothing to resume" in msvae("train", "--resume", "mine").stderr


def test_ctrl_c_saves_and_resume_goes_on(msvae: Command, tmp_path: Path) -> None:
    words = ["train", "colours", "--steps", "300", "-o", str(tmp_path / "run"), *SETTINGS]
    command = [sys.executable, "-m", "msvae", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    answer = json.loads(msvae("train", "--resume", "run", "--json").stdout)
    assert answer["steps"] == 300


def test_the_demo_runs_the_whole_way(msvae: Command, tmp_path: Path) -> None:
    done = msvae("demo", "--budget", "2s", "-o", "demo", "--json")
    answer = json.loads(done.stdout)
    assert answer["report"] == "demo/report.html"
    assert "Beside it: flow" in (tmp_path / "demo" / "report.html").read_text()
    assert (tmp_path / "demo" / "report.html").stat().st_size > 500_000
