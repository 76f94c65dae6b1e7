"""Shapes and types of every annotated function are checked while the tests run (jaxtyping and beartype)."""

from jaxtyping import install_import_hook

install_import_hook("msvae", "beartype.beartype")

import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

from msvae.config import FlowConfig, ModelConfig, RunConfig, parse  # noqa: E402
from msvae.data import DataSet  # noqa: E402
from msvae.data.sets import colours  # noqa: E402
from msvae.models import MultiSourceModel, build_model, with_method  # noqa: E402
from msvae.source import Source, SourceBatch  # noqa: E402
from msvae.training import gates  # noqa: E402
from msvae.training.gates import Gate  # noqa: E402
from msvae.training.run import Run, train_run  # noqa: E402

TINY = {"latent": 6, "width": 4, "sampler_components": 3}
TINY_FLOW = {
    "channels": 2, "side": 4, "width": 4, "refine": 0, "code": 6, "content_width": 4,
    "converter_width": 16, "converter_depth": 1, "renderer_width": 16, "renderer_depth": 1, "heads": 2,
    "code_steps": 3, "image_steps": 3,
}  # fmt: skip
TINY_TRAINING = {"training.batch_size": 16, "training.precision": "fp32", "training.warmup_steps": 5}


@pytest.fixture(scope="session", autouse=True)
def _one_thread_from_the_first_fixture_on() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_in_every_test() -> None:
    """Also after a test that asked for more: a run and its resumption agree bit for bit on equal threads alone."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> DataSet:
    """The embedded set, each training digit drawn once."""
    return colours.build(variants=1)


def tiny_model(method: str = "mopoe", sources: Sequence[Source] | None = None, **settings: object) -> MultiSourceModel:
    """A small model with fixed weights."""
    sources = sources or [Source("blue", (3, 8, 8)), Source("grey", (1, 12, 8)), Source("green", (3, 8, 8))]
    torch.manual_seed(0)
    if method == "flow":
        return build_model(sources, parse(FlowConfig, {**TINY_FLOW, **settings}))
    config = parse(ModelConfig, with_method(None, {**TINY, "method": method, **settings}))
    return build_model(sources, config)


def tiny_settings(method: str = "mopoe") -> dict[str, object]:
    """The model settings of small runs, by dotted names."""
    return {f"model.{key}": value for key, value in (TINY_FLOW if method == "flow" else TINY).items()}


def random_batch(model: MultiSourceModel, rows: int = 5, seed: int = 0) -> SourceBatch:
    """A complete batch of noise within the sources' value ranges."""
    generator = torch.Generator().manual_seed(seed)
    values = {s.name: s.denormalise(torch.rand(rows, *s.shape, generator=generator)) for s in model.sources}
    whole = {s.name: values[s.name].round() for s in model.sources if s.categories}
    return SourceBatch.complete(values | whole)


def lacking(batch: SourceBatch, absent: dict[str, list[int]], filler: float = float("nan")) -> SourceBatch:
    """The batch with some sources absent from some rows, and garbage where they were."""
    values = {name: tensor.clone() for name, tensor in batch.values.items()}
    present = {name: tensor.clone() for name, tensor in batch.present.items()}
    for name, rows in absent.items():
        values[name][rows] = filler
        present[name][rows] = False
    return SourceBatch(values, present)


def let_pass(patch: pytest.MonkeyPatch) -> None:
    """Networks this small pass no gate."""
    for name in list(gates.GATES):
        patch.setitem(gates.GATES, name, lambda model, rows: Gate({"seen": float(len(rows))}))


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> None:
    let_pass(monkeypatch)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the embedded set, trained for a few steps."""
    from msvae import api

    settings = {f"model.{key}": value for key, value in TINY.items()} | TINY_TRAINING
    config: RunConfig = api.run_config(
        "colours", "mopoe", settings={**settings, "data.options.variants": 1, "training.steps": 40}
    )
    return train_run(config, tmp_path_factory.mktemp("runs") / "tiny")


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def msvae(tmp_path: Path) -> Command:
    """Runs the real command in an empty folder."""

    def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", "from msvae.cli.main import main; main()", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"},
            check=False,
        )
        assert done.returncode == code, done.stderr[-3000:]
        return done

    return run
