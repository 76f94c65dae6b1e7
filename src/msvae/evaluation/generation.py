"""Rows made from nothing: do their sources agree, are they diverse, and how far are they from real rows?"""

from collections import defaultdict
from typing import Any

import torch

from msvae.evaluation.extent import Extent, parts
from msvae.evaluation.photographs import Album
from msvae.evaluation.yardstick import Yardstick, equal_frechet, joined_verdicts, mean
from msvae.metrics import Verdict, class_entropy, joint_coherence, within_class_variance
from msvae.models.base import MultiSourceModel

FEATURES_NAME = "FD, source classifier"


def generation(
    model: MultiSourceModel, yardstick: Yardstick, extent: Extent, album: Album | None, seed: int
) -> dict[str, Any]:
    """Figures of generated rows; where a sampler was fitted after training, those of the prior have `prior_` before
    them."""
    if not yardstick.classifiers and album is None:
        return {}
    figures: dict[str, Any] = {
        "rows": extent.generated,
        "features": FEATURES_NAME,
        "drawn_from": "fitted sampler" if model.has_fitted_sampler else "prior",
    }
    ways = [("prior_", True), ("", False)] if model.has_fitted_sampler else [("", True)]
    for prefix, from_prior in ways:
        generator = torch.Generator(model.device).manual_seed(seed)
        seen: dict[str, list[Verdict]] = defaultdict(list)
        with torch.no_grad():
            codes = model.draw(extent.generated, generator, from_prior=from_prior)
            for part in parts(torch.arange(extent.generated, device=codes.device)):
                made = model.decode(codes[part], None, "sample", generator).to("cpu")
                for name, images in made.values.items():
                    if name in yardstick.classifiers:
                        seen[name].append(yardstick.classifiers[name].look(images))
                    if album is not None:
                        album.add("generated from the prior" if prefix else "generated", name, images)
        verdicts = {name: joined_verdicts(looks) for name, looks in seen.items()}
        figures |= {f"{prefix}{name}": value for name, value in _judged(verdicts, yardstick).items()}
    return figures


def _judged(verdicts: dict[str, Verdict], yardstick: Yardstick) -> dict[str, Any]:
    if not verdicts:
        return {}
    everyone, real = list(verdicts.values()), yardstick.real
    return {
        "joint_coherence": joint_coherence(everyone),
        "class_entropy": class_entropy(everyone),
        "within_class_variance": mean([within_class_variance(verdicts[name], real[name]) for name in real]),
        "frechet": mean([equal_frechet(verdicts[name], real[name], yardstick.frechet_rows) for name in real]),
    }
