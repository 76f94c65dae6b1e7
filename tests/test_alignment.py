"""Sources that show one scene pixel by pixel: what is given stays where it is, and the code says the rest."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import msvae
from conftest import TINY_TRAINING, let_pass, random_batch, tiny_model, tiny_settings
from msvae import api
from msvae.config import FlowConfig, parse
from msvae.data import DataSet, Rows, complete_rows
from msvae.errors import ConfigError
from msvae.flow.alignment import Alignment
from msvae.flow.favoured import favour
from msvae.models import AlignedFlow
from msvae.networks.pairs import network_input
from msvae.source import Source, SourceBatch
from msvae.training import gates
from msvae.training.opening import open_run

NAMES = ("a", "b", "c")
ALIGNED = {"aligned": True, "aligned_width": 8, "grid": 2, "patch": 2}


def aligned(sources: list[Source] | None = None) -> AlignedFlow:
    model = tiny_model("flow", sources or [Source(name, (3, 9, 8)) for name in NAMES], **ALIGNED).eval()
    assert isinstance(model, AlignedFlow)
    return model


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rule", ["own", "product", "barycenter", "flow", "appearance"])
@pytest.mark.parametrize("mode", ["mean", "sample"])
def test_fusion_identities_of_all_rules(rule: str, mode: msvae.models.base.Mode) -> None:
    """Weight 0 removes a source exactly; a one-hot weight is the answer given that source alone."""
    model = aligned()
    batch = random_batch(model)
    ask = {"mode": mode, "rule": rule}
    without = model.sample(batch.select(["a", "c"]), weights={"a": 0.3, "c": 0.7}, generator=generator(), **ask)
    removed = model.sample(batch, weights={"a": 0.3, "b": 0.0, "c": 0.7}, generator=generator(), **ask)
    one_hot = model.sample(batch, weights={"b": 2.0}, generator=generator(), **ask)
    alone = model.sample(batch.select(["b"]), weights={"b": 1.0}, generator=generator(), **ask)
    for name in NAMES:
        torch.testing.assert_close(removed.values[name], without.values[name])
        torch.testing.assert_close(one_hot.values[name], alone.values[name])
    if rule != "appearance":
        rebuilt = model.sample(batch.select(["b"]), ["b"]).values["b"]
        torch.testing.assert_close(one_hot.values["b"], rebuilt)


def test_a_small_weight_changes_little() -> None:
    """The autoencoder's loss does not come all at once: untrained, it is as large as the images."""
    model = aligned()
    batch = random_batch(model)
    without, little, half = (
        model.sample(batch, ["a"], weights={"a": share, "b": 1.0}, mode="mean").values["a"]
        for share in (0.0, 1e-4, 1.0)
    )
    assert float((little - without).abs().max()) < 1e-3
    assert float((half - without).abs().max()) > 0.05


def test_added_sources_are_drawn_and_read() -> None:
    sources = [Source(name, (3, 9, 8)) for name in NAMES]
    new = {"added": ("c",), "trained": ("c",), "favoured": {"c->a": 0.2, "a->b": 0.2}}
    model = tiny_model("flow", sources, **ALIGNED, **new)
    assert isinstance(model, AlignedFlow)
    assert len(model.favoured) == 1  # the other teaches nothing
    present = torch.ones(3, 1000, dtype=torch.bool)
    given, target = model._asked(present, generator())
    assert bool((target[2] | given[2]).all())
    assert float(target[2].float().mean()) > 0.2
    assert float(given[2].float().mean()) > 0.2
    model.enter_stage("alignment")
    model.loss(random_batch(model, rows=32), generator()).total.backward()
    learns = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }
    assert all(".of_c." in name for name in learns)
    for part in ("readers", "drawers", "deviations"):
        assert any(name.startswith(f"alignment.{part}.") for name in learns), part


