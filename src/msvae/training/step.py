"""One optimiser step: a batch of this process, in parts, forward and back, and what is added up over processes."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from msvae.config import TrainingConfig
from msvae.data.augment import augmented
from msvae.data.base import Rows
from msvae.models.base import Loss
from msvae.models.stages import RowSource
from msvae.training.guards import refuse_non_finite_gradients, refuse_non_finite_losses
from msvae.training.processes import Processes
from msvae.training.schedule import derived_seed
from msvae.training.state import TrainingState

Parts = list[tuple[int, Loss]]
"""(rows, their mean loss) of each part of a batch."""


class Stepper:
    """Takes the steps of a run. What is random in one depends on the seed, the process and the step alone.

    Args:
        wrapped: the model as the accelerator calls it.
        train: the training rows, which are augmented where they are trained on themselves.
    """

    def __init__(
        self,
        wrapped: nn.Module,
        optimizer: Any,
        state: TrainingState,
        train: Rows,
        config: TrainingConfig,
        accelerator: Accelerator,
        processes: Processes,
    ) -> None:
        self.wrapped, self.optimizer, self.state = wrapped, optimizer, state
        self.train, self.config = train, config
        self.accelerator, self.processes = accelerator, processes
        self.noise = torch.Generator(accelerator.device)
        self.changes = torch.Generator(accelerator.device)

    def __call__(self, step: int, rows: RowSource, index: Tensor, parts: int, whole: int, rate: float) -> Parts:
        """The weights after `step` steps take one more.

        Args:
            index: this process's rows of the batch, computed in so many parts.
            whole: rows of the batch in all processes.
            rate: the learning rate.

        Raises:
            NonFiniteError: if a loss or gradient is not finite; the weights are as before.
        """
        self._seed(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        done: Parts = []
        for part in index.tensor_split(parts):
            batch = rows.batch(part).to(self.accelerator.device)
            if rows is self.train:  # not what earlier stages have computed
                batch = augmented(batch, self.train.sources, self.config.augment, self.changes)
            loss = self.wrapped(batch, self.noise)
            self.accelerator.backward(loss.total * (len(part) / whole))
            done.append((len(part), loss))
        self._refuse_non_finite_and_add_up(done, step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.processes.share_statistics(self.state.model)
        self.state.averaged.update()
        return done

    def _seed(self, step: int) -> None:
        seed = derived_seed(self.config.seed, self.processes.own("noise"), step)
        torch.manual_seed(seed)  # for users' modules with dropout and the like
        self.noise.manual_seed(seed)
        self.changes.manual_seed(derived_seed(self.config.seed, self.processes.own("augment"), step))

    def _refuse_non_finite_and_add_up(self, done: Parts, step: int) -> None:
        run = self.state.run
        self.processes.together(refuse_non_finite_losses, [loss for _, loss in done], step, run)
        self.processes.add_up(self.state.model.parameters())
        refuse_non_finite_gradients(self.state.parameters, self.config, self.accelerator, step, run)
