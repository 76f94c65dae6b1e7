"""Where models are trained and answer, and in which precision, by Hugging Face Accelerate."""

import os
from contextlib import AbstractContextManager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from msvae.config import TrainingConfig
from msvae.errors import ConfigError, unknown
from msvae.launched import several_processes
from msvae.networks.precision import prefers_bf16

VARIABLE = "MSVAE_DEVICE"
PATIENCE_HOURS = 2  # of processes with one that makes a data set, or looks at a gate


def device_named(name: str = "auto", what: str = "Device") -> torch.device:
    """The device of a name.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`: what the environment variable MSVAE_DEVICE names, else the best
            there is.
        what: who asks for it, for errors.

    Raises:
        ConfigError: for a device that is not known, or not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name, what = os.environ.get(VARIABLE) or "auto", VARIABLE
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    kind, _, number = name.partition(":")
    if kind not in there or not (number.isdecimal() or name == kind):
        raise ConfigError(f"{what}: {unknown('device', name, ['auto', *there])}")
    if not there[kind] or (kind == "cuda" and number and int(number) >= torch.cuda.device_count()):
        raise ConfigError(f"{what}: there is no {name} device on this machine.")
    return torch.device(name)


def accelerator_for(config: TrainingConfig) -> Accelerator:
    """An accelerator of the wanted device and precision.

    Raises:
        ConfigError: for a device that is not there, fp16 on a CPU, or processes that cannot train together.
    """
    device = training_device(config)
    if several_processes():
        _refuse_device_of_several(device)
    elif device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # Accelerate takes the current one
    AcceleratorState._reset_state(True)  # global to the process; another run in it may want something else
    precision = chosen_precision(config)
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=PATIENCE_HOURS))
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision, cpu=device.type == "cpu", kwargs_handlers=[patience]
    )


def _refuse_device_of_several(device: torch.device) -> None:
    """Processes that a launcher has started: a GPU each, or all on the CPU."""
    count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if "LOCAL_RANK" not in os.environ or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"Several processes on {device.type}: start them with torchrun, on GPUs or on the CPU.")
    if device.index is not None:
        raise ConfigError(f"Setting 'training.device': {device} for several processes; cuda gives each its own.")
    if device.type == "cuda" and count > torch.cuda.device_count():
        raise ConfigError(f"{count} processes for {torch.cuda.device_count()} GPUs; start as many as there are.")


def kept_random_state() -> AbstractContextManager[None]:
    """Within it the global random numbers of CPU and CUDA may be seeded; those of before come back."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))


def training_device(config: TrainingConfig) -> torch.device:
    """Where a training runs."""
    return device_named(config.device, "Setting 'training.device'")


def chosen_precision(config: TrainingConfig) -> str:
    """The precision to train in: the chosen one, or for `auto` bf16 where the device is quicker with it.

    Raises:
        ConfigError: for fp16 on a CPU, or a device that is not there.
    """
    device = training_device(config)
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError("Setting 'training.precision': fp16 needs a CUDA device; use bf16, fp32 or auto.")
    if config.precision != "auto":
        return config.precision
    return "bf16" if prefers_bf16(device) else "fp32"
