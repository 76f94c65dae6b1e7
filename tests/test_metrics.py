"""Metrics against independent implementations and hand-made cases."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import random_batch, tiny_model
from msvae.data import DataSet, complete_rows
from msvae.evaluation import Extent, evaluate_model, make_yardstick
from msvae.evaluation.extent import mixed
from msvae.evaluation.verifier import Effort, train_classifier
from msvae.evaluation.walks import walks
from msvae.evaluation.yardstick import equal_frechet
from msvae.metrics import (
    Moments,
    Retrieval,
    Verdict,
    class_entropy,
    conditional_coherence,
    correlation_of_deviations,
    frechet_distance,
    joined_quality,
    joint_coherence,
    linear_probe,
    pixel_quality,
    retrieval,
    spread_to_error,
    within_class_variance,
)
from msvae.reporting.tables import summary_lines
from msvae.source import Source, SourceBatch


@pytest.mark.parametrize("draws", [2, 5])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_the_spread_of_draws_is_1_where_truth_might_be_one_of_them(draws: int, width: float) -> None:
    generator = torch.Generator().manual_seed(0)
    open_, truth = torch.randn(2, 400, 1, 8, 8, generator=generator)  # what is known of a row, and what is not
    made = open_ + width * torch.randn(draws, 400, 1, 8, 8, generator=generator)
    found = spread_to_error(made, open_ + truth)
    assert found == pytest.approx(width * math.sqrt((1 + 1 / draws) / (1 + width**2 / draws)), rel=0.02)
    assert spread_to_error(torch.zeros(2, 3, 4), torch.zeros(3, 4)) == math.inf
    with pytest.raises(ValueError, match="two draws or more, got 1"):
        spread_to_error(torch.zeros(1, 3, 4), torch.zeros(3, 4))


@pytest.mark.parametrize("draws", [2, 6])
@pytest.mark.parametrize(("in_draws", "in_truth"), [(0.6, 0.6), (0.0, 0.6), (1.0, 0.3)])
def test_draws_of_a_row_go_together_by_what_is_common_to_them(draws: int, in_draws: float, in_truth: float) -> None:
    """Both sources' open parts have variance 1, of which a share is the same in both (in other units, upside down)."""
    generator = torch.Generator().manual_seed(0)

    def parts(share: float, *shape: int) -> list[torch.Tensor]:
        same, one, other = torch.randn(3, *shape, 4, 4, generator=generator)
        return [math.sqrt(share) * same + math.sqrt(1 - share) * own for own in (one, other)]

    known = torch.randn(3000, 4, 4, generator=generator)
    made, truth = parts(in_draws, draws, 3000), parts(in_truth, 3000)
    one, other = ((known + scale * d, known + scale * t) for d, t, scale in zip(made, truth, (1.0, -3.0), strict=True))
    found = correlation_of_deviations(one, other)
    assert found.drawn == pytest.approx(-in_draws, abs=0.02)
    assert found.real == pytest.approx(-in_truth, abs=0.02)
    with pytest.raises(ValueError, match="two draws or more, got 1"):
        correlation_of_deviations((one[0][:1], one[1]), (other[0][:1], other[1]))


def test_frechet_distance_has_its_closed_forms() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + 3) == pytest.approx(4 * 9, rel=1e-6)
    scaled = frechet_distance(features, 2 * features)
    covariance = torch.cov(features.T)
    shift = features.mean(dim=0).square().sum()
    assert scaled == pytest.approx(float(shift + covariance.trace()), rel=1e-6)
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance(features[:1], features)


def test_frechet_distance_agrees_with_the_general_matrix_root() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(300, 5)), rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5))
    first, second = np.cov(one.T), np.cov(two.T)
    gap = one.mean(0) - two.mean(0)
    expected = gap @ gap + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert frechet_distance(torch.from_numpy(one), torch.from_numpy(two)) == pytest.approx(expected, rel=1e-6)


