"""Where training runs and in which precision, by Hugging Face Accelerate; what cannot be had is refused."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from msvae.config import TrainingConfig
from msvae.errors import ConfigError
from msvae.networks.precision import native_bf16


def accelerator_for(config: TrainingConfig) -> Accelerator:
    """An accelerator of the wanted device and precision.

    Raises:
        ConfigError: for a device that is not there, fp16 on a CPU, or more than one process.
    """
    _refuse_missing_device(config)
    AcceleratorState._reset_state(True)  # global to the process; another run in it may want something else
    precision = native_precision(config)
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=config.device == "cpu")
    if accelerator.num_processes > 1:
        raise ConfigError("Training in several processes is not supported yet; start one.")
    return accelerator


def native_precision(config: TrainingConfig) -> str:
    """The precision to train in: the chosen one, or for `auto` bf16 where the device computes it natively.

    Raises:
        ConfigError: for fp16 on a CPU.
    """
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    if config.precision == "fp16" and not on_gpu:
        raise ConfigError("Setting 'training.precision': fp16 needs a CUDA device; use bf16, fp32 or auto.")
    if config.precision != "auto":
        return config.precision
    return "bf16" if native_bf16(torch.device("cuda" if on_gpu else "cpu")) else "fp32"


def _refuse_missing_device(config: TrainingConfig) -> None:
    there = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[config.device]:
        raise ConfigError(f"Setting 'training.device': there is no {config.device} device on this machine.")