def test_maps_are_mixed_with_softmax_of_logits_and_log_weights() -> None:
    model = aligned()
    batch, alignment = random_batch(model), model.alignment
    present = torch.tensor([[True] * 5, [True] * 5, [False] * 5])
    weights = torch.tensor([0.25, 3.0, 1.0])[:, None].expand(-1, 5)
    with torch.no_grad():
        found = alignment.read(batch.values, present, weights.log())
        read = {n: read_alone(alignment, n, batch.values[n]) for n in ("a", "b")}
        for fused, (one, counts), (other, other_counts) in zip(found, read["a"], read["b"], strict=True):
            first, second = 0.25 * counts.exp().movedim(3, 1), 3.0 * other_counts.exp().movedim(3, 1)
            torch.testing.assert_close(fused, (first * one + second * other) / (first + second))


def read_alone(alignment: Alignment, name: str, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    trunk, number = alignment.place[name]
    return alignment.readers[trunk](network_input(alignment.sources[name], images), number)


def test_rows_do_not_depend_on_each_other_nor_on_what_is_absent() -> None:
    model = aligned()
    batch = random_batch(model)
    present = torch.tensor([[1, 0, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 1, 1, 1]], dtype=torch.bool)
    values = {
        n: torch.where(here[:, None, None, None], batch.values[n], torch.nan)
        for n, here in zip(NAMES, present, strict=True)
    }
    mixed = SourceBatch(values, dict(zip(NAMES, present, strict=True)))
    together = model.sample(mixed, mode="mean").values
    for row in range(5):
        given = [name for name, here in zip(NAMES, present[:, row], strict=True) if here]
        alone = model.sample(batch.rows(slice(row, row + 1)).select(given), mode="mean").values
        for name in NAMES:
            torch.testing.assert_close(together[name][row : row + 1], alone[name], atol=1e-5, rtol=1e-4)


def test_images_of_other_precision_stand_beside_rows_without_any() -> None:
    model = aligned()
    batch = random_batch(model)
    half = torch.tensor([True, False, True, False, True])
    values = {name: images.double() for name, images in batch.values.items()}
    found = model.sample(SourceBatch(values, dict.fromkeys(NAMES, half)), mode="mean").values
    assert all(bool(torch.isfinite(found[name]).all()) for name in NAMES)


def test_the_alignment_is_told_whether_the_code_says_more_than_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    model = aligned()
    batch = random_batch(model, rows=64)
    told = []
    monkeypatch.setattr(model.alignment, "loss", lambda *asked: told.append(asked) or tuple(torch.zeros(2)))
    model.enter_stage("alignment")
    model.loss(batch, generator())
    ((_, given, code, pooled, drawn, *_),) = told
    with torch.no_grad():
        of_given = model._whole(model.content.evidence(batch).restricted(given))
    is_pooled = (code - of_given).abs().amax(dim=(1, 2)) < 1e-6
    assert 45 < pooled.sum() < 62
    assert bool(drawn[~pooled].all())
    assert 5 < drawn[pooled].sum() < 25
    assert torch.equal(is_pooled & pooled, pooled)
    assert not bool((is_pooled & ~pooled & (given.sum(dim=0) == 1)).any())  # they know of both other sources
    shown: list[Tensor] = []
    monkeypatch.setattr(model.alignment, "images", lambda *asked: shown.append(asked[2]) or batch.values["b"])
    for mode in ("mean", "sample"):
        model.sample(batch.select(["a"]), ["b"], mode=mode, generator=generator())
    assert [bool(flags.all()) for flags in shown] == [True, False]
    assert [bool(flags.any()) for flags in shown] == [True, False]


def test_what_the_alignment_is_told_changes_its_images() -> None:
    model = aligned()
    batch = random_batch(model)
    code = model._slots(model.encode(batch).mean)
    with torch.no_grad():
        maps = model.alignment.read(batch.values, torch.ones(3, 5, dtype=torch.bool))
        one, other = (model.alignment.images(maps, code, torch.full((5,), flag), None, "b") for flag in (True, False))
        assert (one - other).abs().amax(dim=(1, 2, 3)).min() > 0
        noise = model.alignment.noise_of(5, generator(), code.device)
        drawn = model.alignment.images(maps, code, torch.zeros(5, dtype=torch.bool), noise, "b")
        assert (drawn - other).abs().amax(dim=(1, 2, 3)).min() > 0


def test_what_draws_learn_leaves_expected_images_as_they_are() -> None:
    model = aligned()
    batch, alignment = random_batch(model), model.alignment
    given = torch.tensor([[True] * 5, [False] * 5, [False] * 5])
    code, pooled = model._slots(model.encode(batch).mean.detach()), torch.zeros(5, dtype=torch.bool)
    asked = (batch.values, given, code, pooled, ~pooled, {"b": torch.arange(5)}, model.grain)
    _, scores = alignment.loss(*asked, generator())
    scores.backward()
    learning = {name.partition(".")[0] for name, p in alignment.named_parameters() if p.grad is not None}
    assert learning == {"deviations"}


def means_of_squares(image: Tensor, side: int) -> np.ndarray:
    """From the left and the top; those at the other borders may be smaller."""
    starts = [range(0, length, side) for length in image.shape]
    return np.array([[float(image[y : y + side, x : x + side].mean()) for x in starts[1]] for y in starts[0]])


@pytest.mark.parametrize("deviation", [0.0, 0.1])
def test_all_rows_learn_their_likelihood_and_drawn_ones_the_score_of_two_draws_as_well(deviation: float) -> None:
    """A source's grain is in its draws as they are scored, or they would learn it too, and samples have it twice."""
    sources = [
        Source("a", (3, 9, 8)),
        Source("b", (1, 9, 8), likelihood="laplace", scale=0.2, value_range=(-1.0, 1.0)),
        Source("c", (2, 9, 8), likelihood="laplace", scale=0.1, value_range=(0.0, 2.0)),
    ]
    model = aligned(sources)
    batch, alignment = random_batch(model, rows=6), model.alignment
    model.grain.get_buffer("kernel_of_b")[0, 0, 4, 4] = deviation
    given = torch.tensor([[True] * 6, [False] * 6, [False] * 6])
    code, pooled = model._slots(model.encode(batch).mean.detach()), torch.tensor([1, 1, 0, 1, 0, 1]).bool()
    drawn = torch.tensor([0, 1, 1, 0, 1, 0]).bool()
    wanted = {"b": torch.tensor([0, 1, 4]), "c": torch.tensor([3, 2])}
    asked = (batch.values, given, code, pooled, drawn, wanted, model.grain)
    nats, scores = (float(part.detach()) for part in alignment.loss(*asked, generator(3)))
    same, draws = generator(3), {"b": [], "c": []}
    maps = alignment.read(batch.values, given)
    for _ in range(2):
        noise = alignment.noise_of(6, same, code.device)
        for name, index in {"b": torch.tensor([1, 4]), "c": torch.tensor([2])}.items():  # what is drawn, in this order
            made = alignment.images(maps, code, pooled, noise, name).detach()
            grained = model.grain.add(name, made[index], same)
            draws[name].append(alignment.sources[name].normalise(made.index_copy(0, index, grained)))
    likelihood, score = 0.0, 0.0
    for name, index in wanted.items():
        source = alignment.sources[name]
        centre = source.normalise(alignment.images(maps, code, pooled, None, name).detach())
        truth = source.normalise(batch.values[name])
        for row in index.tolist():
            gap = (centre[row] - truth[row]).abs() / source.scale
            likelihood += float((gap + np.log(2 * source.scale)).mean())
            for side in (1, 4, 16) if drawn[row] else ():
                a, b, y = (
                    np.stack([means_of_squares(channel, side) for channel in images[row]])
                    for images in (*draws[name], truth)
                )
                away, other_away, apart = (np.sqrt((gap**2).mean(axis=0)) for gap in (a - y, b - y, a - b))
                score += (away + other_away - apart).mean() / 2 / source.scale / 3
    assert nats == pytest.approx(likelihood / 5, rel=1e-4)
    assert scores == pytest.approx(score / 5, rel=1e-4)


def test_what_draws_differ_by_is_added_before_the_sigmoid() -> None:
    model = aligned([Source(name, (1, 9, 8)) for name in NAMES])
    batch, alignment = random_batch(model), model.alignment
    code, pooled = model._slots(model.encode(batch).mean.detach()), torch.zeros(5, dtype=torch.bool)
    (head,) = (way.head for way in alignment.deviations.values())
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(0.7)
        maps = alignment.read(batch.values, torch.tensor([[True] * 5, [False] * 5, [False] * 5]))
        noise = alignment.noise_of(5, generator(), code.device)
        expected, drawn = (alignment.images(maps, code, pooled, chance, "b") for chance in (None, noise))
    torch.testing.assert_close(drawn.logit(), expected.logit() + 0.7, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("likelihood", [{"likelihood": "bernoulli"}, {"likelihood": "categorical", "categories": 3}])
def test_coins_and_classes_are_not_drawn(likelihood: dict[str, Any]) -> None:
    model = aligned([Source("photo", (3, 9, 8)), Source("map", (1, 9, 8), **likelihood)])
    batch = random_batch(model).select(["photo"])
    code, pooled = model._slots(model.encode(batch).mean.detach()), torch.zeros(5, dtype=torch.bool)
    maps = model.alignment.read(batch.values, torch.tensor([[True] * 5, [False] * 5]))
    noise = model.alignment.noise_of(5, generator(), code.device)
    for name, same in (("map", True), ("photo", False)):
        expected, drawn = (model.alignment.images(maps, code, pooled, chance, name) for chance in (None, noise))
        assert torch.equal(expected, drawn) == same


@pytest.mark.parametrize("white", [0.5, 0.2])
def test_trained_on_the_score_of_two_draws_draws_are_as_wide_as_what_is_open(white: float) -> None:
    """One source is a grey square, the other is black or white by a coin that nothing else knows. Of an unfair coin the
    expected image is black, where the sigmoid hardly passes any gradient on."""
    torch.manual_seed(0)
    model = aligned([Source("a", (1, 32, 32)), Source("b", (1, 32, 32))]).train()
    model.enter_stage("alignment")
    optimizer = torch.optim.Adam(model.alignment.parameters(), lr=3e-3)
    given, code = torch.tensor([[True], [False]]), torch.zeros(200, 4, model.content.size)
    pooled = torch.zeros(200).bool()
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (300 - step) / 100)  # or the machine decides where it stands
        coin = (torch.rand(16, 1, 1, 1, generator=generator(step)) < white).float().expand(-1, 1, 32, 32)
        images = {"a": torch.full((16, 1, 32, 32), 0.5), "b": coin}
        asked = (given.expand(-1, 16), code[:16], pooled[:16], ~pooled[:16], {"b": torch.arange(16)})
        nats, scores = model.alignment.loss(images, *asked, model.grain, generator(step))
        optimizer.zero_grad()
        (nats + scores).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        maps = model.alignment.read({"a": torch.full((200, 1, 32, 32), 0.5)}, given.expand(-1, 200))
        noise = model.alignment.noise_of(200, generator(), code.device)
        images = model.alignment.images(maps, code, pooled, noise, "b")
    means = images.mean(dim=(1, 2, 3))
    assert float((means > 0.5).float().mean()) == pytest.approx(white, abs=0.15)
    assert float(means.std()) > 0.7 * (white * (1 - white)) ** 0.5
    assert float(images.std(dim=(1, 2, 3)).mean()) < 0.15  # all of an image together


def test_from_nothing_the_others_are_drawn_on_the_first() -> None:
    model = aligned()
    codes = model.draw(4, generator())
    made = model.decode(codes, generator=generator(), mode="sample")
    first = SourceBatch.complete({"a": made.values["a"]})
    on_it = model.answer(codes, first, ["b", "c"], None, "sample", "own", generator())  # whose codes say more, too
    for name in ("b", "c"):
        torch.testing.assert_close(made.values[name], on_it.values[name])
    from_c = model.decode(codes, ["c", "a"], "sample", generator()).values
    on_c = model.answer(codes, SourceBatch.complete({"c": from_c["c"]}), ["a"], None, "sample", "own", generator())
    torch.testing.assert_close(from_c["a"], on_c.values["a"])
    alone = model.decode(codes, ["b"], "sample", generator())
    assert not torch.allclose(alone.values["b"], made.values["b"], atol=1e-4)


def test_many_draws_and_wanted_subsets_and_gradients() -> None:
    model = aligned()
    batch = random_batch(model).select(["a"])
    twice = model.sample(batch, ["c"], n=2, generator=generator()).values["c"]
    assert twice.shape == (10, 3, 9, 8)
    assert not torch.equal(twice[0::2], twice[1::2])  # another code, another answer
    both = model.sample(batch, ["b", "c"], n=2, generator=generator()).values
    torch.testing.assert_close(both["c"], twice)
    codes = model.draw(3, generator()).detach().requires_grad_()
    model.decode(codes).values["b"].sum().backward()
    assert codes.grad is not None
    assert bool((codes.grad != 0).any())


def test_classes_and_channels_of_any_kind_are_aligned() -> None:
    kinds = [Source("photo", (3, 9, 8)), Source("map", (1, 9, 8), likelihood="categorical", categories=3)]
    model = aligned(kinds)
    batch = random_batch(model, rows=64)
    batch.values["map"] = batch.values["map"].round()
    assert set(model.sample(batch.select(["photo"]), ["map"]).values["map"].unique().tolist()) <= {0.0, 1.0, 2.0}
    model.train().enter_stage("alignment")
    model.loss(batch).total.backward()
    assert all(p.grad is not None for p in model.alignment.parameters())


def test_scenes_have_defaults_of_their_own_and_say_so_when_saved() -> None:
    scene = parse(FlowConfig, {"content": "scene", "channels": 6})
    assert (scene.aligned, scene.grid, scene.channels) == (True, 4, 6)
    assert parse(FlowConfig, scene.model_dump()) == scene
    assert not parse(FlowConfig, {}).aligned


def test_favoured_questions_have_their_share_of_the_rows_that_can_be_asked() -> None:
    model = tiny_model("flow", [Source(n, (3, 9, 8)) for n in NAMES], **ALIGNED, favoured={"a+c->b": 0.5, "b->a": 0.25})
    assert isinstance(model, AlignedFlow)
    rows = 4000
    present = torch.ones(3, rows, dtype=torch.bool)
    present[2, 2000:] = False  # c, in half of the rows
    given, target = model._asked(present, generator())
    both = target[1] & given[0] & given[2]
    assert float(both[:2000].float().mean()) == pytest.approx(0.5 + 0.25 / 3 / 4, abs=0.04)  # favoured, or by chance
    assert not both[2000:].any()
    backwards = target[0] & given[1] & ~given[2]
    assert float(backwards[2000:].float().mean()) == pytest.approx(0.25 + 0.75 / 2, abs=0.04)
    assert bool((target.sum(dim=0) == 1).all())
    assert not (given & (target | ~present)).any()

    used = generator()
    favour([], given, target, present, used)
    assert torch.equal(used.get_state(), generator().get_state())  # who favours nothing trains as before


def test_favoured_questions_are_checked() -> None:
    sources = [Source(name, (3, 9, 8)) for name in NAMES]
    with pytest.raises(ConfigError, match=r"favoured.*Unknown source 'd'"):
        tiny_model("flow", sources, **ALIGNED, favoured={"d->a": 0.5})
    with pytest.raises(ConfigError, match="a cannot be drawn on itself"):
        tiny_model("flow", sources, **ALIGNED, favoured={"a+b->a": 0.5})
    for wrong in ({"a->b": 0.6, "b->a": 0.6}, {"a->b": 0.0}, {"ab": 0.5}):
        with pytest.raises(ConfigError, match="favoured"):
            parse(FlowConfig, {"content": "scene", "favoured": wrong})
    with pytest.raises(ConfigError, match="expected given->wanted, such as"):
        parse(FlowConfig, {"content": "scene", "favoured": {"a->": 0.5}})
    with pytest.raises(ConfigError, match="the last stage of scenes"):
        parse(FlowConfig, {"content": "class", "favoured": {"a->b": 0.5}})
    with pytest.raises(ConfigError, match="the last stage of scenes"):
        parse(FlowConfig, {"content": "scene", "aligned": False, "favoured": {"a->b": 0.5}})
    assert parse(FlowConfig, {"favoured": {"a->b": 0.5}}).favoured == {"a->b": 0.5}  # the rows decide what it is


def test_a_share_of_the_budget_for_a_stage_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="shares: alignment"):
        parse(FlowConfig, {"content": "class", "shares": {"alignment": 0.3}})
    assert parse(FlowConfig, {"content": "auto", "shares": {"alignment": 0.3}}).content == "auto"


