"""Which numbers a device is quicker with, for networks outside of training too."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

MEASURED_ROWS, MEASURED_WIDTH, REPEATS = 1024, 512, 5  # a matrix product of some 10 ms
WORTH_IT = 0.8  # of the time in fp32


def prefers_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 for less time: a GPU that need not emulate it, a CPU that shows it.

    CPUs with instructions for it (AVX512-BF16) may gain much or lose: an Intel Xeon whose AMX was hidden by its virtual
    machine took 1.25 times as long for matrix products as in fp32, and 1.5 times for convolutions.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() and _is_quicker_on_cpu()


@cache
def _is_quicker_on_cpu() -> bool:
    """Measured once in a process: the quickest of some products in each precision, in turns."""
    quickest: dict[torch.dtype, float] = {}
    for _ in range(1 + REPEATS):  # the first ones prepare
        for precision in (torch.float32, torch.bfloat16):
            rows = torch.ones(MEASURED_ROWS, MEASURED_WIDTH, dtype=precision)
            weight = torch.ones(MEASURED_WIDTH, MEASURED_WIDTH, dtype=precision)
            began = time.perf_counter()
            torch.mm(rows, weight)
            quickest[precision] = min(time.perf_counter() - began, quickest.get(precision, float("inf")))
    return quickest[torch.bfloat16] < WORTH_IT * quickest[torch.float32]


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Within it numbers below 1e-38 are 0, on CPUs that can, in this thread and in those that it starts within.

    The gradient of a SiLU far below zero is such a number, and a CPU may take a hundred times as long for it: after
    2,600 steps of `mvtcae` 3 % of them in some maps made a step four times as long. PyTorch's other threads begin with
    its first large operation and stay as they began: a training in a process that has computed before is quicker by
    less.
    """
    before = float(torch.tensor(1e-40, dtype=torch.float32) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def autocast_for(device: torch.device, precision: str) -> torch.autocast:
    """The context in which networks run in a precision.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 where it is quicker.
    """
    wanted = precision == "bf16" or (precision == "auto" and prefers_bf16(device))
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
