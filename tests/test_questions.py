"""Every question, in Python, on a trained run."""

from pathlib import Path

import numpy as np
import pytest
import torch

import msvae
from conftest import TINY_TRAINING, lacking, random_batch, tiny_model, tiny_settings
from msvae.data.images import write_images
from msvae.errors import ConfigError, DataError, SourceError
from msvae.models.base import check_mode
from msvae.questions import blended_source
from msvae.reporting.tables import sources_lines
from msvae.source import SourceBatch
from msvae.training.gates import GATES, Gate
from msvae.training.opening import Run


@pytest.fixture(scope="module")
def rows(tiny_run: Run) -> SourceBatch:
    return tiny_run.data().split("test").batch(slice(0, 4))


def test_images_can_be_given_in_many_ways(tiny_run: Run, rows: SourceBatch, tmp_path: Path) -> None:
    images = rows.values["blue"]
    source = tiny_run.model.sources[0]
    write_images(tmp_path / "blue", images, source, ["a", "b", "c", "d"])
    expected = msvae.convert(tiny_run, rows.select(["blue"]), "green")["green"]
    ways = [
        (tiny_run.model, {"blue": images}),
        (tiny_run.folder.path, {"blue": images.numpy()}),
        (str(tiny_run.folder.path), {"blue": images.double().numpy()}),
        (tiny_run, {"blue": tmp_path / "blue"}),
        (tiny_run, {"blue": str(tmp_path / "blue")}),
    ]
    for run, given in ways:
        answer = msvae.convert(run, given, to="green")["green"]
        torch.testing.assert_close(answer, expected, atol=2e-3, rtol=0)
    odd = images.flip(3).numpy()[..., ::-1].astype(">f4")  # strides backwards, bytes in the other order
    torch.testing.assert_close(msvae.convert(tiny_run, {"blue": odd}, to="green")["green"], expected, atol=1e-5, rtol=0)
    single = msvae.convert(tiny_run, {"blue": images[0]}, to="green")["green"]
    torch.testing.assert_close(single, expected[:1], atol=1e-5, rtol=0)


def test_bad_images_are_named(tiny_run: Run, rows: SourceBatch) -> None:
    images = rows.values["blue"]
    for given, message in (
        ({"bleu": images}, "Did you mean 'blue'"),
        ({"blue": (images * 255).byte()}, "'blue'.*uint8"),
        ({"blue": images[:, :1]}, "'blue': expected images of shape"),
        ({"blue": images * 3}, "'blue': expected values in"),
        ({"blue": images, "green": images[:2]}, "'green': 2 rows"),
        ({"blue": images, "green": "file.png"}, "'green': give paths for all"),
        ({}, "No image is given"),
    ):
        with pytest.raises(SourceError, match=message):
            msvae.convert(tiny_run, given)
    with pytest.raises(SourceError, match="No source is wanted"):
        msvae.convert(tiny_run, {"blue": images}, to=[])
    with pytest.raises(ConfigError, match="Did you mean 'sample'"):
        check_mode("smaple")
    with pytest.raises(SourceError, match="'blue': expected a number"):
        msvae.fuse(tiny_run, {"blue": images}, {"blue": -1.0})
    with pytest.raises(DataError, match="no file or folder"):
        msvae.convert(tiny_run, {"blue": "nothing.png"})


def test_convert_gives_all_others_by_default(tiny_run: Run, rows: SourceBatch) -> None:
    assert set(msvae.convert(tiny_run, rows.select(["blue"]))) == {"yellow", "green"}
    assert len(msvae.convert(tiny_run, rows.select(["blue"]), "green", n=3, mode="sample")["green"]) == 12
    with pytest.raises(SourceError, match="All sources are given"):
        msvae.convert(tiny_run, rows)
    with pytest.raises(SourceError, match="Did you mean 'green'"):
        msvae.convert(tiny_run, rows, "gren")


