"""Which renderer a flow of class-like content has, and how much of the budget, where the settings leave it to that."""

from typing import Any

from msvae.config import FlowConfig, ModelConfig, RunConfig, parse
from msvae.training.progress import Display

LEAST_BUDGET = 600.0  # seconds: from here on tokens were measured to be better (docs/flow-measured.md)
CHOICES = frozenset({"patch", "renderer_width"})  # settings of whoever has made up their mind
LONG_BUDGET = 1800.0  # seconds: from here on the stages before the renderer have more than enough at 10 minutes
LONG_SHARES = {"sources": 0.16, "code": 0.10, "converter": 0.04, "renderer": 0.70}


def renderer_of(model: FlowConfig | ModelConfig, budget: float | None) -> dict[str, Any]:
    """What a budget (seconds) changes in the settings of a flow: its renderer, and with long ones shares of the stages.

    Nothing where `model.patch` or the renderer's width was chosen, where content has tokens anyway, and where sources
    are added to a trained model.
    """
    if not isinstance(model, FlowConfig) or budget is None or budget < LEAST_BUDGET:
        return {}
    decided = model.patch is not None or model.extends is not None or CHOICES & model.model_fields_set
    if decided:
        return {}
    is_long = budget >= LONG_BUDGET and not model.shares
    return {"patch": 1, "shares": LONG_SHARES} if is_long else {"patch": 1}


def with_known_renderer(config: RunConfig, display: Display) -> RunConfig:
    """The settings with the renderer that the budget trains well enough."""
    model = config.model
    renderer = renderer_of(model, config.training.budget)
    if not renderer:
        return config
    assert isinstance(model, FlowConfig)
    told = " ".join(f"model.{name}={value}" for name, value in renderer.items())
    display.note(f"A budget of {LEAST_BUDGET / 60:g} minutes or more: {told}.")
    return config.model_copy(update={"model": parse(FlowConfig, {**model.chosen, **renderer})})
