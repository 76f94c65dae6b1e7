"""The loss on validation rows, looked at several times in a stage."""

import torch

from msvae.config import TrainingConfig
from msvae.data.base import Rows
from msvae.models.base import MultiSourceModel
from msvae.models.stages import Stage, rows_at_once
from msvae.objectives.base import mean_loss
from msvae.training.log import loss_figures
from msvae.training.plan import StagePlan
from msvae.training.progress import Display
from msvae.training.schedule import BatchOrder, derived_seed

LOOKS_PER_RUN = 20
LOOKS_THAT_CHOOSE = 8
MOST_ROWS = 512
FEWEST_AT_ONCE = 16


def watched(validation: Rows | None, config: TrainingConfig, display: Display) -> Rows | None:
    """Validation rows that have a source, in no order: files lie sorted, often by class, and of many the first ones are
    looked at. Where there are none, that is told."""
    if validation is None:
        display.note("There is no validation split: neither losses nor gates are looked at.")
        return None
    order = BatchOrder(len(validation), 1, config.seed).some(len(validation))
    some = validation.presence().any(dim=0)
    order = order[some[order]]
    if not len(order):
        display.note("No validation row has any of the sources: neither losses nor gates are looked at.")
        return None
    return validation.take(order)


def is_due(local: int, length: int | None, stage: Stage, plan: StagePlan) -> bool:
    """After `local` steps of a stage of so many: its share of a run's looks, or more where they choose its weights, and
    one at its end."""
    if length is None:
        return False
    looks = LOOKS_THAT_CHOOSE if stage.keeps_best else max(1, LOOKS_PER_RUN // len(plan.stages))
    return local % max(1, length // looks) == 0 or local == length


@torch.no_grad()
def validation_losses(model: MultiSourceModel, rows: Rows, stage: Stage, config: TrainingConfig) -> dict[str, float]:
    """The mean loss of the first rows and its terms, by name, with the same noise every time."""
    generator = torch.Generator(model.device).manual_seed(derived_seed(config.seed, "validation", 0))
    at_once = max(stage.least_rows, min(config.batch_size, rows_at_once(model.sources)), FEWEST_AT_ONCE)
    was_training = model.training
    model.eval()
    index = torch.arange(min(len(rows), MOST_ROWS))
    losses = [(len(part), model.loss(rows.batch(part).to(model.device), generator)) for part in index.split(at_once)]
    model.train(was_training)
    return loss_figures(mean_loss(losses))
