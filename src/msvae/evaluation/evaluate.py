"""Every test of a model on rows it has not seen: each source alone, each conversion, generation, the code, the
ceilings."""

import time
from typing import Any

from msvae.data.base import DataSet, Rows
from msvae.evaluation.conversion import by_size, conversions, monotonicity
from msvae.evaluation.extent import Extent, mixed
from msvae.evaluation.generation import generation
from msvae.evaluation.photographs import Album
from msvae.evaluation.probing import probes
from msvae.evaluation.reconstruction import reconstructions
from msvae.evaluation.walks import walks
from msvae.evaluation.yardstick import Yardstick, make_yardstick
from msvae.models.base import MultiSourceModel
from msvae.training.progress import Display, Quiet, tracked


def evaluate_model(
    model: MultiSourceModel,
    data: DataSet,
    *,
    verifier_rows: Rows | None = None,
    seed: int = 0,
    single: MultiSourceModel | None = None,
    extent: Extent | None = None,
    yardstick: Yardstick | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """All figures of a model on the test rows of a data set.

    Args:
        verifier_rows: rows that the classifiers are trained on, never test rows; by default the set's training rows.
        seed: of sampling and probes. The verifiers have a seed of their own, so that runs share one yardstick.
        single: the same networks trained as independent single-source VAEs for as many steps, to compare with.
        extent: how many rows are looked at; all test rows and 1,000 generated ones by default, without ImageNet
            features.
        yardstick: that of this data set and extent, where it has been made before.

    Returns:
        What `metrics.json` holds; None for what cannot be computed (without labels, rows, shared content, a baseline).
    """
    began = time.perf_counter()
    display, extent = display or Quiet(), extent or Extent()
    for part in (model, single):
        if part is not None:
            part.eval()
    yardstick = yardstick or make_yardstick(data, extent, verifier_rows, display)
    data = mixed(data)
    test = data.split("test")
    album = Album(yardstick.photographs, len(model.sources)) if yardstick.photographs is not None else None
    questions = [
        ("sources", lambda: reconstructions(model, test, single, yardstick, extent, album)),
        ("conversion", lambda: conversions(model, data, yardstick, extent, album, seed)),
        ("generation", lambda: generation(model, yardstick, extent, album, seed)),
        ("probe", lambda: probes(model, data, seed)),
        ("walks", lambda: walks(model, test, yardstick)),
        ("photographs", lambda: album.figures() if album is not None else {}),
    ]
    answers: dict[str, Any] = {name: ask() for name, ask in tracked(questions, display, "evaluating", len(questions))}
    sources, rebuilt = answers["sources"]
    coherence = by_size(answers["conversion"])
    return {
        "data": data.name,
        "test_rows": len(test) if extent.rows is None else min(extent.rows, len(test)),
        "sources": sources,
        "conditional_coherence": coherence,
        "joint_coherence": answers["generation"].get("joint_coherence"),
        "monotonicity": monotonicity(coherence, answers["photographs"].get("conditional", {})),
        "conversion": answers["conversion"],
        "generation": answers["generation"],
        "photographs": answers["photographs"],
        "probe": answers["probe"],
        "walks": answers["walks"],
        "ceilings": {**yardstick.figures, **rebuilt},
        "judges": yardstick.judges,
        "seconds": round(time.perf_counter() - began, 1),
        "seed": seed,
    }
