"""How long work shows itself: a live line in a terminal, plain lines everywhere else, nothing when quiet."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_INTERVAL_SECONDS = 10.0
ROOMY_COLUMNS = 120  # in narrower terminals only the loss and the speed are shown
T = TypeVar("T")


@runtime_checkable
class Display(Protocol):
    """Where training and evaluation tell how far they are."""

    def start(self, title: str, total: int | None, done: int = 0) -> None: ...
    def update(self, done: int, total: int | None, figures: Mapping[str, str]) -> None: ...
    def finish(self, whole: bool = True) -> None: ...
    def note(self, text: str) -> None: ...


class Quiet:
    """Shows nothing."""

    def start(self, title: str, total: int | None, done: int = 0) -> None: ...
    def update(self, done: int, total: int | None, figures: Mapping[str, str]) -> None: ...
    def finish(self, whole: bool = True) -> None: ...
    def note(self, text: str) -> None: ...


class PlainLines:
    """A line every ten seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def start(self, title: str, total: int | None, done: int = 0) -> None:
        self.title, self.before, self.began = title, done, time.monotonic()
        self.next_line = self.began + PLAIN_INTERVAL_SECONDS / 5
        self.last = ""

    def update(self, done: int, total: int | None, figures: Mapping[str, str]) -> None:
        now = time.monotonic()
        new = done - self.before
        left = f", {_clock((now - self.began) / new * (total - done))} left" if total and new > 0 else ""
        shown = " ".join(f"{name} {value}" for name, value in figures.items())
        self.last = f"{self.title}: {done}/{total or '?'} {shown}{left}"
        if now >= self.next_line:
            self.next_line = now + PLAIN_INTERVAL_SECONDS
            self.note(self.last)
            self.last = ""

    def finish(self, whole: bool = True) -> None:
        if self.last:
            self.note(self.last)
        self.note(f"{self.title}: {'done in' if whole else 'stopped after'} {_clock(time.monotonic() - self.began)}")

    def note(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


class LiveBar:
    """A progress bar with figures, for terminals."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def start(self, title: str, total: int | None, done: int = 0) -> None:
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.progress.start()
        self.task = self.progress.add_task(title, total=total, completed=done, figures="")

    def update(self, done: int, total: int | None, figures: Mapping[str, str]) -> None:
        names = list(figures) if self.console.width >= ROOMY_COLUMNS else [*list(figures)[:1], *list(figures)[-1:]]
        shown = "  ".join(f"{name} {figures[name]}" for name in dict.fromkeys(names))
        self.progress.update(self.task, completed=done, total=total, figures=shown)

    def finish(self, whole: bool = True) -> None:
        self.progress.stop()

    def note(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


def display_for(console: Console) -> Display:
    """The display that fits where the console writes to."""
    return LiveBar(console) if console.is_terminal else PlainLines(console)


@contextmanager
def shown(display: Display, title: str, total: int | None, done: int = 0) -> Iterator[None]:
    """A stretch of work that always closes its bar, whatever happens in it.

    Args:
        done: how much of it was done before.
    """
    display.start(title, total, done)
    try:
        yield
    except BaseException:
        display.finish(whole=False)
        raise
    display.finish()


def tracked(items: Iterable[T], display: Display, title: str, total: int) -> Iterator[T]:
    """The items, one after the other, with their progress shown."""
    with shown(display, title, total):
        for done, item in enumerate(items):
            yield item
            display.update(done + 1, total, {})


Tell = Callable[[str, int, int], None]
"""A function of a title, how much is done and how much there is."""


@contextmanager
def teller(display: Display) -> Iterator[Tell]:
    """What shows work by such a function; what takes less than a second is not shown. It always closes its bar."""
    shown_title, began = "", {}

    def tell(title: str, done: int, total: int) -> None:
        nonlocal shown_title
        now = time.monotonic()
        if shown_title and shown_title != title:  # what came before ended early
            display.finish()
            shown_title = ""
        if now - began.setdefault(title, now) > 1.0 and not shown_title and done < total:
            display.start(title, total)
            shown_title = title
        if shown_title:
            display.update(done, total, {})
        if done >= total:
            del began[title]
            if shown_title:
                display.finish()
                shown_title = ""

    try:
        yield tell
    finally:
        if shown_title:
            display.finish(whole=False)


def three_digits(value: float) -> str:
    """Three significant digits, but all those before the point: 1541, 26.4, -1.29, 0.0312."""
    return f"{value:.0f}" if abs(value) >= 99.95 or value == 0 else f"{value:#.3g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{rest:02d}"
