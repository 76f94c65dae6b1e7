"""What training is made of at a step, in and out of checkpoints: raw, averaged and best weights, optimiser."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from msvae.errors import CheckpointError, NonFiniteError
from msvae.models.base import MultiSourceModel
from msvae.training.average import RunningAverage
from msvae.training.best import BestWeights
from msvae.training.checkpoint import Checkpoint, RunFolder
from msvae.training.plan import StagePlan


class TrainingState:
    """What a checkpoint holds: raw, averaged and best weights, optimiser; by parameter name, as tensors."""

    def __init__(
        self,
        model: MultiSourceModel,
        averaged: RunningAverage[MultiSourceModel],
        optimizer: Any,
        accelerator: Accelerator,
        run: RunFolder,
    ) -> None:
        self.model, self.averaged, self.run = model, averaged, run
        self.optimizer, self.accelerator = optimizer, accelerator
        self.best = BestWeights()
        self.parameters = dict(model.named_parameters())
        name_of = {id(parameter): name for name, parameter in self.parameters.items()}
        self.names = [name_of[id(part)] for group in optimizer.param_groups for part in group["params"]]

    def save(self, step: int, plan: StagePlan, seconds: float, *, finished: bool = False) -> None:
        """Write a checkpoint, unless a weight is not finite."""
        for name, parameter in self.parameters.items():
            if not bool(torch.isfinite(parameter).all()):
                raise NonFiniteError(non_finite_text(f"the weights {name}", step - 1, self.run))
        scaler = self.accelerator.scaler
        extra = {
            "averaged": self.averaged.steps,
            "scaler": scaler.state_dict() if scaler else {},
            "stages": plan.as_dict(),
            "best": self.best.as_dict(),
        }
        checkpoint = Checkpoint(step, plan.total, seconds, finished, extra)
        tensors: dict[str, Tensor] = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{self.names[index]}/{key}"] = torch.as_tensor(value)
        tensors |= {f"best/{name}": value for name, value in self.best.weights.items()}
        self.run.save(checkpoint, self.averaged.model.state_dict(), tensors)

    def settle(self) -> None:
        """Between stages: the averaged weights, the best ones where they are kept, become the model's own, and the
        optimiser forgets the last stage."""
        self.best.give(self.averaged.model)
        self.best.forget()
        self.model.load_state_dict(self.averaged.model.state_dict())
        self.optimizer.state.clear()
        self.averaged.steps = 0

    def settle_buffers(self) -> None:
        """The averaged model takes over what the end of a stage has measured."""
        self.averaged.model.load_state_dict(self.model.state_dict())

    def restore(self) -> Checkpoint:
        checkpoint = self.run.state()
        tensors = self.run.training_state()
        try:
            self.model.load_state_dict(_below("model/", tensors))
            self.averaged.model.load_state_dict(self.run.model_weights())
        except RuntimeError:
            raise CheckpointError(
                f"The weights in {self.run.latest()} do not fit the model of the run's settings, data and networks."
            ) from None
        self.averaged.steps = checkpoint.extra["averaged"]
        self.best.restore(checkpoint.extra.get("best", {}), _below("best/", tensors))
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                name, field = key.removeprefix("optimizer/").rsplit("/", 1)
                parameter = self.parameters[name]
                if value.shape == parameter.shape:  # moments lie in memory as their weights do
                    value = torch.empty_like(parameter, device="cpu").copy_(value)
                states.setdefault(self.names.index(name), {})[field] = value
        plain = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": states, "param_groups": plain["param_groups"]})
        if self.accelerator.scaler and checkpoint.extra["scaler"]:
            self.accelerator.scaler.load_state_dict(checkpoint.extra["scaler"])
        return checkpoint


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def non_finite_text(what: str, step: int, run: RunFolder) -> str:
    """What is not finite, since when, and what is left on disk."""
    kept = run.checkpoints()
    last = f"The last good checkpoint is {kept[-1].name}." if kept else "No checkpoint had been written yet."
    return f"Step {step + 1}: {what} is not finite; the run was stopped. {last} Try a lower learning rate."