def test_rows_of_one_source_teach_nothing_and_harm_nothing() -> None:
    model = aligned().train()
    model.enter_stage("alignment")
    loss = model.loss(random_batch(model).select(["b"]))
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert all(not p.grad.any() for p in model.alignment.parameters() if p.grad is not None)


@pytest.mark.parametrize("other", [Source("b", (3, 8, 8)), Source("b", (5,), likelihood="normal")])
def test_sources_of_other_sizes_are_refused(other: Source) -> None:
    with pytest.raises(ConfigError, match=r"model\.aligned.*images of one size.*b \("):
        aligned([Source("a", (3, 9, 8)), other])


def squares(rows: int, seed: int) -> Rows:
    """A square at a random place: `b` is the negative of `a`, `c` its left half."""
    random = np.random.default_rng(seed)
    a = np.zeros((rows, 1, 16, 16), dtype=np.float32)
    for image in a[:, 0]:
        down, across = random.integers(1, 10, 2)
        image[down : down + 5, across : across + 5] = random.uniform(0.5, 1.0)
    c = a.copy()
    c[..., 8:] = 0.0
    return complete_rows([Source(name, (1, 16, 16)) for name in NAMES], {"a": a, "b": 1.0 - a, "c": c})


def scenes() -> DataSet:
    parts = {name: squares(64, seed) for seed, name in enumerate(("train", "validation", "test"))}
    return DataSet("squares", parts, shared_content=True)


