"""Several processes that train one model, each with a batch of its own in every step: `torchrun`.

All hold the same weights and take the same steps. The first one alone watches validation rows, speaks, and writes.
Gradients are added up here, not by PyTorch's wrapper, which has to know beforehand which weights a step uses: with
sources missing at random no process does, and with stages it changes.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from msvae.errors import CheckpointError, ConfigError, Interrupted, MsvaeError
from msvae.models.stages import Stage

P = ParamSpec("P")
T = TypeVar("T")


class Processes:
    """The processes of one training.

    Attributes:
        count: how many.
        number: which one this is, from 0.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.count, self.number = accelerator.num_processes, accelerator.process_index
        self.device = accelerator.device

    @property
    def first(self) -> bool:
        return self.number == 0

    def own(self, purpose: str) -> str:
        """What random numbers of this process are for; the first one's are those of a process alone."""
        return purpose if self.first else f"{purpose}, process {self.number}"

    def refuse_few_rows(self, stages: Iterable[Stage], rows: int) -> None:
        """Ask before the first step.

        Args:
            rows: of the training split.

        Raises:
            ConfigError: if they cannot be divided among so many processes.
        """
        least = max((stage.least_rows for stage in stages if stage.steps != 0), default=0)
        if self.count > 1 and rows < least * self.count:
            raise ConfigError(
                f"{rows} training rows are too few for {self.count} processes; each needs {least} or more."
            )

    def part(self, index: Tensor) -> Tensor:
        """The rows of a step that this process computes."""
        return index.tensor_split(self.count)[self.number]

    @torch.no_grad()
    def add_up(self, weights: Iterable[Tensor]) -> None:
        """Each weight's gradient becomes the sum of all processes'; none where no process has one."""
        if self.count == 1:
            return
        weights = list(weights)
        learning = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8, device=self.device)
        torch.distributed.all_reduce(learning, torch.distributed.ReduceOp.MAX)
        used = [weight for weight, some in zip(weights, learning.tolist(), strict=True) if some]
        if not used:
            return
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in used]
        total = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(total)
        for weight, gradient, part in zip(used, gradients, total.split([w.numel() for w in used]), strict=True):
            weight.grad = gradient.copy_(part.view_as(weight))

    def any(self, wish: bool) -> bool:
        """Whether any process wishes."""
        if self.count == 1:
            return wish
        wishes = torch.tensor([wish], dtype=torch.uint8, device=self.device)
        torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
        return bool(wishes)

    def told(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The first process's answer, or error, in all of them; the others do not ask."""
        if self.count == 1:
            return ask(*args, **kwargs)
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = ask(*args, **kwargs)
            except Exception as error:  # whatever it is, the others wait for an answer
                answer[1] = error
        value, problem = broadcast_object_list(answer)
        if problem is not None:
            raise problem
        return value

    @contextmanager
    def entered_by_first(self, context: AbstractContextManager[None]) -> Iterator[None]:
        """Within what the first process alone holds, such as a lock."""
        with ExitStack() as held:
            self.told(held.enter_context, context)
            yield

    def together(self, check: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """What one process may refuse by itself stops all of them."""
        problem: MsvaeError | None = None
        try:
            check(*args, **kwargs)
        except MsvaeError as error:
            problem = error
        if self.any(problem is not None):
            raise problem or Interrupted("Stopped by an error in another process, which tells it.")

    def agree(self, what: str, value: Any) -> None:
        """Each has found out by itself what has to be the same.

        Raises:
            CheckpointError: in all of them, where it is not.
        """
        if self.any(value != self.told(lambda: value)):
            raise CheckpointError(f"The processes see other {what}; they need the same files.")

    @torch.no_grad()
    def make_alike(self, model: nn.Module) -> None:
        """Weights and buffers as the first process has them."""
        if self.count > 1:
            for value in (*model.parameters(), *model.buffers()):
                held = value.contiguous()
                torch.distributed.broadcast(held, 0)
                value.copy_(held)

    @torch.no_grad()
    def share_statistics(self, model: nn.Module) -> None:
        """Buffers that change with the batches, such as means, as the first process has them."""
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()] if self.count > 1 else []
        if buffers:
            all_of_them = torch.cat([buffer.reshape(-1) for buffer in buffers])
            torch.distributed.broadcast(all_of_them, 0)
            for buffer, part in zip(buffers, all_of_them.split([b.numel() for b in buffers]), strict=True):
                buffer.copy_(part.view_as(buffer))

    def one_after_the_other(self, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What each makes for itself, the first process before the others, which then find its files."""
        if self.count == 1:
            return make(*args, **kwargs)
        if not self.first:
            torch.distributed.barrier()
        try:
            return make(*args, **kwargs)
        finally:
            if self.first:
                torch.distributed.barrier()


def leave() -> None:
    """At the end of a program."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
