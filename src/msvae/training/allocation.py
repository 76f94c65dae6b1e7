"""Memory between the steps of a training on a CPU."""

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names for them, see `man 3 mallopt`
KEPT = 2**30  # bytes
OWN_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory for the next step.

    By default it gives large blocks back to the system, which hands them out again page by page, each zeroed first: of
    a step of small networks that is a quarter to a third. What a process needs at most stays the same. Nothing is
    changed where the environment chooses an allocator or its thresholds, and elsewhere than on Linux with glibc.
    """
    if sys.platform != "linux" or any(name in os.environ for name in OWN_CHOICE):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, KEPT)
        mallopt(TRIM_THRESHOLD, KEPT)
