"""Every test of a model on rows it has not seen: each source alone, each conversion, generation, the code, the
ceilings."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from msvae.data.base import DataSet, Rows
from msvae.evaluation.verifier import Classifier, train_classifier
from msvae.metrics import (
    PixelQuality,
    Verdict,
    class_entropy,
    conditional_coherence,
    frechet_distance,
    joint_coherence,
    linear_probe,
    pixel_quality,
    within_class_variance,
)
from msvae.models.base import MultiSourceModel
from msvae.subsets import named_subsets, subset_label
from msvae.training.progress import Display, Quiet, tracked

GENERATED_ROWS = 1000
VERIFIER_SEED = 0
PROBE_ROWS = 2000
MOST_SUBSETS = 62  # all proper subsets of six sources; with more, sizes 1 and M-1 only
FEATURES_NAME = "FD, source classifier"


def evaluate_model(
    model: MultiSourceModel,
    data: DataSet,
    *,
    verifier_rows: Rows | None = None,
    seed: int = 0,
    single: MultiSourceModel | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """All figures of a model on the test rows of a data set.

    Args:
        verifier_rows: rows that the classifiers are trained on, never test rows; by default the set's training rows.
        seed: of sampling and probes. The verifiers have a seed of their own, so that runs share one yardstick.
        single: the same networks trained as independent single-source VAEs for as many steps, to compare with.

    Returns:
        What `metrics.json` holds; None for what cannot be computed (without labels, rows, shared content, a baseline).
    """
    began = time.perf_counter()
    display = display or Quiet()
    for part in (model, single):
        if part is not None:
            part.eval()
    test = data.split("test")
    classifiers = _classifiers(data, verifier_rows or data.split("train"), display)
    questions = [
        ("sources", lambda: _sources(model, test, single)),
        ("conversion", lambda: _conversions(model, data, classifiers, seed)),
        ("generation", lambda: _generation(model, test, classifiers, seed)),
        ("probe", lambda: _probes(model, data, seed)),
        ("ceilings", lambda: _ceilings(model, data, classifiers)),
    ]
    answers = {name: ask() for name, ask in tracked(questions, display, "evaluating", len(questions))}
    return {
        "data": data.name,
        "test_rows": len(test),
        "sources": answers["sources"],
        "conditional_coherence": _by_size(answers["conversion"]),
        "joint_coherence": answers["generation"].get("joint_coherence"),
        "conversion": answers["conversion"],
        "generation": answers["generation"],
        "probe": answers["probe"],
        "ceilings": answers["ceilings"],
        "seconds": round(time.perf_counter() - began, 1),
        "seed": seed,
    }


def _classifiers(data: DataSet, rows: Rows, display: Display) -> dict[str, Classifier]:
    """A verifier for every source that has labelled training and test rows."""
    labels = [part.labels for part in (rows, data.split("test"))]
    if any(part is None for part in labels):
        return {}
    test = data.split("test")
    names = [s.name for s in data.sources if bool(rows.present[s.name].any()) and int(test.present[s.name].sum()) > 1]
    classes = max(len(data.class_names), *(int(part.max()) + 1 for part in labels if part is not None))
    return {
        name: train_classifier(rows, name, classes, VERIFIER_SEED)
        for name in tracked(names, display, "training the verifiers", len(names))
    }


def _sources(model: MultiSourceModel, test: Rows, single: MultiSourceModel | None) -> dict[str, dict[str, Any]]:
    """Reconstruction of each source: from everything given, from itself alone, and by its single-source VAE."""
    from_all = model.sample(test.all(), mode="mean")
    figures: dict[str, dict[str, Any]] = {}
    for source in model.sources:
        has_it = test.present[source.name]
        answers: dict[str, Tensor] = {}
        truth = test.all().values[source.name][has_it]
        if bool(has_it.any()):
            alone = test.only([source.name]).all()
            answers["joint"] = from_all.values[source.name][has_it]
            answers["self"] = model.sample(alone, [source.name], mode="mean").values[source.name]
            if single is not None:
                answers["single"] = single.sample(alone, [source.name], mode="mean").values[source.name]
        entry: dict[str, Any] = {}
        for kind, prefix in (("joint", ""), ("self", "self_"), ("single", "single_")):
            quality = pixel_quality(answers[kind], truth, source) if kind in answers else PixelQuality()
            entry |= {f"{prefix}psnr": quality.psnr, f"{prefix}ssim": quality.ssim}
            if source.categories is not None:
                entry[f"{prefix}accuracy"] = quality.accuracy
        figures[source.name] = entry
    return figures


def _conversions(
    model: MultiSourceModel, data: DataSet, classifiers: Mapping[str, Classifier], seed: int
) -> dict[str, dict[str, Any]]:
    """For every subset of the sources and every target outside it."""
    test = data.split("test")
    generator = torch.Generator(model.device).manual_seed(seed)
    figures: dict[str, dict[str, Any]] = {}
    for given in _proper_subsets(model.source_names):
        targets = [name for name in model.source_names if name not in given]
        have = torch.stack([test.present[name] for name in given]).all(dim=0)
        if not bool(have.any()):
            continue
        batch = test.batch(have.nonzero().squeeze(1))
        means = model.sample(batch.select(given), targets, mode="mean")
        drawn = model.sample(batch.select(given), targets, generator=generator)
        for target in targets:
            known = batch.present[target]
            quality, coherence = PixelQuality(), None
            if data.shared_content and bool(known.any()):
                source = model.sources[model.source_names.index(target)]
                quality = pixel_quality(means.values[target][known], batch.values[target][known], source)
            if test.labels is not None and target in classifiers:
                coherence = conditional_coherence(classifiers[target].look(drawn.values[target]), test.labels[have])
            entry = {"given": len(given), "psnr": quality.psnr, "ssim": quality.ssim, "coherence": coherence}
            if quality.accuracy is not None:
                entry["accuracy"] = quality.accuracy
            figures[f"{subset_label(given)}->{target}"] = entry
    return figures


def _proper_subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    subsets = [subset for subset in named_subsets(names) if len(subset) < len(names)]
    if len(subsets) > MOST_SUBSETS:
        subsets = [subset for subset in subsets if len(subset) in (1, len(names) - 1)]
    return subsets


def _by_size(conversions: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Conditional coherence at k: the mean over all subsets of k sources and all targets outside them."""
    sizes = sorted({entry["given"] for entry in conversions.values()})
    result: dict[str, float | None] = {}
    for size in sizes:
        values = [e["coherence"] for e in conversions.values() if e["given"] == size and e["coherence"] is not None]
        result[str(size)] = sum(values) / len(values) if values else None
    return result


