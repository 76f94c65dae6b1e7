"""One source's VAE on its own: the same answers as the model, and as programs that need no msvae."""

import copy
import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from conftest import Command, random_batch, tiny_model
from msvae import export
from msvae.errors import CheckpointError, ConfigError, SourceError
from msvae.models import METHODS, JointVAE
from msvae.models.alone import SingleVae, alone
from msvae.models.base import MultiSourceModel
from msvae.source import Source
from msvae.training.opening import Run

DEPTH = Source("depth", (1, 12, 8), value_range=(-2.0, 5.0))
KIND = Source("kind", (1, 8, 8), "categorical", categories=3, value_range=(0.0, 2.0))
SOURCES = [Source("blue", (3, 8, 8)), DEPTH, Source("green", (3, 8, 8)), KIND]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("jnf", "flow", "mld")])
def test_a_source_alone_has_the_models_posterior_of_it(method: str) -> None:
    model = tiny_model(method, SOURCES).eval()
    for index, name in enumerate(model.source_names):
        batch = random_batch(model).select([name])
        vae = alone(model, name)
        mean, deviation = vae.encode(batch.values[name])
        posterior = model.encode(batch)
        assert isinstance(model, JointVAE)
        shared, private = posterior.mean[:, : model.shared_length], posterior.mean[:, model.shared_length :]
        own = [model.fusion.code_of(shared, index), private.unflatten(1, (len(SOURCES), -1))[:, index]]
        torch.testing.assert_close(mean, torch.cat(own, dim=1))
        assert bool((deviation > 0).all())
        torch.testing.assert_close(vae.decode(mean), model.decode(posterior.mean, [name]).values[name])


@pytest.mark.parametrize("name", ["blue", "depth", "green", "kind"])
def test_a_source_of_the_flow_alone_answers_as_the_model_does(name: str) -> None:
    model = tiny_model("flow", SOURCES).eval()
    batch = random_batch(model).select([name])
    vae = alone(model, name)
    mean, deviation = vae.encode(batch.values[name])
    assert mean.shape == deviation.shape == (5, vae.latent)
    torch.testing.assert_close(vae.decode(mean), model.sample(batch, [name]).values[name])
    made = vae.generate(torch.randn(4, vae.noise)).detach()
    assert made.shape == (4, *batch.values[name].shape[1:])
    assert not torch.equal(made[0], made[1]) or name == "kind"


@pytest.mark.parametrize(("method", "name"), [("poe", "blue"), ("mmvae+", "depth"), ("flow", "blue"), ("flow", "kind")])
def test_exported_programs_answer_as_the_model_does(method: str, name: str, tmp_path: Path) -> None:
    model = tiny_model(method, SOURCES).train()  # and stays so
    folder = export(model, name, tmp_path / "new" / "vae")
    images = random_batch(model, rows=7).values[name]
    encoder, decoder, generator = (
        torch.export.load(folder / f"{part}.pt2").module() for part in ("encoder", "decoder", "generator")
    )
    vae = alone(copy.deepcopy(model).eval(), name)
    with torch.no_grad():
        mean, deviation = encoder(images)
        torch.testing.assert_close((mean, deviation), vae.encode(images), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(decoder(mean), vae.decode(mean), atol=1e-5, rtol=1e-5)
        noise = torch.randn(1, vae.noise)
        torch.testing.assert_close(generator(noise), vae.generate(noise), atol=1e-5, rtol=1e-5)
    described = json.loads((folder / "vae.json").read_text())
    assert (described["source"]["name"], described["latent"], described["noise"]) == (name, vae.latent, vae.noise)
    assert sorted(path.name for path in tmp_path.joinpath("new").iterdir()) == ["vae"]
    assert model.training
    with pytest.raises(ConfigError, match="exists"):
        export(model, name, folder)


def test_weights_of_other_sources_are_left_out(tmp_path: Path) -> None:
    model = tiny_model("poe", SOURCES).eval()
    program = torch.export.load(export(model, "blue", tmp_path / "vae") / "decoder.pt2")
    kept = sum(value.numel() for value in program.state_dict.values())
    assert kept < sum(parameter.numel() for parameter in model.parameters()) / 2


def test_bad_questions_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("poe", SOURCES).eval()
    with pytest.raises(SourceError, match="red"):
        export(model, "red", tmp_path / "vae")
    attentive = tiny_model("poe", SOURCES, fusion="attention").eval()
    with pytest.raises(SourceError, match="nothing of one source alone"):
        export(attentive, "blue", tmp_path / "vae")

    unguided = tiny_model("flow", SOURCES, dropped=0.0).eval()
    with pytest.raises(SourceError, match="without a shared code"):
        export(unguided, "blue", tmp_path / "vae")

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
