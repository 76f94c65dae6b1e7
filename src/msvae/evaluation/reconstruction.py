"""Reconstruction of each source: from everything given, from itself alone, and by its single-source VAE."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from msvae.data.base import Rows
from msvae.evaluation.extent import MOST_REAL, Extent, parts
from msvae.evaluation.photographs import Album
from msvae.evaluation.yardstick import Yardstick, equal_frechet, joined_verdicts, mean
from msvae.metrics import PixelQuality, Verdict, joined_quality, pixel_quality, within_class_variance
from msvae.models.base import MultiSourceModel
from msvae.source import SourceBatch

WAYS = (("joint", ""), ("self", "self_"), ("single", "single_"))


def reconstructions(
    model: MultiSourceModel,
    test: Rows,
    single: MultiSourceModel | None,
    yardstick: Yardstick,
    extent: Extent,
    album: Album | None,
) -> tuple[dict[str, dict[str, Any]], dict[str, float | None]]:
    """Pixel figures by source, and what the verifiers see in reconstructions of everything: a model's own ceiling."""
    qualities: dict[tuple[str, str], list[tuple[PixelQuality, int]]] = defaultdict(list)
    seen: dict[str, list[Verdict]] = defaultdict(list)
    looked_at: dict[str, int] = defaultdict(int)
    rows = len(test) if extent.rows is None else min(extent.rows, len(test))
    for part in parts(torch.arange(rows)):
        batch = test.batch(part)
        from_all = model.sample(batch, mode="mean").to("cpu")
        for source in model.sources:
            name = source.name
            has_it = batch.present[name]
            count = int(has_it.sum())
            if not count:
                continue
            truth = batch.values[name][has_it]
            answers = {"joint": from_all.values[name][has_it], "self": _alone(model, name, truth)}
            if single is not None:
                answers["single"] = _alone(single, name, truth)
            for way, images in answers.items():
                qualities[name, way].append((pixel_quality(images, truth, source), count))
            if name in yardstick.classifiers and looked_at[name] < MOST_REAL:
                looked_at[name] += count
                seen[name].append(yardstick.classifiers[name].look(answers["joint"]))
            if album is not None:
                album.add("reconstructed", name, answers["joint"])
                album.compare(name, answers["joint"], truth)
    figures: dict[str, dict[str, Any]] = {}
    for source in model.sources:
        figures[source.name] = {}
        for way, prefix in WAYS:
            quality = joined_quality(qualities[source.name, way])
            figures[source.name] |= {f"{prefix}psnr": quality.psnr, f"{prefix}ssim": quality.ssim}
            if source.categories is not None:
                figures[source.name][f"{prefix}accuracy"] = quality.accuracy
    return figures, _ceilings({name: joined_verdicts(looks) for name, looks in seen.items()}, yardstick)


def _alone(model: MultiSourceModel, name: str, truth: Tensor) -> Tensor:
    return model.sample(SourceBatch.complete({name: truth}), [name], mode="mean").to("cpu").values[name]


def _ceilings(rebuilt: dict[str, Verdict], yardstick: Yardstick) -> dict[str, float | None]:
    if not rebuilt:
        return {}
    real = yardstick.real
    return {
        "frechet_reconstruction": mean(
            [equal_frechet(rebuilt[name], real[name], yardstick.frechet_rows) for name in rebuilt]
        ),
        "within_class_variance_reconstruction": mean(
            [within_class_variance(rebuilt[name], real[name]) for name in rebuilt]
        ),
    }
