"""What the sources of a row share, where the settings leave it to the data."""

from collections import defaultdict
from itertools import permutations
from statistics import fmean

import torch

from msvae.config import FlowConfig, RunConfig
from msvae.data import DataSet
from msvae.data.base import Rows
from msvae.metrics import local_fit
from msvae.networks.pairs import network_input
from msvae.training.progress import Display

SCENE = 0.3  # of a source's variance explained by another; what known sets have stands in docs/flow.md
LEAST_BUDGET = 180.0  # seconds: a scene has five stages, and large networks in them
PROBED_ROWS, FEWEST_ROWS, MOST_SOURCES = 128, 16, 5


def with_known_content(config: RunConfig, data: DataSet, display: Display) -> RunConfig:
    """The settings with `class` or `scene` in place of `model.content=auto`, as training rows show it.

    Budgets that are too short for the stages of a scene train a `class`.
    """
    model = config.model
    if not isinstance(model, FlowConfig) or model.content != "auto":
        return config
    fit = scene_fit(data.split("train"))
    short = config.training.budget is not None and config.training.budget < LEAST_BUDGET
    kind = "scene" if fit is not None and fit > SCENE and not short else "class"
    if fit is not None:
        why = f", and {LEAST_BUDGET:g} s are the least for a scene" if short and fit > SCENE else ""
        display.note(f"A local filter of the nearest source explains {fit:.0%} of a source{why}: model.content={kind}.")
    chosen = {name: getattr(model, name) for name in model.model_fields_set}
    return config.model_copy(update={"model": FlowConfig(**{**chosen, "content": kind})})


def scene_fit(rows: Rows) -> float | None:
    """How much of a source the nearest one of the others explains (`local_fit`), mean over the sources.

    None where they are no images of one size, or too few rows have two of them.
    """
    sources = rows.sources[:MOST_SOURCES]
    sizes = {source.shape[1:] if source.is_image else None for source in rows.sources}
    if len(sizes) > 1 or None in sizes:
        return None
    fits: dict[str, list[float]] = defaultdict(list)
    for first, second in permutations(sources, 2):
        both = (rows.present[first.name] & rows.present[second.name]).nonzero().squeeze(1)
        chosen = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(0))[:PROBED_ROWS]]
        if len(chosen) >= FEWEST_ROWS:
            batch = rows.batch(chosen)
            images = (network_input(source, batch.values[source.name]) for source in (first, second))
            fits[second.name].append(local_fit(*images))
    return fmean(max(values) for values in fits.values()) if fits else None
