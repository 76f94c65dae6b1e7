"""Which renderer a flow of class-like content has, where the settings leave it to the budget."""

from msvae.config import FlowConfig, ModelConfig, RunConfig, parse
from msvae.training.progress import Display

LEAST_BUDGET = 600.0  # seconds: from here on tokens were measured to be better (docs/flow-measured.md)
CHOICES = frozenset({"patch", "renderer_width"})  # settings of whoever has made up their mind


def renderer_of(model: FlowConfig | ModelConfig, budget: float | None) -> dict[str, int]:
    """What a budget (seconds) changes in the settings of a flow.

    Nothing where `model.patch` or the renderer's width was chosen, where content has tokens anyway, and where sources
    are added to a trained model.
    """
    if not isinstance(model, FlowConfig) or budget is None or budget < LEAST_BUDGET:
        return {}
    decided = model.patch is not None or model.extends is not None or CHOICES & model.model_fields_set
    return {} if decided else {"patch": 1}


def with_known_renderer(config: RunConfig, display: Display) -> RunConfig:
    """The settings with the renderer that the budget trains well enough."""
    model = config.model
    renderer = renderer_of(model, config.training.budget)
    if not renderer:
        return config
    assert isinstance(model, FlowConfig)
    display.note(f"Budgets of {LEAST_BUDGET / 60:g} minutes or more draw with tokens: model.patch=1.")
    return config.model_copy(update={"model": parse(FlowConfig, {**model.chosen, **renderer})})
