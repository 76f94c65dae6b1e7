"""Samples say their codes as real images do: by guidance, and what says it worse is drawn again, nothing else."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conftest import random_batch, tiny_model
from msvae.flow.agreement import FEW, MOST_GUIDANCE, QUARTILE, Agreement, agreement, enough_guidance
from msvae.models import SharedFlow
from msvae.source import Source, SourceBatch

SOURCES = [Source("a", (1, 8, 8)), Source("b", (2, 9, 8)), Source("c", (1, 8, 8))]


@pytest.fixture
def model() -> SharedFlow:
    torch.manual_seed(0)
    model = tiny_model("flow", SOURCES).eval()
    assert isinstance(model, SharedFlow)
    return model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_least_agreement_is_a_quantile_of_the_measured() -> None:
    judge = Agreement(["a", "b"])
    measured = torch.rand(1001, generator=generator())
    judge.measure("a", measured)
    assert float(judge.least("a", 0.25)) == pytest.approx(float(measured.quantile(0.25)))
    assert float((measured < judge.least("a", 0.25)).double().mean()) == pytest.approx(0.25, abs=0.001)
    judge.measure("b", measured[:0])
    assert float(judge.least("b", 0.99)) == -1.0  # nothing measured: nothing is doubted


def test_agreement_is_a_cosine_over_all_slots() -> None:
    tokens = torch.randn(5, 4, 3, generator=generator())
    assert torch.allclose(agreement(tokens, 2 * tokens), torch.ones(5))
    assert torch.allclose(agreement(tokens, -tokens), -torch.ones(5))


@pytest.mark.parametrize("crossing", [1.2, 2.25, 3.5])
def test_enough_guidance_is_where_a_quarter_of_the_samples_are_under_the_quartile(crossing: float) -> None:
    assert enough_guidance(lambda guidance: QUARTILE + 0.1 * (crossing - guidance), QUARTILE) == pytest.approx(
        crossing, rel=0.025
    )


def test_more_guidance_is_asked_where_fewer_bad_samples_are_allowed() -> None:
    found = [enough_guidance(lambda guidance: 0.5 / guidance**2, allowed) for allowed in (QUARTILE, FEW)]
    assert found == pytest.approx([math.sqrt(0.5 / QUARTILE), math.sqrt(0.5 / FEW)], rel=0.025)


def test_redraws_spare_guidance_and_leave_no_state(model: SharedFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws that are bad with probability .6 / guidance whatever the code: four of them are rarely all bad."""
    asked: list[float | None] = []

    def rendered(self: SharedFlow, name: str, code: Tensor, noise: Tensor, guidance: float | None = None) -> Tensor:
        asked.append(guidance)
        good = torch.rand(len(code), generator=torch.Generator().manual_seed(len(asked))) > 0.6 / (guidance or 1.0)
        return good.float()[:, None].expand_as(noise)

    monkeypatch.setattr(SharedFlow, "_rendered", rendered)
    monkeypatch.setattr(SharedFlow, "_agreement", lambda self, name, latents, code: latents[:, 0])
    for name in model.source_names:
        model.agreement.measure(name, torch.ones(10))
    measured = {}
    for redraws in (0, 3):
        model.sampling = chosen = replace(model.sampling, guidance=2.7, redraws=redraws, doubted=0.25)
        model._measure_guidance()
        measured[redraws] = float(model.measured_guidance)
        assert model.sampling == chosen
    assert measured[0] == pytest.approx(0.6 / QUARTILE, rel=0.05)
    assert measured[3] == pytest.approx(0.6 / FEW**0.25, rel=0.05)
    assert 2.7 not in asked


def test_guidance_stays_within_its_bounds() -> None:
    assert enough_guidance(lambda _: 0.1, QUARTILE) == 1.0  # exactly: then nothing is evaluated twice
    assert enough_guidance(lambda guidance: 5 - guidance, QUARTILE) == pytest.approx(MOST_GUIDANCE, rel=0.1)


def test_where_no_guidance_is_enough_none_is_taken_that_does_not_help() -> None:
    assert enough_guidance(lambda _: 0.9, QUARTILE) == 1.0
    assert enough_guidance(lambda guidance: 0.8 + 0.01 * guidance, QUARTILE) == 1.0
    best_at_two = enough_guidance(lambda guidance: 0.8 + 0.1 * abs(math.log(guidance / 2)), QUARTILE)
    assert best_at_two == pytest.approx(2.0)