@pytest.mark.parametrize("by", ["mean", "pyramid", "product", "barycenter", "own"])
def test_fusion_identities(tiny_run: Run, rows: SourceBatch, by: str) -> None:
    """Weight 0 removes a source exactly; one-hot weights reproduce it."""
    two, three = {"blue": 0.3, "green": 0.7}, {"blue": 0.3, "yellow": 0.0, "green": 0.7}
    removed = msvae.fuse(tiny_run, rows.select(["blue", "green"]), two, by)
    kept = msvae.fuse(tiny_run, rows, three, by)
    for name in removed:
        assert torch.equal(removed[name], kept[name])
    one_hot = msvae.fuse(tiny_run, rows, {"yellow": 5.0}, by)
    if "fused" in one_hot:
        torch.testing.assert_close(one_hot["fused"], rows.values["yellow"])
    else:
        batch = rows.select(["yellow"])
        alone = tiny_run.model.decode(tiny_run.model.encode(batch, rule=by, weights={"yellow": 1.0}).mean)
        for name in one_hot:
            torch.testing.assert_close(one_hot[name], alone.values[name])


@pytest.mark.parametrize("method", ["poe", "moe", "mopoe", "mvtcae", "barycenter", "helvae", "codevae", "flow"])
def test_a_one_hot_product_is_what_the_source_alone_is_converted_to(method: str) -> None:
    """`fuse` as it is asked by default, and `convert`, which knows of no weights."""
    model = tiny_model(method, [msvae.Source(name, (3, 8, 8)) for name in ("blue", "grey", "green")]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02)  # experts that differ
    if method == "flow":
        model.spread.fill_(0.3)
    given = random_batch(model)
    fused = msvae.fuse(model, given, {"grey": 2.0}, to=["blue", "green"])
    converted = msvae.convert(model, given.select(["grey"]))
    for name in ("blue", "green"):
        torch.testing.assert_close(fused[name], converted[name], atol=1e-5, rtol=0)


def test_models_without_the_usual_rule_fuse_by_their_own(rows: SourceBatch) -> None:
    model = tiny_model("single", [msvae.Source(name, (3, 32, 32)) for name in ("blue", "yellow", "green")]).eval()
    torch.testing.assert_close(msvae.fuse(model, rows)["blue"], msvae.fuse(model, rows, by="own")["blue"])
    with pytest.raises(ConfigError, match="fusion rule"):
        msvae.fuse(model, rows, by="product")


def test_one_hot_fusion_in_latent_space_is_the_reconstruction(tiny_run: Run, rows: SourceBatch) -> None:
    rebuilt = msvae.reconstruct(tiny_run, rows.select(["yellow"]))["yellow"]
    fused = msvae.fuse(tiny_run, rows, {"yellow": 1.0}, "own", "yellow")["yellow"]
    torch.testing.assert_close(fused, rebuilt)


def test_fusion_refuses_what_it_cannot_do(tiny_run: Run, rows: SourceBatch) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'pyramid'"):
        msvae.fuse(tiny_run, rows, by="pyramids")
    with pytest.raises(ConfigError, match="leave out what is wanted"):
        msvae.fuse(tiny_run, rows, by="mean", to="green")
    hole = lacking(rows, {"blue": [1]}, 0.0)
    with pytest.raises(SourceError, match="'blue' is absent from some rows"):
        msvae.fuse(tiny_run, hole, by="mean")


def test_a_walk_begins_and_ends_at_its_rows(tiny_run: Run, rows: SourceBatch) -> None:
    first, last = rows.rows(slice(0, 1)), rows.rows(slice(1, 2))
    walk = msvae.interpolate(tiny_run, first, last, steps=5)
    for name in walk:
        assert walk[name].shape[0] == 5
        torch.testing.assert_close(walk[name][:1], msvae.reconstruct(tiny_run, first)[name], atol=1e-5, rtol=0)
        torch.testing.assert_close(walk[name][-1:], msvae.reconstruct(tiny_run, last)[name], atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="whole number steps >= 2"):
        msvae.interpolate(tiny_run, first, last, steps=1)
    with pytest.raises(SourceError, match="1 rows at the start, 4 at the end"):
        msvae.interpolate(tiny_run, first, rows)


