"""Which numbers a device computes with natively, for networks outside of training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def native_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 numbers itself rather than by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def autocast_for(device: torch.device, precision: str) -> torch.autocast:
    """The context in which networks run in a precision.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 where it is native.
    """
    wanted = precision == "bf16" or (precision == "auto" and native_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


@contextmanager
def without_gradient() -> Iterator[None]:
    """`torch.no_grad` for networks that are asked again, with gradients, in the same autocast region.

    Autocast keeps what it has cast of weights; older versions of PyTorch also use casts that were made without a
    gradient where one is wanted, and the weights learn nothing.
    """
    with torch.no_grad():
        yield
    torch.clear_autocast_cache()