def _generation(
    model: MultiSourceModel, test: Rows, classifiers: Mapping[str, Classifier], seed: int
) -> dict[str, Any]:
    """Rows made from nothing: do their sources agree, are they diverse, and how far are they from real rows?"""
    if not classifiers:
        return {}
    real = _looks(classifiers, test)
    figures: dict[str, Any] = {"rows": GENERATED_ROWS, "features": FEATURES_NAME}
    ways = [("prior_", True), ("", False)] if model.has_fitted_sampler else [("", True)]
    for prefix, from_prior in ways:
        generator = torch.Generator(model.device).manual_seed(seed)
        with torch.no_grad():
            codes = model.draw(GENERATED_ROWS, generator, from_prior=from_prior)
            made = model.decode(codes, None, "sample", generator)
        verdicts = {source: classifiers[source].look(made.values[source]) for source in classifiers}
        everyone = list(verdicts.values())
        figures |= {
            f"{prefix}joint_coherence": joint_coherence(everyone),
            f"{prefix}class_entropy": class_entropy(everyone),
            f"{prefix}within_class_variance": _mean(within_class_variance(verdicts[s], real[s]) for s in real),
            f"{prefix}frechet": _mean(_equal_frechet(verdicts[s], real[s], _fewest(test)) for s in real),
        }
    return figures


def _probes(model: MultiSourceModel, data: DataSet, seed: int) -> dict[str, float]:
    """Accuracy of a linear classifier on the code, for every subset of the sources that the code is made from."""
    train, test = data.split("train"), data.split("test")
    if train.labels is None or test.labels is None:
        return {}
    split_labels = (train.labels, test.labels)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    figures: dict[str, float] = {}
    for given in [*_proper_subsets(model.source_names), model.source_names]:
        codes = []
        for rows, labels, index in zip((train, test), split_labels, (order, torch.arange(len(test))), strict=True):
            have = torch.stack([rows.present[name][index] for name in given]).all(dim=0)
            chosen = index[have][:PROBE_ROWS]
            if len(chosen) < 2:
                break
            with torch.no_grad():
                codes.append((model.encode(rows.batch(chosen).select(given)).mean, labels[chosen]))
        if len(codes) < 2:
            continue
        (known, known_labels), (unknown, unknown_labels) = codes
        if len(known_labels.unique()) < 2:
            continue
        figures[subset_label(given)] = linear_probe(known, known_labels, unknown, unknown_labels, seed)
    return figures


def _ceilings(model: MultiSourceModel, data: DataSet, classifiers: Mapping[str, Classifier]) -> dict[str, Any]:
    """What a perfect model would score: the same figures of real test rows, and of reconstructions."""
    test, train = data.split("test"), data.split("train")
    if not classifiers or test.labels is None:
        return {}
    real, known = _looks(classifiers, test), _looks(classifiers, train)
    rebuilt = model.sample(test.all(), mode="mean")
    reconstructed = {name: classifiers[name].look(rebuilt.values[name][test.present[name]]) for name in real}
    complete = torch.stack([test.present[name] for name in classifiers]).all(dim=0)
    labels = {name: test.labels[test.present[name]] for name in real}
    fewest = _fewest(test)
    figures: dict[str, Any] = {
        "classifier_accuracy": {name: float((v.classes == labels[name]).float().mean()) for name, v in real.items()},
        "classifier_coherence": {name: conditional_coherence(v, labels[name]) for name, v in real.items()},
        "joint_coherence": None,
        "frechet_train_test": _mean(_equal_frechet(known[n], real[n], fewest) for n in real if len(known[n].features)),
        "frechet_reconstruction": _mean(_equal_frechet(reconstructed[n], real[n], fewest) for n in real),
        "within_class_variance_reconstruction": _mean(within_class_variance(reconstructed[n], real[n]) for n in real),
    }
    if bool(complete.any()):
        rows = test.batch(complete.nonzero().squeeze(1))
        figures["joint_coherence"] = joint_coherence([c.look(rows.values[name]) for name, c in classifiers.items()])
    return figures


def _looks(classifiers: Mapping[str, Classifier], rows: Rows) -> dict[str, Verdict]:
    """What the classifiers see in the real images of a split."""
    return {
        name: classifier.look(rows.batch(rows.present[name].nonzero().squeeze(1)).values[name])
        for name, classifier in classifiers.items()
    }


def _fewest(test: Rows) -> int:
    """Images in every Fréchet distance: its bias depends on the number, so all have to have the same."""
    return min(GENERATED_ROWS, *(max(2, int(present.sum())) for present in test.present.values()))


def _equal_frechet(first: Verdict, second: Verdict, rows: int) -> float | None:
    if min(len(first.features), len(second.features)) < 2:
        return None
    return frechet_distance(first.features[:rows], second.features[:rows])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
