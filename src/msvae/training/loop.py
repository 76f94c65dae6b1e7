"""The training loop, to be read from top to bottom."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from msvae.config import TrainingConfig
from msvae.data.augment import augmented
from msvae.data.base import Rows
from msvae.errors import Interrupted, NonFiniteError
from msvae.models.base import Loss, MultiSourceModel
from msvae.training.checkpoint import RunFolder
from msvae.training.devices import accelerator_for
from msvae.training.log import MetricsLog
from msvae.training.progress import Display, Quiet, shown
from msvae.training.schedule import BatchOrder, BudgetMeter, balance_weights, derived_seed, learning_rate
from msvae.training.state import TrainingState, model_of, non_finite_text

DEFAULT_EPOCHS = 30
LOG_EVERY = 10
VALIDATIONS_PER_RUN = 20
VALIDATION_ROWS = 512
AFTER_TRAINING_ROWS = 5000
AFTER_TRAINING_LEAST_ROWS = 200
AFTER_TRAINING_BYTES = 1 << 29
SMALLEST_LOSS_SCALE = 1e-6


def fit(
    model: MultiSourceModel,
    train: Rows,
    validation: Rows | None,
    config: TrainingConfig,
    run: RunFolder,
    *,
    resume: bool = False,
    display: Display | None = None,
    title: str = "training",
) -> MultiSourceModel:
    """Train a model and leave its checkpoints in the run folder.

    Args:
        validation: rows to watch the loss on, never trained on; None for no watching.
        model: with fresh weights; on `resume` they are replaced by those of the newest checkpoint.
        resume: go on where the newest checkpoint stands; the result is bit for bit that of a run never stopped.

    Returns:
        The model with its averaged weights, on the training device, in evaluation mode.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, after everything has been saved.
        NonFiniteError: if a loss, gradient or weight is not finite; the last good checkpoint stays.
    """
    display = display or Quiet()
    accelerator = accelerator_for(config)
    averaged = AveragedModel(model, multi_avg_fn=_average_with(config.ema_decay))  # copied before the model is wrapped
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    averaged.to(accelerator.device)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    state = TrainingState(model, averaged, optimizer, accelerator, run)
    step, seconds, total = 0, 0.0, _planned_steps(config, len(train))
    if resume:
        checkpoint = state.restore()
        step, seconds, total = checkpoint.step, checkpoint.seconds, checkpoint.total_steps or total
    log = MetricsLog(run.metrics_log)
    log.cut_after(step)
    meter = BudgetMeter(config.budget, step, seconds, config.warmup_steps - 10) if config.budget else None
    order = BatchOrder(len(train), config.batch_size, config.seed, balance_weights(train.present, config.balance))
    generator = torch.Generator(accelerator.device)
    changes = torch.Generator(accelerator.device)
    saved_at = time.monotonic()

    with shown(display, title, total), _stop_signals() as stop, torch.random.fork_rng():
        while total is None or step < total:
            began = time.perf_counter()
            torch.manual_seed(derived_seed(config.seed, "noise", step))  # for users' modules with dropout and the like
            generator.manual_seed(derived_seed(config.seed, "noise", step))
            model.progress = step / total if total else 0.0
            changes.manual_seed(derived_seed(config.seed, "augment", step))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config.learning_rate, config.warmup_steps, total)

            index = order(step)
            parts = index.tensor_split(min(config.accumulation, len(index)))
            losses: list[Loss] = []
            for part in parts:
                batch = augmented(train.batch(part).to(accelerator.device), train.sources, config.augment, changes)
                loss = wrapped(batch, generator)
                _refuse_non_finite_loss(loss, step, run)
                accelerator.backward(loss.total * (len(part) / len(index)))
                losses.append(loss)
            _refuse_non_finite_gradients(model, config, accelerator, step, run)
            optimizer.step()
            optimizer.zero_grad()
            averaged.update_parameters(model)

            step += 1
            took = time.perf_counter() - began
            seconds += took
            if meter is not None and total is None:
                total = meter.add(took)
                if total is not None:
                    display.note(f"{title}: {config.budget:g} s are {total} steps at this machine's speed")
                    state.save(step, total, seconds)
            if step % LOG_EVERY == 0 or step == total:
                figures = _figures(losses)
                log.append({"step": step, "seconds": round(seconds, 3), "rows": step * order.batch_size, **figures})
                display.update(step, total, _shown_figures(figures, order.batch_size / took))
            if validation is not None and _validation_is_due(step, total):
                validated = _validate(averaged.module, validation, config, accelerator.device)
                log.append({"step": step, **{f"validation/{name}": value for name, value in validated.items()}})
            if stop.is_set():
                state.save(step, total, seconds)
                raise Interrupted(f"Stopped at step {step}; everything is saved in {run.path}. Go on with --resume.")
            if time.monotonic() - saved_at > config.checkpoint_seconds:
                state.save(step, total, seconds)
                saved_at = time.monotonic()

    state.save(step, total, seconds)  # before anything else can go wrong
    trained = model_of(averaged).eval()
    trained.after_training(train.batch(order.some(_affordable_rows(train))), config.seed)
    state.save(step, total, seconds, finished=True)
    return trained


def _affordable_rows(rows: Rows) -> int:
    """How many rows may lie in memory at once after training."""
    row_bytes = 4 * sum(source.value_count for source in rows.sources)
    return min(AFTER_TRAINING_ROWS, max(AFTER_TRAINING_LEAST_ROWS, AFTER_TRAINING_BYTES // row_bytes))


def _average_with(decay: float) -> Any:
    """An exponential moving average whose decay starts low, so that short runs do not remember their first weights."""

    def average(averages: list[Tensor], currents: list[Tensor], count: Any) -> None:
        steps = int(count)
        weight = 1.0 - min(decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(averages, currents, weight)  # pyright: ignore[reportPrivateImportUsage]

    return average


def _planned_steps(config: TrainingConfig, rows: int) -> int | None:
    """The run's length, or None where a time budget still has to be measured."""
    if config.steps is not None:
        return config.steps
    if config.budget is not None:
        return None
    epochs = config.epochs if config.epochs is not None else DEFAULT_EPOCHS
    return max(1, round(epochs * BatchOrder(rows, config.batch_size, config.seed).per_epoch))


