"""Walks of weights from one source to another: is every step small, and is every image on the way legible?"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from msvae.data.base import Rows
from msvae.errors import SourceError
from msvae.evaluation.yardstick import Yardstick, mean
from msvae.metrics.coherence import LEAST_CONFIDENCE
from msvae.metrics.imagenet import feature_distance
from msvae.models.base import MultiSourceModel
from msvae.models.stages import spread_out
from msvae.source import Source, SourceBatch

STEPS = 8
WALKS = 20  # of each pair of sources


def walks(model: MultiSourceModel, test: Rows, yardstick: Yardstick) -> dict[str, dict[str, Any]]:
    """Figures of each way to fuse in latent space (`latent_rules`).

    A walk begins at an image of one source and ends at that of the next source of another row; eight steps of equal
    weight lead there, all drawn as the first source would show them.

    Returns:
        By rule: `step`, the root of the feature distance of a step, and `largest_step`, that of a walk's largest one,
        means over the walks (None without ImageNet features); `largest_share`, what the largest step has of a walk's
        whole length, 1/8 where all are equal, in those features or else in the verifier's (None without either);
        `legible`, the share of images in which the verifier is sure of a class, and `legible_ends`, the same of both
        ends (None without labels).
    """
    names = [source.name for source in model.sources]
    pairs = [(first, names[(index + 1) % len(names)]) for index, first in enumerate(names)] if len(names) > 1 else []
    starts = [(first, second, _put_together(test, first, second)) for first, second in pairs]
    figures = {}
    for rule in model.latent_rules:
        found: dict[str, list[float | None]] = defaultdict(list)
        for first, second, rows in starts:
            source = model.sources[names.index(first)]
            if rows is None or not source.is_image or source.categories is not None:
                continue
            try:
                images = _walk(model, rows, (first, second), rule)
            except SourceError:  # `appearance` needs latents of one shape
                continue
            for name, value in _judged(images, source, yardstick).items():
                found[name].append(value)
        if any(value is not None for values in found.values() for value in values):
            figures[rule] = {"steps": STEPS, **{name: mean(values) for name, values in found.items()}}
    return figures


def _put_together(test: Rows, first: str, second: str) -> SourceBatch | None:
    """Rows of one source's image and the other's of another row, of another class where there are labels."""
    here, there = test.having([first]), test.having([second])
    labels = torch.arange(len(test)) if test.labels is None else test.labels
    chosen = []
    for number, row in enumerate(here[spread_out(len(here), WALKS)].tolist()):
        others = there[labels[there] != labels[row]]
        if len(others):
            chosen.append((row, int(others[(7 * number) % len(others)])))
    if not chosen:
        return None
    one, other = torch.tensor(chosen).T
    return SourceBatch.complete({first: test.batch(one).values[first], second: test.batch(other).values[second]})


def _walk(model: MultiSourceModel, rows: SourceBatch, ends: Sequence[str], rule: str) -> Tensor:
    """(steps + 1, walks, ..) images of the first source."""
    first, second = ends
    path = [{first: 1.0 - share, second: share} for share in torch.linspace(0, 1, STEPS + 1).tolist()]
    answers = [model.sample(rows, [first], weights=weights, mode="mean", rule=rule) for weights in path]
    return torch.stack([answer.values[first].to("cpu") for answer in answers])


def _judged(images: Tensor, source: Source, yardstick: Yardstick) -> dict[str, float | None]:
    figures: dict[str, float | None] = dict.fromkeys(("step", "largest_step", "largest_share"))
    if yardstick.photographs is not None and source.name in yardstick.photographs.sources:
        network = yardstick.photographs.network
        gaps = [feature_distance(network, before, after, source) for before, after in pairwise(images)]
        steps = torch.stack(gaps).clamp_min(0.0).sqrt()  # the distances are squared ones
        figures["step"], figures["largest_step"] = float(steps.mean()), float(steps.max(dim=0).values.mean())
        figures["largest_share"] = _largest_share(steps)
    if source.name in yardstick.classifiers:
        verdict = yardstick.classifiers[source.name].look(images.flatten(0, 1))
        sure = (verdict.confidence >= LEAST_CONFIDENCE).float().unflatten(0, images.shape[:2])
        figures["legible"], figures["legible_ends"] = float(sure.mean()), float(sure[[0, -1]].mean())
        if figures["largest_share"] is None:
            features = verdict.features.unflatten(0, images.shape[:2])
            figures["largest_share"] = _largest_share(features.diff(dim=0).norm(dim=2))
    return figures


def _largest_share(steps: Float[Tensor, "steps walks"]) -> float:
    return float((steps.max(dim=0).values / steps.sum(dim=0).clamp_min(1e-9)).mean())
