"""One source's VAE on its own: the same answers as the model, and as programs that need no msvae."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from conftest import Command, random_batch, tiny_model
from msvae import export
from msvae.errors import CheckpointError, ConfigError, SourceError
from msvae.models.alone import SingleVae, alone
from msvae.models.base import MultiSourceModel
from msvae.source import Source
from msvae.training.run import Run

DEPTH = Source("depth", (1, 12, 8), value_range=(-2.0, 5.0))
SOURCES = [Source("blue", (3, 8, 8)), DEPTH, Source("green", (3, 8, 8))]


@pytest.mark.parametrize("name", ["blue", "depth", "green"])
@pytest.mark.parametrize("method", ["poe", "single", "mmvae+", "flow"])
def test_a_source_alone_answers_as_the_model_does(method: str, name: str) -> None:
    settings = {} if method == "flow" else {"prior_expert": False}  # with it even one source is not all that is heard
    model = tiny_model(method, SOURCES, **settings).eval()
    batch = random_batch(model).select([name])
    vae = alone(model, name)
    mean, deviation = vae.encode(batch.values[name])
    assert mean.shape == deviation.shape == (5, vae.latent)
    assert bool((deviation > 0).all())
    rebuilt = model.sample(batch, [name], mode="mean").values[name]
    torch.testing.assert_close(vae.decode(mean), rebuilt)
    made = vae.generate(torch.randn(4, vae.noise))
    assert made.shape == (4, *batch.values[name].shape[1:])
    low, high = next(source for source in model.sources if source.name == name).value_range
    assert low <= float(made.min().detach()) < float(made.max().detach()) <= high


@pytest.mark.parametrize("method", ["poe", "mmvae+", "flow"])
def test_exported_programs_answer_as_the_model_does(method: str, tmp_path: Path) -> None:
    model = tiny_model(method, SOURCES).eval()
    folder = export(model, "blue", tmp_path / "new" / "vae")
    images = random_batch(model, rows=7).values["blue"]
    encoder, decoder, generator = (
        torch.export.load(folder / f"{part}.pt2").module() for part in ("encoder", "decoder", "generator")
    )
    vae = alone(model, "blue")
    with torch.no_grad():
        mean, deviation = encoder(images)
        torch.testing.assert_close((mean, deviation), vae.encode(images), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(decoder(mean), vae.decode(mean), atol=1e-5, rtol=1e-5)
        noise = torch.randn(1, vae.noise)
        torch.testing.assert_close(generator(noise), vae.generate(noise), atol=1e-5, rtol=1e-5)
    described = json.loads((folder / "vae.json").read_text())
    assert (described["source"]["name"], described["latent"], described["noise"]) == ("blue", vae.latent, vae.noise)
    assert sorted(path.name for path in tmp_path.joinpath("new").iterdir()) == ["vae"]
    with pytest.raises(ConfigError, match="exists"):
        export(model, "blue", folder)


def test_weights_of_other_sources_are_left_out(tmp_path: Path) -> None:
    model = tiny_model("poe", SOURCES).eval()
    sizes = {name: (export(model, name, tmp_path / name) / "decoder.pt2").stat().st_size for name in ("blue",)}
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    program = torch.export.load(tmp_path / "blue" / "decoder.pt2")
    kept = 4 * sum(value.numel() for value in program.state_dict.values())
    assert kept < whole / 2
    assert sizes["blue"] > kept


def test_bad_questions_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("poe", SOURCES).eval()
    with pytest.raises(SourceError, match="red"):
        export(model, "red", tmp_path / "vae")
    attentive = tiny_model("poe", SOURCES, fusion="attention").eval()
    with pytest.raises(SourceError, match="nothing of one source alone"):
        export(attentive, "blue", tmp_path / "vae")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(CheckpointError, match="No space left"):
        export(model, "blue", tmp_path / "vae")
    assert not list(tmp_path.iterdir())


def test_a_program_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Restless(SingleVae):
        """Adds a number that the next call no longer has."""

        calls: ClassVar[list[int]] = []

        def __init__(self, model: MultiSourceModel) -> None:
            super().__init__(4, 4)
            self.scale = torch.nn.Parameter(torch.ones(()))

        def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.calls.append(1)
            return images.flatten(1)[:, :4] * self.scale + len(self.calls), images.flatten(1)[:, :4]

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return latents

        def generate(self, noise: torch.Tensor) -> torch.Tensor:
            return noise

    model = tiny_model("poe", SOURCES).eval()
    monkeypatch.setattr("msvae.exporting.alone", lambda *_: Restless(model))
    with pytest.raises(CheckpointError, match="differs from the model"):
        export(model, "blue", tmp_path / "vae")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_folder(tiny_run: Run, msvae: Command, tmp_path: Path) -> None:
    answer = msvae("export", tiny_run.folder.path, "--source", "green", "-o", tmp_path / "vae", "--json")
    assert json.loads(answer.stdout)["files"] == ["decoder.pt2", "encoder.pt2", "generator.pt2", "vae.json"]
    wrong = msvae("export", tiny_run.folder.path, "--source", "grean", "-o", tmp_path / "other", code=2)
    assert "green" in wrong.stderr