@pytest.mark.parametrize("method", ["mopoe", "mmvae+", "mld", "flow"])
def test_a_walk_of_partial_rows_ends_where_conversion_does(method: str) -> None:
    model = tiny_model(method).eval()
    first, last = (random_batch(model, 2, seed).select(["blue"]) for seed in (0, 1))
    walk = msvae.interpolate(model, first, last, steps=3, to="green")["green"].unflatten(0, (2, 3))
    torch.testing.assert_close(walk[:, 0], msvae.convert(model, first, "green")["green"], atol=1e-5, rtol=0)
    torch.testing.assert_close(walk[:, -1], msvae.convert(model, last, "green")["green"], atol=1e-5, rtol=0)


def test_fused_and_walked_images_can_be_drawn() -> None:
    """By the seed: the mean of a code is one image, its draws differ."""
    model = tiny_model("flow").eval()
    batch, last = random_batch(model, 1, 0), random_batch(model, 1, 1)
    asks = (
        lambda **how: msvae.fuse(model, batch, to="green", by="own", **how)["green"],
        lambda **how: msvae.interpolate(model, batch, last, to="green", **how)["green"],
    )
    for ask in asks:
        one, other = ask(mode="sample", seed=1), ask(mode="sample", seed=2)
        assert torch.equal(one, ask(mode="sample", seed=1))
        assert not torch.equal(one, other)
        assert not torch.equal(one, ask())
        assert torch.equal(ask(seed=1), ask(seed=2))
    with pytest.raises(SourceError, match=r"'blue': expected images as a tensor or an array, got the number"):
        msvae.convert(model, {"blue": torch.tensor(3.0)})


def test_weight_paths_are_one_hot_at_each_source() -> None:
    path = msvae.weight_path(["a", "b", "c"], 5)
    assert path[0] == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert path[2] == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert path[4] == {"a": 0.0, "b": 0.0, "c": 1.0}
    assert all(sum(weights.values()) == pytest.approx(1.0) for weights in path)
    with pytest.raises(ConfigError):
        msvae.weight_path(["a"], 5)
    with pytest.raises(ConfigError, match="each source once; got a, b, a"):
        msvae.weight_path(["a", "b", "a"], 5)


def test_generation_is_repeatable(tiny_run: Run) -> None:
    first, second = msvae.generate(tiny_run, 3, seed=1), msvae.generate(tiny_run, 3, seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["blue"], msvae.generate(tiny_run, 3, seed=2)["blue"])
    assert not torch.equal(first["blue"], msvae.generate(tiny_run, 3, from_prior=True, seed=1)["blue"])
    with pytest.raises(ConfigError, match="n >= 1"):
        msvae.generate(tiny_run, 0)


def test_imputation_changes_nothing_that_was_there(tiny_run: Run, rows: SourceBatch) -> None:
    hole = lacking(rows, {"blue": [1, 2], "green": [2]})
    whole = msvae.impute(tiny_run, hole, n=4)
    assert whole.filled["blue"].tolist() == [False, True, True, False]
    assert torch.equal(whole.images["blue"][[0, 3]], rows.values["blue"][[0, 3]])
    assert torch.equal(whole.images["yellow"], rows.values["yellow"])
    assert bool(torch.isfinite(whole.images["blue"]).all())
    assert whole.spread is not None
    assert float(whole.spread["blue"][0].max()) == 0
    assert float(whole.spread["blue"][1].max()) > 0
    assert msvae.impute(tiny_run, hole).spread is None


def test_imputation_of_a_source_that_is_nowhere_given(tiny_run: Run, rows: SourceBatch) -> None:
    whole = msvae.impute(tiny_run, {"blue": rows.values["blue"].numpy()})
    assert bool(whole.filled["green"].all())
    assert whole.images["green"].shape == (4, 3, 32, 32)


def test_features(tiny_run: Run, rows: SourceBatch) -> None:
    features = msvae.features(tiny_run, rows)
    assert features.pooled.shape == (4, 6)
    assert not features.pooled.requires_grad
    assert np.isfinite(features.pooled.numpy()).all()


def test_methods_are_listed() -> None:
    assert {"single", "poe", "moe", "mopoe", "barycenter"} <= set(msvae.methods())


