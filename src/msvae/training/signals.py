"""Ctrl-C and SIGTERM, which stop a training after the step at hand."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from msvae.training.processes import Processes

STDERR = 2
ECHO_SECONDS = 3.0
STOPPING = b"\nStopping after this step, with everything saved; Ctrl-C again stops at once, at the last checkpoint.\n"


@contextmanager
def stop_signals(processes: Processes) -> Iterator[threading.Event]:
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop after the step; a second Ctrl-C stops at once.

    A process among several hears the first one twice: from the terminal, and from what has started it, which also asks
    it to end when another one has stopped.
    """
    wish = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    wished_at = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal wished_at
        if not wish.is_set():
            wish.set()
            wished_at = time.monotonic()
            if processes.first:
                os.write(STDERR, STOPPING)  # the one way to speak that is safe in a handler
        elif processes.count == 1 or (number == signal.SIGINT and time.monotonic() - wished_at > ECHO_SECONDS):
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
