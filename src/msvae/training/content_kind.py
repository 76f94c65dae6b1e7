"""What the sources of a row share, where the settings leave it to the data."""

from collections import defaultdict
from itertools import permutations
from statistics import fmean
from typing import Literal

import torch

from msvae.config import FlowConfig, RunConfig, parse
from msvae.data import DataSet
from msvae.data.base import Rows
from msvae.metrics import local_fit
from msvae.models.staged_flow import SHARES as STAGES_OF_CLASS
from msvae.networks.pairs import network_input
from msvae.training.progress import Display

SCENE = 0.22  # of a source's variance explained by another; what known sets have stands in docs/flow.md
LEAST_BUDGET = 180.0  # seconds: a scene has five stages, and large networks in them
PROBED_ROWS, FEWEST_ROWS, MOST_SOURCES, MOST_CLASSES = 128, 16, 5, 8


def with_known_content(config: RunConfig, data: DataSet, display: Display) -> RunConfig:
    """The settings with `class` or `scene` in place of `model.content=auto`, as training rows show it.

    Budgets that are too short for the stages of a scene train a `class`, and so do numbers of steps that leave the last
    of those stages out: 0 for it, or one for each of the others alone.
    """
    model, training = config.model, config.training
    if not isinstance(model, FlowConfig) or model.content != "auto":
        return config
    fit = scene_fit(data.split("train"))
    if fit is None or fit <= SCENE:
        kind, why = "class", ""
    elif training.budget is not None and training.budget < LEAST_BUDGET:
        kind, why = "class", f", and {LEAST_BUDGET:g} s are the least for a scene"
    elif training.stage_steps.get("alignment") == 0 or training.stage_steps.keys() == STAGES_OF_CLASS.keys():
        kind, why = "class", ", and there are no steps for the stage of scenes (alignment)"
    else:
        kind, why = "scene", ""
    if fit is not None:
        display.note(f"A local filter of the nearest source explains {fit:.0%} of a source{why}: model.content={kind}.")
    return with_content(config, kind)


def with_content(config: RunConfig, kind: Literal["auto", "class", "scene"]) -> RunConfig:
    """The settings with that kind of content and what it stands for, where nothing else was chosen.

    Raises:
        ConfigError: if something was chosen that does not go with it.
    """
    return config.model_copy(update={"model": parse(FlowConfig, {**config.model.chosen, "content": kind})})


def scene_fit(rows: Rows) -> float | None:
    """How much of a source the nearest one of the others explains (`local_fit`), mean over the sources.

    Looked at are the first five sources; maps of few classes may explain others, and nobody has to explain them. None
    where sources are no images of one size, or too few rows have two of them.
    """
    if len({source.shape[1:] if source.is_image else None for source in rows.sources}) > 1:
        return None
    sources = [s for s in rows.sources if s.is_image and (s.categories or 0) <= MOST_CLASSES][:MOST_SOURCES]
    fits: dict[str, list[float]] = defaultdict(list)
    for first, second in permutations(sources, 2):
        if second.categories is not None:
            continue
        both = rows.having([first.name, second.name])
        chosen = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(0))[:PROBED_ROWS]]
        if len(chosen) >= FEWEST_ROWS:
            batch = rows.batch(chosen)
            images = (network_input(source, batch.values[source.name]) for source in (first, second))
            fits[second.name].append(local_fit(*images))
    return fmean(max(values) for values in fits.values()) if fits else None
