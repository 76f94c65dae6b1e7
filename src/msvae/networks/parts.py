"""Rows through a network in parts, each on a core of its own."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Answer = TypeVar("Answer")


def in_parts(function: Callable[..., Answer], device: torch.device, *arguments: Iterable[Any]) -> list[Answer]:
    """The function of every part, as `map` gives them, in their order.

    Threads that share every operation of a small network wait for one another most of the time; a part needs nothing of
    the others. So on a CPU, and where no gradients are kept, every part is computed by one thread, as many at once as
    PyTorch has threads (`torch.set_num_threads`).

    Args:
        function: of one part; draws no random numbers.
        device: where it computes.
        arguments: of the function, each in parts.
    """
    parts = list(zip(*arguments, strict=True))
    threads = min(torch.get_num_threads(), len(parts))
    if device.type != "cpu" or threads == 1 or torch.is_grad_enabled():
        return [function(*part) for part in parts]

    def without_gradients(part: tuple[Any, ...]) -> Answer:
        with torch.no_grad():  # the mode is each thread's own
            return function(*part)

    with _one_core_each(threads) as pool:
        return list(pool.map(without_gradients, parts))


@contextmanager
def _one_core_each(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads within which operations are not divided; the caller's own number of threads stays."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)  # the workers have set what later threads begin with
