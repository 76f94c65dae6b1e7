"""How long each stage of a run is, and how far the run has come."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from msvae.config import TrainingConfig
from msvae.errors import ConfigError, unknown
from msvae.models.stages import Stage
from msvae.training.schedule import BatchOrder, BudgetMeter

DEFAULT_EPOCHS = 30


class StagePlan:
    """The stages of a run with their lengths in steps, which a time budget leaves open until each is measured.

    Args:
        rows: training rows.
        processes: that train together, each with a batch of its own in every step.
    """

    def __init__(self, stages: Sequence[Stage], config: TrainingConfig, rows: int, processes: int = 1) -> None:
        self.config = config
        self.finished: list[str] = []
        self.first_step = 0
        self.began = 0.0
        self.lengths: dict[str, int] = {}
        for name in config.stage_steps:
            if name not in {stage.name for stage in stages}:
                known = [stage.name for stage in stages]
                raise ConfigError(f"Setting 'training.stage_steps': {unknown('stage', name, known)}")
        self.stages = tuple(
            stage if stage.steps == 0 else replace(stage, steps=config.stage_steps.get(stage.name, stage.steps))
            for stage in stages  # what a model leaves out stays out
        )
        planned = _planned_steps(config, rows, processes)
        self.shared = free = sum(stage.share for stage in self.stages if stage.steps is None)
        for stage in self.stages:
            if stage.steps is not None:
                self.lengths[stage.name] = stage.steps
            elif planned is not None:
                self.lengths[stage.name] = max(1, round(planned * stage.share / free))

    @property
    def total(self) -> int | None:
        """Steps of the whole run, or None while a stage's length is unknown."""
        known = [self.lengths.get(stage.name) for stage in self.stages]
        return None if None in known else sum(length for length in known if length is not None)

    def left(self) -> Iterator[Stage]:
        """The stages that are not finished."""
        return (stage for stage in self.stages if stage.name not in self.finished)

    def last_trained(self) -> Stage | None:
        """The stage that was finished last, if it took any steps."""
        done = [stage for stage in self.stages if stage.name in self.finished]
        return done[-1] if done and self.lengths[done[-1].name] else None

    def length(self, stage: Stage) -> int | None:
        return self.lengths.get(stage.name)

    def set_length(self, stage: Stage, steps: int) -> None:
        self.lengths[stage.name] = steps

    def is_new(self, step: int) -> bool:
        """Whether the stage at hand has not taken a step yet."""
        return step == self.first_step

    def begin(self, seconds: float) -> None:
        """The stage at hand takes its first step: what was computed for it is paid by all stages that are left, since
        it is often more than this one's share."""
        self.began = seconds

    def meter(self, step: int, seconds: float) -> BudgetMeter:
        """What measures the stage at hand: it may take its share of the time that the stages before have left."""
        assert self.config.budget is not None
        free = [stage for stage in self.left() if stage.steps is None]
        budget = (self.config.budget - self.began) * free[0].share / sum(stage.share for stage in free)
        least = round(self.config.least_steps * free[0].share / self.shared)
        return BudgetMeter(budget, step - self.first_step, seconds - self.began, self.config.warmup_steps - 10, least)

    def finish(self, stage: Stage, seconds: float) -> None:
        """The stage has taken its steps; the next one begins."""
        self.finished.append(stage.name)
        self.first_step += self.lengths[stage.name]
        self.began = seconds

    def label(self, title: str, stage: Stage) -> str:
        return title if len(self.stages) == 1 else f"{title}, {stage.name}"

    def tag(self, stage: Stage) -> dict[str, str]:
        """What logs say of the stage; nothing where there is one alone."""
        return {} if len(self.stages) == 1 else {"stage": stage.name}

    def as_dict(self) -> dict[str, Any]:
        return {"finished": self.finished, "first_step": self.first_step, "began": self.began, "lengths": self.lengths}

    def restore(self, stored: Mapping[str, Any], total: int | None) -> None:
        """Go on where a checkpoint stands; one without stages has the only stage's length as `total`."""
        if stored:
            self.finished = list(stored["finished"])
            self.first_step, self.began = stored["first_step"], stored["began"]
            self.lengths |= stored["lengths"]
        elif total is not None:
            self.lengths[self.stages[0].name] = total


def _planned_steps(config: TrainingConfig, rows: int, processes: int) -> int | None:
    """The run's length, or None where a time budget still has to be measured."""
    if config.steps is not None:
        return config.steps
    if config.budget is not None:
        return None
    epochs = config.epochs if config.epochs is not None else DEFAULT_EPOCHS
    return max(1, round(epochs * BatchOrder(rows, config.batch_size * processes, config.seed).per_epoch))
