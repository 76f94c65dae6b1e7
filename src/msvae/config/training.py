"""How to train: length, optimiser, precision, device."""

from typing import Annotated, Literal

from pydantic import Field

from msvae.config.base import Settings
from msvae.config.data import AugmentConfig


class TrainingConfig(Settings):
    """How to train. One of `budget`, `steps` and `epochs` sets the length; without any, 30 epochs.

    Args:
        seed: of weights, order, noise and augmentation.
        budget: seconds of optimiser steps; becomes a number of steps, of each stage its own, from the speed of the
            first ones. A run of those numbers is the same run, if the warm-up has at least 30 steps (the speed is
            measured during it).
        least_steps: of a budget: so many steps are taken however slow the machine is, shared by stages as time is.
        steps, epochs: optimiser steps, and passes over the rows.
        stage_steps: of methods that train in stages: numbers of steps of some of them, whatever the run's length; 0
            leaves a stage out.
        batch_size: rows of one optimiser step; of each process, where several train one model.
        accumulation: number of equal parts a batch is computed in, to save memory; fewer where a stage needs more rows
            at once (the autoencoders of the flow: 8, which also is their smallest batch).
        optimizer: `muon`: orthogonalised momentum for the weights of ungrouped convolutions and of linear maps that
            have 16 inputs and outputs or more and are not large, AdamW for all others; or `adamw` for all.
        learning_rate, warmup_steps: linear warm-up, then a cosine to 1 % of the rate.
        weight_decay: share of a weight that a step at rate 1 takes away.
        ema_decay: decay of the averaged weights, which answer all questions; 0 turns averaging off. Stages of some
            methods average over twice as many steps.
        precision: `fp32`, `bf16` or `fp16`; `auto` takes bf16 where the machine is quicker with it. What
            was taken is recorded with the run.
        device: `auto` (the best there is), `cpu`, `cuda` or `mps`.
        gradient_clip: largest gradient norm, or None.
        checkpoint_seconds: time between checkpoints; one more at the end and one on Ctrl-C.
        balance: how much more often rows with rare sources are drawn: with weights max over their sources of
            (1 / share of the rows that have the source)^balance. 0 draws every row once an epoch.
        augment: random changes of training rows.
    """

    seed: int = Field(default=0, ge=0, lt=2**32)
    budget: float | None = Field(default=None, gt=0)
    least_steps: int = Field(default=0, ge=0)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    stage_steps: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    batch_size: int = Field(default=128, ge=1)
    accumulation: int = Field(default=1, ge=1)
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    gradient_clip: float | None = Field(default=None, gt=0)
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    balance: float = Field(default=0.0, ge=0, le=1)
    augment: AugmentConfig = AugmentConfig()
