"""Whether models on another device than the CPU ever mix the two: on a device that is not there."""

import pytest
import torch

import msvae
import msvae.api  # everything, before `torch.Generator` is another one
from conftest import lacking, random_batch, tiny_model
from elsewhere import ELSEWHERE, elsewhere, moved
from msvae.data import complete_rows
from msvae.models import METHODS
from msvae.source import Source, SourceBatch
from msvae.training import gates

METHODS_LOOKED_AT = ("poe", "mopoe", "mvtcae", "jmvae", "mmvae+", "cmvae", "codevae", "helvae", "mld", "flow")


def test_two_devices_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in itself."""
    layer = moved(torch.nn.Linear(3, 2))
    with elsewhere(monkeypatch):
        there = torch.randn(4, 3, device=ELSEWHERE, generator=torch.Generator(ELSEWHERE))
        assert layer(there).device == ELSEWHERE
        assert layer(there).to("cpu").detach().numpy().shape == (4, 2)
        with pytest.raises(RuntimeError, match="two devices"):
            layer(torch.randn(4, 3))
        with pytest.raises(RuntimeError, match="generator of the CPU"):
            torch.randn(4, 3, device=ELSEWHERE, generator=torch.Generator())


@pytest.mark.parametrize("method", METHODS_LOOKED_AT)
def test_losses_and_answers_stay_on_the_model_s_device(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"prior_components": 3} if method == "cmvae" else {}
    alike = [Source(name, (3, 8, 8)) for name in ("blue", "grey", "green")] if method == "flow" else None
    model = tiny_model(method, alike, **settings)
    batch = random_batch(model, rows=4)
    if METHODS[method].partial_rows:
        batch = lacking(batch, {"blue": [0], "grey": [1, 2]})
    first, second = model.source_names[:2]
    complete = random_batch(model, rows=2)
    model = moved(model)
    with elsewhere(monkeypatch):
        loss = model.train().loss(batch.to(ELSEWHERE), torch.Generator(ELSEWHERE)).total
        assert loss.device == ELSEWHERE
        model.eval()
        answers = [
            msvae.convert(model, batch.select([first]), n=2, mode="sample"),
            msvae.reconstruct(model, complete),
            msvae.impute(model, batch, n=2).images,
            msvae.generate(model, 3),
            msvae.interpolate(model, complete.rows(slice(0, 1)), complete.rows(slice(1, 2)), 3),
            *(msvae.fuse(model, complete, {first: 1.0, second: 0.5}, by=rule) for rule in model.latent_rules),
        ]
        for answer in answers:
            assert all(images.device.type == "cpu" for images in answer.values())
        pooled = msvae.features(model, complete).pooled
        assert pooled.device.type == "cpu"
        assert isinstance(model.decode(pooled), SourceBatch)  # a code from the CPU
        double = SourceBatch({name: images.double() for name, images in complete.values.items()}, complete.present)
        msvae.reconstruct(model, double)
        if method != "mld":
            assert msvae.likelihood(model, complete, 2).device.type == "cpu"


def test_gates_ask_on_the_model_s_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("flow", [Source(name, (3, 8, 8)) for name in ("blue", "green")]).eval()
    images = {name: values.numpy() for name, values in random_batch(model, rows=6).values.items()}
    rows = complete_rows(model.sources, images)
    model = moved(model)
    with elsewhere(monkeypatch):
        for gate in (gates.reconstruction, gates.code, gates.converter, gates.samples):
            assert gate(model, rows).figures
