"""The training loop, to be read from top to bottom."""

import time
from collections.abc import Mapping

from msvae.config import TrainingConfig
from msvae.data.augment import changes_anything
from msvae.data.base import Rows
from msvae.errors import GateError, Interrupted
from msvae.models.base import MultiSourceModel
from msvae.models.stages import RowSource, Stage
from msvae.networks.precision import flushed_denormals
from msvae.objectives.base import mean_loss
from msvae.training.augmented_rows import AugmentedRows
from msvae.training.average import RunningAverage
from msvae.training.checkpoint import RunFolder
from msvae.training.devices import accelerator_for, chosen_precision, kept_random_state
from msvae.training.gates import GATES
from msvae.training.log import MetricsLog, loss_figures
from msvae.training.optimizer import optimizer_of
from msvae.training.plan import StagePlan
from msvae.training.processes import Processes
from msvae.training.progress import Display, Quiet, shown, three_digits
from msvae.training.schedule import BatchOrder, balance_weights, learning_rate, progress_share
from msvae.training.signals import stop_signals
from msvae.training.state import TrainingState
from msvae.training.step import Stepper
from msvae.training.validation import is_due, validation_losses, watched

LOG_EVERY = 10
AFTER_TRAINING_ROWS = 5000
AFTER_TRAINING_LEAST_ROWS = 200
AFTER_TRAINING_BYTES = 1 << 29


