"""Which of a stage's weights did best on validation rows: of small sets the last ones may know the rows by heart."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class BestWeights:
    """A copy of a model as it was when its loss on validation rows was least.

    Attributes:
        step: when that was; 0 before anything was looked at.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Before the next stage."""
        self.loss, self.step = math.inf, 0
        self.weights: dict[str, Tensor] = {}

    def look(self, loss: float, step: int, model: nn.Module) -> None:
        """Keep what the model learns if the loss is the least so far; frozen weights are the same at any step."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
            state = model.state_dict()
            self.weights = {name: value.detach().clone() for name, value in state.items() if name not in frozen}

    def give(self, model: nn.Module) -> None:
        """The model takes them over, if there are any."""
        model.load_state_dict(self.weights, strict=False)

    def as_dict(self) -> dict[str, Any]:
        """What a checkpoint holds beside the tensors."""
        return {"loss": self.loss, "step": self.step} if self.weights else {}

    def restore(self, stored: Mapping[str, Any], weights: dict[str, Tensor]) -> None:
        """As it was in a checkpoint."""
        self.forget()
        if stored:
            self.loss, self.step, self.weights = stored["loss"], stored["step"], weights
