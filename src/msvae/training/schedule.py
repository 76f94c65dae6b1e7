"""Everything in training that is a function of the step alone: seeds, batch order, learning rate, run length.

Since nothing here keeps a state, a resumed run needs only its step to go on bit for bit as if never stopped.
"""

import hashlib
import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FINAL_RATE_SHARE = 0.01
SKIPPED_STEPS, FEWEST_MEASURED = 5, 3


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """An independent 56-bit seed for one purpose and one step or epoch."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Whole batches in an epoch; a set smaller than a batch is one batch."""
    return max(1, rows // batch_size)


def balance_weights(present: Mapping[str, Bool[Tensor, " rows"]], balance: float) -> Float[Tensor, " rows"] | None:
    """How often each row is drawn, in proportion: w_r = max over its sources s of (1 / f_s)^balance.

    f_s is the share of rows that have s. With balance 1 a source in 1 % of the rows is in about half of those drawn;
    a row is weighed by its rarest source alone, so that complete rows are not favoured for being complete.

    Returns:
        None for balance 0: every row the same.
    """
    if balance == 0:
        return None
    matrix = torch.stack(list(present.values()))
    shares = matrix.double().mean(dim=1, keepdim=True)
    weights = torch.where(matrix, shares.clamp(min=1e-12) ** -balance, 0.0).amax(dim=0)
    return weights / weights.sum()


class BatchOrder:
    """Which rows make the batch of a step: a new shuffle every epoch, incomplete last batches left out.

    Args:
        weights: how often each row is drawn, in proportion. An epoch then has as many draws as without, and each row
            is drawn as often as its weight says, rounded up or down at random (systematic resampling).
    """

    def __init__(self, rows: int, batch_size: int, seed: int, weights: Float[Tensor, " rows"] | None = None) -> None:
        self.rows, self.batch_size, self.seed = rows, min(batch_size, rows), seed
        self._ends = None if weights is None else weights.double().cumsum(0) / weights.double().sum()
        self.per_epoch = steps_per_epoch(rows, batch_size)
        self._shuffled: tuple[int, Tensor] = (-1, torch.empty(0))

    def __call__(self, step: int) -> Tensor:
        epoch, position = divmod(step, self.per_epoch)
        if self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
            order = torch.randperm(self.rows, generator=generator)
            if self._ends is not None:
                start = torch.rand((), generator=generator, dtype=torch.float64)
                places = (torch.arange(self.rows, dtype=torch.float64) + start) / self.rows
                order = torch.searchsorted(self._ends, places).clamp(max=self.rows - 1)[order]
            self._shuffled = (epoch, order)
        return self._shuffled[1][position * self.batch_size : (position + 1) * self.batch_size]

    def some(self, count: int) -> Tensor:
        """A fixed random choice of at most `count` rows."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "choice", 0))
        return torch.randperm(self.rows, generator=generator)[:count]


def learning_rate(step: int, peak: float, warmup: int, total: int | None) -> float:
    """Linear warm-up, then a cosine from the peak to 1 % of it at the last step.

    The warm-up does not depend on the run's length, so that a time budget can be turned into steps during it: a run
    of a budget, and one of the number of steps that came of it, are the same.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if total is None or total <= warmup:
        return peak
    progress = min(1.0, (step - warmup) / (total - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * cosine)


def progress_share(step: int, warmup: int, total: int | None) -> float:
    """How much of a stretch is done, in [0, 1): 0 in the warm-up, when the length of a budget is not known yet."""
    return 0.0 if total is None or step < warmup else step / total


class BudgetMeter:
    """Turns a time budget into a number of steps, from the mean time of the first ones.

    Args:
        budget: seconds of training, those of the measurement included.
        step, spent: steps and seconds that were taken before, by a run stopped while it was measuring.
        count: steps that are measured, at least 20; the very first ones, which allocate and compile, do not count.
            Measuring ends early once 30 % of the budget are gone and a few steps have been measured, or all of it is.
        least: steps that are taken however slow they are.
    """

    def __init__(self, budget: float, step: int = 0, spent: float = 0.0, count: int = 90, least: int = 0) -> None:
        self.budget, self.step, self.spent, self.least = budget, step, spent, least
        self.count = max(20, count)
        self._times: list[float] = []

    def add(self, seconds: float) -> int | None:
        """Tell how long a step took; returns the run's number of steps once it is known."""
        self._times.append(seconds)
        spent = self.spent + sum(self._times)
        counted = self._times[SKIPPED_STEPS:]
        enough = self.count if spent < 0.3 * self.budget else FEWEST_MEASURED
        if len(counted) < enough and spent < self.budget:
            return None
        counted = counted or self._times[-1:]
        per_step = sum(counted) / len(counted)
        steps = self.step + len(self._times) + int(max(0.0, self.budget - spent) / per_step)
        return max(steps, self.least)