def _refuse_non_finite_loss(loss: Loss, step: int, run: RunFolder) -> None:
    if bool(torch.isfinite(loss.total)):
        return
    guilty = [name for name, value in loss.terms.items() if not bool(torch.isfinite(value))]
    sources = [name.split("/", 1)[1] for name in guilty if "/" in name]
    what = f"the loss of source {', '.join(map(repr, sources))}" if sources else f"the loss ({', '.join(guilty)})"
    raise NonFiniteError(non_finite_text(what, step, run))


def _refuse_non_finite_gradients(
    model: MultiSourceModel, config: TrainingConfig, accelerator: Accelerator, step: int, run: RunFolder
) -> None:
    if accelerator.scaler is not None:
        if config.gradient_clip is not None:
            accelerator.clip_grad_norm_(model.parameters(), config.gradient_clip)
        if accelerator.scaler.get_scale() < SMALLEST_LOSS_SCALE:
            raise NonFiniteError(non_finite_text("every gradient, at any loss scale,", step, run))
        return  # the scaler skips single such steps by itself
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(gradient) for _, gradient in named])
    norm = torch.linalg.vector_norm(norms)
    if not bool(torch.isfinite(norm)):
        name = next(name for (name, _), value in zip(named, norms, strict=True) if not bool(torch.isfinite(value)))
        raise NonFiniteError(non_finite_text(f"the gradient of {name}", step, run))
    if config.gradient_clip is not None and float(norm) > config.gradient_clip:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), config.gradient_clip, norm)


def _figures(losses: list[Loss]) -> dict[str, float]:
    """Mean loss terms over the parts of a batch."""
    figures = {"loss": sum(float(loss.total.detach()) for loss in losses) / len(losses)}
    for name in {name: None for loss in losses for name in loss.terms}:
        values = [float(loss.terms[name]) for loss in losses if name in loss.terms]
        figures[name] = sum(values) / len(values)
    return {name: round(value, 4) for name, value in figures.items()}


def _shown_figures(figures: Mapping[str, float], rows_per_second: float) -> dict[str, str]:
    short = {name.removeprefix("reconstruction/"): f"{value:.0f}" for name, value in figures.items()}
    return {**short, "rows/s": f"{rows_per_second:.0f}"}


def _validation_is_due(step: int, total: int | None) -> bool:
    return total is not None and (step % max(1, total // VALIDATIONS_PER_RUN) == 0 or step == total)


@torch.no_grad()
def _validate(model: Any, rows: Rows, config: TrainingConfig, device: torch.device) -> dict[str, float]:
    """The loss on validation rows, with the averaged weights and the same noise every time."""
    generator = torch.Generator(device).manual_seed(derived_seed(config.seed, "validation", 0))
    was_training = model.training
    model.eval()
    index = torch.arange(min(len(rows), VALIDATION_ROWS))
    index = index[torch.stack([present[index] for present in rows.present.values()]).any(dim=0)]
    losses = [model.loss(rows.batch(part).to(device), generator) for part in index.split(max(config.batch_size, 16))]
    model.train(was_training)
    return _figures(losses) if losses else {}


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop after the step; a second Ctrl-C stops at once."""
    wish = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if wish.is_set():
            raise KeyboardInterrupt
        wish.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
