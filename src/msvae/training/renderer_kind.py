"""Which renderer a flow of class-like content has, where the settings leave it to the budget."""

from msvae.config import FlowConfig, RunConfig, parse
from msvae.training.progress import Display

LEAST_BUDGET = 600.0  # seconds: from here on tokens were measured to be better (docs/flow.md)
CHOICES = frozenset({"patch", "renderer_width"})  # settings of whoever has made up their mind


def renderer_of(budget: float) -> dict[str, int]:
    """The settings of the renderer that a budget (seconds) trains well enough, over the defaults."""
    return {"patch": 1} if budget >= LEAST_BUDGET else {}


def with_known_renderer(config: RunConfig, display: Display) -> RunConfig:
    """The settings with the budget's renderer.

    It is left alone where `model.patch` or the renderer's width was chosen, where content has tokens anyway, and where
    sources are added to a trained model.
    """
    model, budget = config.model, config.training.budget
    if not isinstance(model, FlowConfig) or model.patch is not None or model.extends is not None:
        return config
    if CHOICES & model.model_fields_set or budget is None or not (renderer := renderer_of(budget)):
        return config
    display.note(f"Budgets of {LEAST_BUDGET / 60:g} minutes or more draw with tokens: model.patch=1.")
    return config.model_copy(update={"model": parse(FlowConfig, {**model.chosen, **renderer})})