@flushed_denormals()
def fit(
    model: MultiSourceModel,
    train: Rows,
    validation: Rows | None,
    config: TrainingConfig,
    run: RunFolder,
    *,
    resume: bool = False,
    measure: bool = True,
    display: Display | None = None,
    title: str = "training",
) -> MultiSourceModel:
    """Train a model and leave its checkpoints in the run folder, in which nobody else may train (`RunFolder.alone`).

    Args:
        validation: rows to watch the loss on, never trained on; None for no watching.
        model: with fresh weights; on `resume` they are replaced by those of the newest checkpoint.
        resume: go on where the newest checkpoint stands; on a CPU the result is bit for bit that of a run never stopped
            (a GPU sums in no fixed order).
        measure: also find what answers alone need, such as guidance; False, for timing, leaves the model without it.

    Returns:
        The model with its averaged weights, on the training device, in evaluation mode.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, after everything has been saved.
        NonFiniteError: if a loss, gradient or weight is not finite; the last good checkpoint stays.
    """
    accelerator = accelerator_for(config)
    processes = Processes(accelerator)
    display = (display or Quiet()) if processes.first else Quiet()
    averaged = RunningAverage(model)  # copied before the model is wrapped
    rate, decay, precision = config.learning_rate, config.weight_decay, chosen_precision(config)
    optimizer = optimizer_of(model, config.optimizer, rate, (0.9, 0.99), decay, precision)
    averaged.model.to(accelerator.device)
    wrapped = accelerator.prepare_model(model, evaluation_mode=True)  # gradients are added up by `Processes`
    optimizer = accelerator.prepare_optimizer(optimizer)
    for part in (model, averaged.model):
        processes.make_alike(part)  # users' own networks have no seed
    state = TrainingState(model, averaged, optimizer, accelerator, run)
    plan = StagePlan(model.stages, config, len(train), processes.count)
    processes.refuse_few_rows(plan.stages, len(train))
    validation = watched(validation, config, display) if processes.first else None
    step, seconds = 0, 0.0
    if resume:
        checkpoint = state.restore()
        step, seconds = checkpoint.step, checkpoint.seconds
        plan.restore(checkpoint.extra.get("stages", {}), checkpoint.total_steps)
        processes.agree("checkpoints", step)
    log = MetricsLog(run.metrics_log, writes=processes.first)
    log.cut_after(step)
    take_step = Stepper(wrapped, optimizer, state, train, config, accelerator, processes)
    saved_at = time.monotonic()

    rows: RowSource = train
    with shown(display, title, plan.total, step), stop_signals(processes) as stop, kept_random_state():
        unjudged = plan.last_trained()
        if unjudged is not None and not processes.told(log.has_gate, unjudged.name):  # its process was killed
            _check_gate(averaged.model, unjudged, validation, log, step, run, display, processes)
        for stage in plan.left():
            for part in (model, averaged.model):
                part.enter_stage(stage.name)
            averaged.begin(stage.ema_decay(config.ema_decay))
            length = plan.length(stage)
            if length == 0:
                plan.finish(stage, seconds)
                continue
            began = time.perf_counter()
            with accelerator.autocast():
                rows = _rows_of(stage, model, train, config)
            if plan.is_new(step):
                seconds += time.perf_counter() - began
                plan.begin(seconds)
            meter = plan.meter(step, seconds) if length is None else None
            balance = balance_weights(train.present, config.balance)
            if balance is not None:
                balance = balance.repeat(len(rows) // len(train))
            size = stage.batch_size(config.batch_size) * processes.count
            order = BatchOrder(len(rows), size, config.seed, balance)
            while length is None or step < plan.first_step + length:
                began = time.perf_counter()
                local = step - plan.first_step
                rate = learning_rate(local, config.learning_rate * stage.rate, config.warmup_steps, length)
                model.tell_progress(progress_share(local, config.warmup_steps, length), local)
                index = processes.part(order(local))
                parts = stage.parts(len(index), config.accumulation)
                losses = take_step(step, rows, index, parts, order.batch_size, rate)

                step += 1
                took = time.perf_counter() - began
                seconds += took
                if meter is not None and length is None:
                    length = processes.told(meter.add, took)
                    if length is not None:
                        plan.set_length(stage, length)
                        display.note(f"{plan.label(title, stage)}: {length} steps at this machine's speed")
                        processes.told(state.save, step, plan, seconds)
                last = length is not None and step == plan.first_step + length
                if step % LOG_EVERY == 0 or last:
                    figures = loss_figures(mean_loss(losses))
                    done = {"step": step, "seconds": seconds, "rows": (local + 1) * order.batch_size}
                    log.append({**done, **plan.tag(stage), **figures})
                    shown_figures = {**plan.tag(stage), **_shown_figures(figures, order.batch_size / took)}
                    display.update(step, plan.total, shown_figures)
                if validation is not None and is_due(local + 1, length, stage, plan):
                    validated = validation_losses(averaged.model, validation, stage, config)
                    named = {f"validation/{name}": value for name, value in validated.items()}
                    log.append({"step": step, **plan.tag(stage), **named})
                    if stage.keeps_best:
                        state.best.look(validated["loss"], step, averaged.model)
                if processes.any(stop.is_set()):
                    processes.told(state.save, step, plan, seconds)
                    raise Interrupted(
                        f"Stopped at step {step}; everything is saved in {run.path}. Go on with --resume."
                    )
                if processes.first and time.monotonic() - saved_at > config.checkpoint_seconds:
                    state.save(step, plan, seconds)
                    saved_at = time.monotonic()

            processes.told(state.save, step, plan, seconds)  # before anything else can go wrong
            if len(plan.stages) > 1:
                if state.best.step not in (0, step):
                    display.note(f"stage {stage.name!r}: the weights of step {state.best.step} did best")
                state.settle()  # the next stage builds on the averaged weights
                with accelerator.autocast():
                    model.end_stage(stage.name, train)
                    if measure:
                        model.measure_stage(stage.name, train)
                processes.make_alike(model)  # what each has computed by itself may differ by rounding
                state.settle_buffers()
                plan.finish(stage, seconds)
                processes.told(state.save, step, plan, seconds)
                _check_gate(averaged.model, stage, validation, log, step, run, display, processes)
            rows = train  # what the stage has computed is let go before the next one computes its own

        trained = averaged.model.eval()
        if measure:
            order = BatchOrder(len(train), 1, config.seed)
            trained.after_training(train.batch(order.some(_affordable_rows(train))), config.seed)
            processes.make_alike(trained)
        processes.told(state.save, step, plan, seconds, finished=True)
        if processes.any(stop.is_set()):
            raise Interrupted(f"Stopped after the last step; the training is finished, and saved in {run.path}.")
    return trained


def _rows_of(stage: Stage, model: MultiSourceModel, train: Rows, config: TrainingConfig) -> RowSource:
    """What a stage trains on: the training rows, or what is computed once, of every row in several random versions."""
    if not changes_anything(config.augment):
        return model.stage_rows(stage.name, train)
    versions = AugmentedRows(train, config.augment, config.seed)
    rows = model.stage_rows(stage.name, versions)
    return train if rows is versions else rows


def _affordable_rows(rows: Rows) -> int:
    """How many rows may lie in memory at once after training."""
    row_bytes = 4 * sum(source.value_count for source in rows.sources)
    return min(AFTER_TRAINING_ROWS, max(AFTER_TRAINING_LEAST_ROWS, AFTER_TRAINING_BYTES // row_bytes))


def _check_gate(
    model: MultiSourceModel,
    stage: Stage,
    validation: Rows | None,
    log: MetricsLog,
    step: int,
    run: RunFolder,
    display: Display,
    processes: Processes,
) -> None:
    """Whether a finished stage is good enough for the next one to build on, on validation rows."""

    def failure() -> str | None:
        if stage.gate is None or validation is None:
            return None
        model.eval()
        gate = GATES[stage.gate](model, validation)
        log.append({"step": step, "gate": stage.name, "passed": gate.failure is None, **gate.figures})
        told = " ".join(f"{name} {value:.3f}" for name, value in gate.figures.items())
        display.note(f"gate of stage {stage.name!r}: {told}")
        return gate.failure

    failed = processes.told(failure)
    if failed is not None:
        raise GateError(
            f"Stage {stage.name!r} failed its gate: {failed} Everything is kept in {run.path}. "
            "Train longer, or go on all the same with --resume."
        )


def _shown_figures(figures: Mapping[str, float], rows_per_second: float) -> dict[str, str]:
    short = {name.removeprefix("reconstruction/"): three_digits(value) for name, value in figures.items()}
    return {**short, "rows/s": three_digits(rows_per_second)}