def test_seeds_out_of_range_are_refused(tiny_run: Run) -> None:
    with pytest.raises(ConfigError, match="Seed"):
        msvae.generate(tiny_run, 2, seed=2**40)


def test_class_numbers_are_voted_on_not_averaged() -> None:
    sources = [msvae.Source("photo", (3, 8, 8)), msvae.Source("map", (1, 8, 8), likelihood="categorical", categories=4)]
    model = tiny_model("poe", sources)
    photos = torch.rand(2, 3, 8, 8)
    whole = msvae.impute(model, {"photo": photos}, n=5)
    assert set(whole.images["map"].unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    maps = torch.randint(0, 4, (2, 1, 8, 8)).float()
    with pytest.raises(SourceError, match="class numbers"):
        msvae.fuse(model, {"map": maps}, by="mean")


def test_blends_answer_in_the_range_of_the_first_source_with_weight() -> None:
    sources = [msvae.Source("a", (1, 8, 8)), msvae.Source("b", (1, 8, 8), value_range=(0.0, 10.0))]
    model = tiny_model("poe", sources)
    given = {"a": torch.rand(2, 1, 8, 8), "b": 10 * torch.rand(2, 1, 8, 8)}
    torch.testing.assert_close(msvae.fuse(model, given, {"b": 1.0}, by="mean")["fused"], given["b"])
    assert blended_source(model, {"a": 0.0, "b": 1.0}).name == "b"


def test_reconstructions_that_were_not_tested_have_no_columns() -> None:
    entry = {"psnr": 21.0, "ssim": 0.9, "self_psnr": 20.0, "self_ssim": 0.8, "single_psnr": None, "single_ssim": None}
    headings, rows = sources_lines({"a": entry, "b": {**entry, "psnr": None, "self_psnr": None}})
    assert headings == ["source", "joint PSNR", "SSIM", "from itself PSNR", "SSIM"]
    assert rows == [["a", "21.00", "0.900", "20.00", "0.800"], ["b", "–", "0.900", "–", "0.800"]]
    headings, rows = sources_lines({"a": {**entry, "single_psnr": 22.0}})
    assert headings[-2:] == ["trained alone PSNR", "SSIM"]
    assert rows[0][-2:] == ["22.00", "–"]


@pytest.mark.parametrize("method", ["single", "mopoe", "mmvae+", "jmvae", "flow"])
def test_every_kind_of_method_has_a_report(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(GATES):  # two steps pass none
        monkeypatch.setitem(GATES, name, lambda model, rows: Gate({}))
    settings = tiny_settings(method) | TINY_TRAINING | {"training.steps": 2, "data.options.variants": 1}
    run = msvae.train("colours", method, out=tmp_path / "run", settings=settings)
    text = msvae.report(run).read_text()
    assert len(text) > 100_000
    assert ("training.stage_steps=" in text) == (method == "flow")  # what repeats the run


def test_the_likelihood_of_more_sources_is_that_of_a_joint_density(tiny_run: Run, rows: SourceBatch) -> None:
    both = msvae.likelihood(tiny_run, rows.select(["blue", "green"]), samples=20)
    assert both.shape == (4,)
    assert bool(torch.isfinite(both).all())
    assert torch.equal(both, msvae.likelihood(tiny_run, rows.select(["blue", "green"]), samples=20))
    more = torch.stack([msvae.likelihood(tiny_run, rows.select(["blue"]), samples=k).mean() for k in (1, 200)])
    assert float(more[1]) > float(more[0])
    with pytest.raises(ConfigError, match="at least 1"):
        msvae.likelihood(tiny_run, rows, samples=0)
    flow = tiny_model("flow", tiny_run.model.sources).eval()
    bound = msvae.likelihood(flow, rows, samples=2)
    assert bound.shape == (4,)
    assert torch.equal(bound, msvae.likelihood(flow, rows, samples=2))
    flow.config = flow.config.model_copy(update={"converter": "product"})
    diffusion = tiny_model("mld", tiny_run.model.sources).eval()  # whose rows have another prior than its VAEs
    for unknown in (flow, diffusion):
        with pytest.raises(ConfigError, match="joint VAEs but `mld`"):
            msvae.likelihood(unknown, rows)
