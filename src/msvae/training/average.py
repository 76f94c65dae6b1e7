"""Averaged weights, which answer all questions: those of a single step still tremble with its batch."""
# pyright: reportPrivateImportUsage=false
# PyTorch's operations on lists of tensors (`_foreach_..`) have no public names.

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class RunningAverage(Generic[Model]):
    """A copy of a model, whose weights are an exponential moving average of the trained ones' over the steps.

    Beside PyTorch's `AveragedModel` it passes over what a stage does not train, which is the same in both: in the last
    stage of a flow nine weights of ten, and a tenth of the time of a step.

    Attributes:
        model: the copy; its buffers are those of the last step.
        steps: averaged so far.
    """

    def __init__(self, trained: Model, decay: float = 0.0) -> None:
        self.trained, self.model = trained, copy.deepcopy(trained)
        self.steps = 0
        self.begin(decay)

    def begin(self, decay: float) -> None:
        """Before the first step of a stage, when it is known which weights learn, and whenever they change place."""
        self.decay = decay
        both = zip(self.model.parameters(), self.trained.parameters(), strict=True)
        learning = [(average, weight) for average, weight in both if weight.requires_grad]
        self._averages: list[Tensor] = [average for average, _ in learning]
        self._weights: list[Tensor] = [weight for _, weight in learning]

    @torch.no_grad()
    def update(self) -> None:
        """After each step. The decay starts low, so that short runs do not remember their first weights."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        torch._foreach_lerp_(self._averages, self._weights, 1.0 - decay)
        for kept, buffer in zip(self.model.buffers(), self.trained.buffers(), strict=True):
            kept.copy_(buffer)
        self.steps += 1