def test_the_stage_learns_where_things_are_resumes_and_takes_another_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, looked = scenes(), gates.GATES["alignment"]
    let_pass(monkeypatch)
    stages = {"sources": 2, "code": 2, "converter": 2, "renderer": 2, "alignment": 100}
    settings = {f"model.{key}": value for key, value in ALIGNED.items()}
    settings |= {
        **tiny_settings("flow"),
        **settings,
        **TINY_TRAINING,
        "training.precision": "fp32",
        "training.batch_size": 64,
    }
    settings |= {"training.stage_steps": stages, "training.steps": 108, "training.learning_rate": 0.01}
    two = data.only(("a", "b"))
    run = api.train(two, "flow", out=tmp_path / "run", settings=settings)
    model = run.model.eval()
    assert isinstance(model, AlignedFlow)
    batch = two.split("test").batch(slice(0, 32))
    answer = model.sample(batch.select(["a"]), ["b"], mode="mean").values["b"]
    gap = (answer - batch.values["b"]).abs().mean()
    trivial = (batch.values["b"].mean(dim=0) - batch.values["b"]).abs().mean()
    assert gap < 0.3 * trivial
    assert {"psnr/a", "psnr/b", "agreement"} <= set(looked(model, two.split("validation")).figures)
    more = api.train(
        data,
        "flow",
        out=tmp_path / "more",
        settings={**TINY_TRAINING, "training.steps": 15, "model.extends": str(run.folder.path)},
    )
    grown = open_run(more.folder.path).model
    assert grown.source_names == NAMES
    assert {"psnr/a", "psnr/b", "psnr/c"} <= set(looked(grown, data.split("validation")).figures)
    for name, value in model.state_dict().items():
        assert torch.equal(
            value, grown.state_dict()[name][: len(value)] if name == "spread" else grown.state_dict()[name]
        )
    again = grown.sample(batch.select(["a"]), ["b"], mode="mean").values["b"]
    assert torch.equal(answer, again)
    codes = model.encode(batch.select(["a"])).mean
    asked = (codes, batch.select(["a"]), ["b"], None, "sample", "own")
    drawn, again = (one.answer(*asked, generator()).values["b"] for one in (model, grown))
    assert torch.equal(drawn, again)
    assert grown.sample(batch.select(["a"]), ["c"]).values["c"].shape == (32, 1, 16, 16)