def test_guidance_is_found_between_too_little_and_harm() -> None:
    found = enough_guidance(lambda guidance: 0.05 + 0.5 * abs(math.log(guidance / 2)), QUARTILE)
    assert 0.05 + 0.5 * abs(math.log(found / 2)) <= QUARTILE
    assert found < 2


@pytest.mark.parametrize(("standard", "expected"), [(2.5, 2.5), (-2.0, 1.0), (9.0, 1.0)])
def test_guidance_is_measured_against_real_images_unless_one_is_chosen(
    model: SharedFlow, monkeypatch: pytest.MonkeyPatch, standard: float, expected: float
) -> None:
    """Draws that agree with their codes as much as they are guided, or, with a standard out of reach, never enough."""

    def rendered(self: SharedFlow, name: str, code: Tensor, noise: Tensor, guidance: float | None = None) -> Tensor:
        return torch.full_like(noise, self.guidance if guidance is None else guidance)

    monkeypatch.setattr(SharedFlow, "_rendered", rendered)
    monkeypatch.setattr(SharedFlow, "_agreement", lambda self, name, latents, code: latents[:, 0])
    for name in model.source_names:
        model.agreement.measure(name, torch.full((10,), standard))
    assert model.guidance == 1.0
    model._measure_guidance()
    assert model.guidance == pytest.approx(expected, rel=0.025)
    model.sampling = replace(model.sampling, guidance=3.0)
    assert model.guidance == 3.0


def said(model: SharedFlow, name: str, images: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    tokens = model.content.evidence(SourceBatch.complete({name: images})).tokens[model.source_names.index(name)]
    return agreement(tokens, model.standard.restore(code).unflatten(1, tokens.shape[1:]))


@torch.no_grad()
def test_doubtful_draws_are_drawn_again_and_no_other(model: SharedFlow) -> None:
    """With the first draws' median as the standard: those above are the same bits, those below only get better."""
    code = torch.randn(64, 6, generator=generator())
    model.sampling = replace(model.sampling, redraws=0, precision="fp32")
    first = model.decode(code, ["b"], "sample", generator(1)).values["b"]
    before = said(model, "b", first, code)
    model.agreement.measure("b", before)
    for redraws in (1, 20):
        model.sampling = replace(model.sampling, redraws=redraws, doubted=0.5)
        drawn = model.decode(code, ["b"], "sample", generator(1)).values["b"]
        after = said(model, "b", drawn, code)
        kept = before >= model.agreement.least("b", 0.5) + 1e-5
        assert torch.equal(drawn[kept], first[kept])
        assert bool((after >= before - 1e-5).all())
        assert float(after.mean()) > float(before.mean()) + 1e-5
    model.sampling = replace(model.sampling, doubted=0.0)
    assert torch.equal(model.decode(code, ["b"], "sample", generator(1)).values["b"], first)


@torch.no_grad()
def test_redrawn_latents_are_those_of_the_returned_noise(model: SharedFlow) -> None:
    model.agreement.measure("a", torch.full((10,), 2.0))  # nothing ever agrees enough
    code = torch.randn(40, 6, generator=generator())
    latents, noise = model._answered("a", code, "sample", generator(1))
    assert noise is not None
    torch.testing.assert_close(model._rendered("a", code, noise), latents, atol=1e-2, rtol=1e-2)
    assert not torch.equal(noise, torch.randn(noise.shape, generator=generator(1)))


def test_the_measure_is_of_pairs_within_rows_and_leaves_what_it_cannot_know(model: SharedFlow) -> None:
    rows = random_batch(model, 30)
    present = {
        "a": torch.ones(30, dtype=torch.bool),
        "b": torch.arange(30) < 20,
        "c": torch.zeros(30, dtype=torch.bool),
    }
    batch = SourceBatch(rows.values, present)
    with torch.no_grad():
        evidence = model.content.evidence(batch)
    model._measure_agreement(evidence)
    pairs = agreement(evidence.tokens[0, :20], evidence.tokens[1, :20])
    for name in ("a", "b"):
        assert float(model.agreement.least(name, 0.0)) == pytest.approx(float(pairs.min()), abs=1e-5)
        assert float(model.agreement.least(name, 0.99)) == pytest.approx(float(pairs.max()), abs=1e-5)
    assert float(model.agreement.least("c", 0.99)) == -1.0
