"""Pieces of Markdown tables, and figures of several seeds as one cell."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msvae.reporting.tables import number

Row = Mapping[str, Any]


def header(names: Sequence[str]) -> list[str]:
    return [line(names), "|" + " --- |" * len(names)]


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def cell(values: Sequence[float | None], digits: int) -> str:
    """A figure, or the mean of several seeds with half of their range behind it."""
    known = [value for value in values if value is not None]
    if not known:
        return number(None)
    mean = number(sum(known) / len(known), digits)
    return mean if len(known) == 1 else f"{mean} ± {number((max(known) - min(known)) / 2, digits)}"


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each method, one for every seed; best coherence from one source first."""
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row["method"], []).append(row)
    return dict(sorted(methods.items(), key=lambda item: -_mean_coherence(item[1])))


def sizes_of(figures: Iterable[str], kind: str) -> list[int]:
    """Numbers of given sources, in order, of the figures of a kind: `coherence` has coherence_1, coherence_2, ..."""
    endings = (name.removeprefix(f"{kind}_") for name in figures if name.startswith(f"{kind}_"))
    return sorted(int(ending) for ending in endings if ending.isdigit())


def _mean_coherence(rows: Sequence[Row]) -> float:
    known = [row["figures"].get("coherence_1") or 0.0 for row in rows]
    return sum(known) / len(known)
