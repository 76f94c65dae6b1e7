"""Which renderer a flow of class-like content has, where the settings leave it to the budget."""

from msvae.config import FlowConfig, RunConfig, parse
from msvae.training.progress import Display

LEAST_BUDGET = 600.0  # seconds: from here on tokens were measured to be better (docs/flow.md)


def with_known_renderer(config: RunConfig, display: Display) -> RunConfig:
    """The settings with a renderer of tokens (`model.patch=1`) for budgets that train it well enough.

    It is left alone where `model.patch` or the renderer's width was chosen, where content has tokens anyway, and where
    sources are added to a trained model.
    """
    model, budget = config.model, config.training.budget
    if not isinstance(model, FlowConfig) or model.patch is not None or model.extends is not None:
        return config
    if {"patch", "renderer_width"} & model.model_fields_set or budget is None or budget < LEAST_BUDGET:
        return config
    display.note(f"Budgets of {LEAST_BUDGET / 60:g} minutes or more draw with tokens: model.patch=1.")
    return config.model_copy(update={"model": parse(FlowConfig, {**model.chosen, "patch": 1})})
