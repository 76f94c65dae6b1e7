"""Every test of a model on rows it has not seen: each source alone, each conversion, generation, the code, the
ceilings."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from msvae.data.base import DataSet, Rows
from msvae.evaluation.verifier import Classifier, train_classifier
from msvae.metrics import (
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
from msvae.source import Source, SourceBatch
from msvae.subsets import named_subsets, subset_label
from msvae.training.progress import Display, Quiet, tracked

GENERATED_ROWS = 1000
PROBE_ROWS = 2000
MOST_SUBSETS = 62  # all proper subsets of six sources; with more, sizes 1 and M-1 only
FEATURES_NAME = "FD, source classifier"


def evaluate_model(
    model: MultiSourceModel,
    data: DataSet,
    *,
    seed: int = 0,
    single: MultiSourceModel | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """All figures of a model on the test rows of a data set.

    Args:
        single: the same networks trained as independent single-source VAEs under the same budget, to compare with.

    Returns:
        What `metrics.json` holds. Figures that need labels, shared content or a baseline that is not there are None.
    """
    began = time.perf_counter()
    display = display or Quiet()
    test = data.split("test")
    classifiers = _classifiers(data, seed, display)
    questions = [
        ("sources", lambda: _sources(model, test, single)),
        ("conversion", lambda: _conversions(model, data, classifiers, seed)),
        ("generation", lambda: _generation(model, data, classifiers, seed)),
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


def _classifiers(data: DataSet, seed: int, display: Display) -> dict[str, Classifier]:
    train = data.split("train")
    if train.labels is None:
        return {}
    names = [source.name for source in data.sources]
    classes = max(int(train.labels.max()) + 1, len(data.class_names))
    return {
        name: train_classifier(train, name, classes, seed)
        for name in tracked(names, display, "training the verifiers", len(names))
    }


def _sources(model: MultiSourceModel, test: Rows, single: MultiSourceModel | None) -> dict[str, dict[str, Any]]:
    """Reconstruction of each source: from everything given, from itself alone, and by its single-source VAE."""
    from_all = model.sample(test.all(), mode="mean")
    figures: dict[str, dict[str, Any]] = {}
    for source in model.sources:
        alone = test.only([source.name]).all()
        truth = alone.values[source.name]
        has_it = test.present[source.name]
        joint = pixel_quality(from_all.values[source.name][has_it], truth, source)
        itself = pixel_quality(_reconstructed(model, alone, source), truth, source)
        baseline = None if single is None else pixel_quality(_reconstructed(single, alone, source), truth, source)
        figures[source.name] = {
            "psnr": joint.psnr,
            "ssim": joint.ssim,
            "self_psnr": itself.psnr,
            "self_ssim": itself.ssim,
            "single_psnr": baseline and baseline.psnr,
            "single_ssim": baseline and baseline.ssim,
        }
    return figures


def _reconstructed(model: MultiSourceModel, alone: SourceBatch, source: Source) -> torch.Tensor:
    return model.sample(alone, [source.name], mode="mean").values[source.name]


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
        batch = test.batch(have.nonzero().squeeze(1))
        if len(batch) < 2:
            continue
        means = model.sample(batch.select(given), targets, mode="mean")
        drawn = model.sample(batch.select(given), targets, generator=generator)
        for target in targets:
            known = batch.present[target]
            entry: dict[str, Any] = {"given": len(given), "psnr": None, "ssim": None, "coherence": None}
            if data.shared_content and bool(known.any()):
                source = model.sources[model.source_names.index(target)]
                quality = pixel_quality(means.values[target][known], batch.values[target][known], source)
                entry |= {"psnr": quality.psnr, "ssim": quality.ssim}
            if test.labels is not None and target in classifiers:
                verdict = classifiers[target].look(drawn.values[target])
                entry["coherence"] = conditional_coherence(verdict, test.labels[have])
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
    model: MultiSourceModel, data: DataSet, classifiers: Mapping[str, Classifier], seed: int
) -> dict[str, Any]:
    """Rows made from nothing: do their sources agree, are they diverse, and how far are they from real rows?"""
    if not classifiers:
        return {}
    test = data.split("test")
    real = _looks(classifiers, test)
    figures: dict[str, Any] = {"rows": GENERATED_ROWS, "features": FEATURES_NAME}
    for name, from_prior in (("", False), ("prior_", True)):
        generator = torch.Generator(model.device).manual_seed(seed)
        with torch.no_grad():
            made = model.decode(model.draw(GENERATED_ROWS, generator, from_prior=from_prior))
        verdicts = {source: classifiers[source].look(made.values[source]) for source in classifiers}
        everyone = list(verdicts.values())
        figures |= {
            f"{name}joint_coherence": joint_coherence(everyone),
            f"{name}class_entropy": class_entropy(everyone),
            f"{name}within_class_variance": _mean(within_class_variance(verdicts[s], real[s]) for s in real),
            f"{name}frechet": _mean(frechet_distance(verdicts[s].features, real[s].features) for s in real),
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
            with torch.no_grad():
                codes.append((model.encode(rows.batch(chosen).select(given)).mean, labels[chosen]))
        (known, known_labels), (unknown, unknown_labels) = codes
        if len(known_labels.unique()) < 2 or len(unknown) == 0:
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
    complete = torch.stack([test.present[name] for name in model.source_names]).all(dim=0)
    tuples = [
        classifiers[name].look(test.batch(complete.nonzero().squeeze(1)).values[name]) for name in model.source_names
    ]
    return {
        "classifier_accuracy": {
            name: conditional_coherence(verdict, test.labels[test.present[name]]) for name, verdict in real.items()
        },
        "joint_coherence": joint_coherence(tuples) if bool(complete.any()) else None,
        "frechet_train_test": _mean(frechet_distance(known[name].features, real[name].features) for name in real),
        "frechet_reconstruction": _mean(
            frechet_distance(reconstructed[name].features, real[name].features) for name in real
        ),
        "within_class_variance_reconstruction": _mean(
            within_class_variance(reconstructed[name], real[name]) for name in real
        ),
    }


def _looks(classifiers: Mapping[str, Classifier], rows: Rows) -> dict[str, Verdict]:
    """What the classifiers see in the real images of a split."""
    return {
        name: c.look(rows.batch(rows.present[name].nonzero().squeeze(1)).values[name])
        for name, c in classifiers.items()
    }


def _mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)