def test_moments_gathered_in_parts_are_those_of_the_whole() -> None:
    features = 1e4 + torch.randn(301, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gathered = Moments()
    for part in features.split(37):
        gathered.add(part)
    assert gathered.count == 301
    torch.testing.assert_close(gathered.mean, features.mean(dim=0))
    torch.testing.assert_close(gathered.covariance, torch.cov(features.T), rtol=1e-9, atol=1e-9)


def test_quality_of_parts_joins_to_that_of_all_rows() -> None:
    source = Source("x", (3, 16, 16))
    truth = torch.rand(7, 3, 16, 16)
    noisy = (truth + 0.1 * torch.randn_like(truth)).clamp(0, 1)
    whole = pixel_quality(noisy, truth, source)
    parts = [(pixel_quality(noisy[rows], truth[rows], source), len(truth[rows])) for rows in (slice(0, 5), slice(5, 7))]
    joined = joined_quality(parts)
    assert joined.psnr == pytest.approx(whole.psnr, rel=1e-5)
    assert joined.ssim == pytest.approx(whole.ssim, rel=1e-5)
    assert joined_quality([]).psnr is None


def test_evaluation_in_parts_is_that_of_all_rows_at_once(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows are asked of a model at a time changes neither means nor ceilings."""
    from msvae.evaluation import extent

    data = digits.only(["blue", "green"])
    model = tiny_model("moe", data.sources)
    small = Extent(rows=90, generated=40)
    yardstick = make_yardstick(data, small)
    whole = evaluate_model(model, data, extent=small, yardstick=yardstick)
    monkeypatch.setattr(extent, "AT_ONCE", 32)
    split = evaluate_model(model, data, extent=small, yardstick=yardstick)
    assert whole["test_rows"] == split["test_rows"] == 90
    for name in ("blue", "green"):
        assert split["sources"][name]["psnr"] == pytest.approx(whole["sources"][name]["psnr"], rel=1e-5)
        assert split["sources"][name]["self_ssim"] == pytest.approx(whole["sources"][name]["self_ssim"], rel=1e-5)
    assert split["conversion"]["blue->green"]["psnr"] == pytest.approx(whole["conversion"]["blue->green"]["psnr"])
    assert split["generation"] == pytest.approx(whole["generation"])
    assert split["ceilings"]["frechet_reconstruction"] == pytest.approx(whole["ceilings"]["frechet_reconstruction"])


def test_test_rows_sorted_by_class_are_mixed_and_known_sets_stay(digits: DataSet) -> None:
    assert mixed(digits) is digits
    test = digits.split("test")
    assert test.labels is not None
    by_class = test.take(test.labels.argsort(stable=True))
    own = replace(digits, name="mine", splits={**digits.splits, "test": by_class})
    labels = mixed(own).split("test").labels
    assert labels is not None
    assert len(labels[:100].unique()) == 10
    assert torch.equal(labels.sort().values, test.labels.sort().values)
    own_again = mixed(own).split("test").batch(slice(0, 5)).values["blue"]
    assert torch.equal(own_again, mixed(own).split("test").batch(slice(0, 5)).values["blue"])


def test_of_one_class_there_is_no_coherence(digits: DataSet) -> None:
    """Any image is right then, noise too."""
    splits = {name: digits.split(name) for name in ("train", "test")}
    ones = {
        name: part.take((part.labels == 1).nonzero().squeeze(1))
        for name, part in splits.items()
        if part.labels is not None
    }
    data = replace(digits, name="mine", splits=ones).only(["blue", "green"])
    figures = evaluate_model(tiny_model("poe", data.sources).eval(), data, extent=Extent(rows=20, generated=20))
    assert figures["joint_coherence"] is None
    assert set(figures["conditional_coherence"].values()) == {None}


def test_a_rare_source_does_not_shrink_the_sets_of_the_others(digits: DataSet) -> None:
    test = digits.only(["blue", "green"]).split("test")
    rare = replace(test, present={**test.present, "green": torch.arange(len(test)) < 3})
    data = digits.only(["blue", "green"])
    stick = make_yardstick(replace(data, splits={**data.splits, "test": rare}), Extent(generated=60))
    assert stick.frechet_rows == 60
    assert equal_frechet(stick.real["blue"], stick.real["blue"], 60) == pytest.approx(0.0, abs=1e-3)
    assert equal_frechet(stick.real["blue"], stick.real["green"], 60) is None


def test_figures_without_labels_are_shown_with_those_of_photographs() -> None:
    figures: dict[str, Any] = {
        "generation": {"rows": 9, "features": "FD", "drawn_from": "prior"},
        "ceilings": {},
        "conditional_coherence": {},
        "probe": {},
        "photographs": {
            "features": "FD112", "unconditional": 12.34, "conditional": {"1": 30.0, "2": 20.0}, "real_train_test": 5.0
        },
    }  # fmt: skip
    assert summary_lines(figures) == [
        ("FD112, generated", "12.3 (real train/test 5.0)"), ("the same, from all other sources", "20.0")
    ]  # fmt: skip


def test_psnr_is_its_formula_and_ssim_is_one_for_equals() -> None:
    source = Source("x", (3, 16, 16), value_range=(0.0, 4.0))
    truth = 4 * torch.rand(5, 3, 16, 16)
    noisy = (truth + 0.2 * torch.randn_like(truth)).clamp(0, 4)
    errors = ((noisy - truth) / 4).square().flatten(1).mean(dim=1)
    quality = pixel_quality(noisy, truth, source)
    assert quality.psnr == pytest.approx(float((-10 * errors.log10()).mean()), rel=1e-5)
    perfect = pixel_quality(truth, truth.clone(), source)
    assert perfect.ssim == pytest.approx(1.0, abs=1e-5)
    assert quality.ssim is not None
    assert quality.ssim < 0.999
    assert pixel_quality(torch.rand(3, 7), torch.rand(3, 7), Source("v", (7,))).ssim is None
    assert pixel_quality(torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8), Source("s", (1, 8, 8))).ssim is not None
    assert pixel_quality(torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4), Source("s", (1, 4, 4))).ssim is None
    assert perfect.psnr == 100.0
    classes = Source("c", (1, 8, 8), likelihood="categorical", categories=3)
    half = torch.zeros(2, 1, 8, 8)
    half[0] = 1
    assert pixel_quality(half, torch.zeros(2, 1, 8, 8), classes).accuracy == 0.5
    assert pixel_quality(half, torch.zeros(2, 1, 8, 8), classes).psnr is None


def verdict(classes: list[int], sure: float = 0.9, features: torch.Tensor | None = None) -> Verdict:
    probabilities = torch.full((len(classes), 4), (1 - sure) / 3)
    probabilities[torch.arange(len(classes)), torch.tensor(classes)] = sure
    return Verdict(probabilities, torch.zeros(len(classes), 2) if features is None else features)


def test_coherence_counts_right_and_sure_answers() -> None:
    labels = torch.tensor([0, 1, 2, 3])
    assert conditional_coherence(verdict([0, 1, 2, 0]), labels) == 0.75
    assert conditional_coherence(verdict([0, 1, 2, 3], sure=0.4), labels) == 0.0
    assert joint_coherence([verdict([0, 1, 2]), verdict([0, 1, 3]), verdict([0, 2, 3])]) == pytest.approx(1 / 3)
    assert joint_coherence([verdict([0, 1]), verdict([0, 1], sure=0.45)]) == 0.0


def test_class_entropy_is_a_share_of_its_maximum() -> None:
    assert class_entropy([verdict([0, 1, 2, 3])]) == pytest.approx(1.0)
    assert class_entropy([verdict([2, 2, 2])]) == pytest.approx(0.0)
    assert class_entropy([verdict([0, 1]), verdict([0, 1])]) == pytest.approx(math.log(2) / math.log(4))


def test_one_class_has_no_entropy() -> None:
    assert class_entropy([Verdict(torch.ones(4, 1), torch.zeros(4, 2))]) is None


def test_within_class_variance_is_relative_to_real_images() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = [0, 1] * 50
    features = torch.randn(100, 2, generator=generator) + 10 * torch.tensor(classes)[:, None]
    real = verdict(classes, features=features)
    centres = 10.0 * torch.tensor(classes)[:, None]
    assert within_class_variance(real, real) == pytest.approx(1.0)
    halved = verdict(classes, features=centres + 0.5 * (features - centres))
    assert within_class_variance(halved, real) == pytest.approx(0.25, rel=1e-4)
    assert within_class_variance(verdict(classes, features=centres.expand(-1, 2)), real) == pytest.approx(0.0)


def test_retrieval_is_that_of_a_plain_loop_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(40, 6, generator=generator, dtype=torch.float64) * torch.arange(1, 7) + 3
    found = truth + 4 * torch.randn(40, 6, generator=generator, dtype=torch.float64)
    one, other = ((part - part.mean(0)) / part.std(0, correction=0) for part in (found, truth))
    alike = torch.nn.functional.cosine_similarity(one[:, None], other[None], dim=2)
    wins = [float(alike[i, i] > alike[i, j]) for i in range(40) for j in range(40) if i != j]
    seen = retrieval(found, truth)
    assert seen.pairwise == pytest.approx(sum(wins) / len(wins))
    assert seen.first == pytest.approx(float((alike.argmax(dim=1) == torch.arange(40)).double().mean()))
    assert 0.5 < seen.pairwise < 1


def test_retrieval_of_equals_is_perfect_whatever_the_style_and_of_constants_is_chance() -> None:
    truth = torch.randn(1500, 5, generator=torch.Generator().manual_seed(0))
    assert retrieval(3 * truth + 7, truth) == Retrieval(1.0, 1.0)
    assert retrieval(torch.ones(1500, 5), truth) == Retrieval(0.5, 0.0)
    assert retrieval(truth.roll(1, dims=0), truth).pairwise == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match="two rows"):
        retrieval(truth[:1], truth[:1])


def test_the_linear_probe_finds_what_is_linear_and_nothing_in_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(600, 5, generator=generator)
    labels = (codes[:, 2] > 0).long()
    assert linear_probe(codes[:400], labels[:400], codes[400:], labels[400:]) > 0.95
    noise = torch.randn(600, 5, generator=generator)
    assert linear_probe(noise[:400], labels[:400], noise[400:], labels[400:]) < 0.65


def test_the_verifier_learns_real_digits(digits: DataSet) -> None:
    with torch.no_grad():  # whoever asks for figures may be in such a region
        classifier = train_classifier(digits.split("train"), "blue", 10, seed=0, effort=Effort(steps=150))
    test = digits.split("test")
    accuracy = conditional_coherence(classifier.look(test.all().values["blue"]), test.labels)
    assert accuracy > 0.85
    shuffled = conditional_coherence(classifier.look(test.all().values["blue"]), test.labels.roll(1))
    assert shuffled < 0.3


def test_a_verifier_of_chosen_rows_sees_their_own_images(digits: DataSet) -> None:
    """Rows that lack both sources are left out without a copy; the others keep their labels."""
    train = digits.split("train")
    present = {name: has_it.clone() for name, has_it in train.present.items()}
    for name in ("blue", "green"):
        present[name][: len(train) // 3] = False
    values = {
        name: torch.where(here.view(-1, 1, 1, 1), train.values[name].float() / 255, torch.nan)
        for name, here in present.items()
    }
    rows = replace(train, values=values, present=present).only(["blue", "green"])
    assert rows.chosen is not None
    classifier = train_classifier(rows, "blue", 10, seed=0, effort=Effort(steps=150))
    test = digits.split("test")
    assert conditional_coherence(classifier.look(test.all().values["blue"]), test.labels) > 0.8


def test_variance_is_nothing_where_no_two_real_images_are_of_one_class() -> None:
    lone = verdict([0, 1, 2], features=torch.randn(3, 2))
    assert within_class_variance(lone, lone) is None


def test_an_untrained_model_scores_badly(digits: DataSet) -> None:
    """No figure flatters: coherence of an untrained model is near chance, and its ceilings are those of real rows."""
    model = tiny_model("mopoe", digits.sources)
    figures = evaluate_model(model, digits)
    assert figures["conditional_coherence"]["1"] < 0.2
    assert figures["sources"]["blue"]["psnr"] < 15
    assert figures["sources"]["blue"]["single_psnr"] is None
    assert figures["ceilings"]["joint_coherence"] > 0.85
    assert set(figures["conversion"]) == {
        *("blue->yellow", "blue->green", "yellow->blue", "yellow->green", "green->blue", "green->yellow"),
        *("blue+yellow->green", "blue+green->yellow", "yellow+green->blue"),
    }


def test_walks_of_weights_are_measured_step_by_step(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that jumps once has its whole way in one step; one that mixes images has even ones, and legible ends."""
    data = digits.only(["blue", "green"])
    model = tiny_model("poe", data.sources)
    assert model.latent_rules
    stick = make_yardstick(data, Extent(generated=10, photographs=10))

    def answers(turn: Callable[[float], float]) -> None:
        def sample(
            self: object, given: SourceBatch, to: list[str], *, weights: dict[str, float], **_: object
        ) -> SourceBatch:
            blue, green = (given.values[name] for name in to + [name for name in given.names if name not in to])
            return SourceBatch.complete({to[0]: torch.lerp(blue, green, turn(weights[to[0]]))})

        monkeypatch.setattr(type(model), "sample", sample)

    answers(lambda weight: float(weight < 0.5))
    jumps = walks(model, data.split("test"), stick)
    answers(lambda weight: 1.0 - weight)
    mixes = walks(model, data.split("test"), stick)
    assert set(jumps) == set(model.latent_rules)
    by_verifier = walks(model, data.split("test"), replace(stick, photographs=None))
    answers(lambda weight: float(weight < 0.5))
    jumps_by_verifier = walks(model, data.split("test"), replace(stick, photographs=None))
    for rule in model.latent_rules:
        assert by_verifier[rule]["step"] is None
        assert 1 / 8 < by_verifier[rule]["largest_share"] < 0.5
        assert jumps_by_verifier[rule]["largest_share"] == pytest.approx(1.0)
        assert jumps[rule]["largest_share"] == pytest.approx(1.0)
        assert jumps[rule]["legible"] == pytest.approx(jumps[rule]["legible_ends"], abs=0.06)
        assert 1 / 8 < mixes[rule]["largest_share"] < 0.35
        assert mixes[rule]["legible_ends"] == jumps[rule]["legible_ends"] > 0.9
        assert mixes[rule]["largest_step"] < jumps[rule]["largest_step"]


def test_sets_without_labels_get_pixel_figures_alone() -> None:
    model = tiny_model()
    images = {name: values.numpy() for name, values in random_batch(model, rows=12).values.items()}
    rows = complete_rows(model.sources, images)
    data = DataSet("own", {"train": rows, "test": rows}, shared_content=True)
    figures = evaluate_model(model, data)
    assert figures["joint_coherence"] is None
    assert figures["conditional_coherence"] == {"1": None, "2": None}
    assert figures["conversion"]["blue->grey"]["psnr"] > 0


def test_sets_without_any_complete_row_are_tested_as_far_as_they_go() -> None:
    """Unpaired sources, one of them absent from the test rows: figures that cannot be computed are None."""
    from dataclasses import replace

    model = tiny_model("poe")
    images = {name: values.numpy() for name, values in random_batch(model, rows=12).values.items()}
    rows = complete_rows(model.sources, images, np.arange(12) % 2)
    turn = torch.arange(12) % 3
    unpaired = replace(rows, present={name: turn == index for index, name in enumerate(rows.present)})
    test = replace(unpaired, present={**unpaired.present, "grey": torch.zeros(12, dtype=torch.bool)})
    figures = evaluate_model(model, DataSet("own", {"train": unpaired, "test": test}, shared_content=True))
    assert figures["sources"]["blue"]["psnr"] > 0
    assert figures["sources"]["grey"]["psnr"] is None
    assert figures["conversion"]["blue->green"]["psnr"] is None
    assert figures["ceilings"]["joint_coherence"] is None
