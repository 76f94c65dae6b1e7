"""Curves as SVG, readable on light and dark pages."""

import io
import itertools
from typing import Any

PALETTE = ("#2f6fdf", "#d99a00", "#2b9d5f", "#c2476b", "#7a55c7", "#3aa0a8", "#8a6d3b")


def loss_curves(records: list[dict[str, Any]]) -> str:
    """Negative log-likelihood per source and KL over the steps, training thin and validation thick; an SVG element."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(key for record in records for key in record if key.startswith("reconstruction/")))
    figure = Figure(figsize=(9.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour in zip(names, itertools.cycle(PALETTE), strict=False):
        _curve(left, records, name, colour, name.removeprefix("reconstruction/"))
    _curve(right, records, "kl", "#6b6f76", "KL")
    left.set_title("−log p(x | z), nats per image", fontsize=9, loc="left")
    right.set_title("KL(q(z | x) || p(z)), nats per row", fontsize=9, loc="left")
    for axes in (left, right):
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    left.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.set_facecolor("none")
    figure.set_facecolor("none")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace("#000000", "currentColor")


def _curve(axes, records: list[dict[str, Any]], name: str, colour: str, label: str) -> None:  # type: ignore[no-untyped-def]
    watched = any(f"validation/{name}" in record for record in records)
    skip = max((record["step"] for record in records), default=0) * 0.02  # the first steps would set the scale
    for key, width, alpha, shown in (
        (name, 0.8, 0.45, None if watched else label),
        (f"validation/{name}", 2.0, 1.0, label),
    ):
        points = [(record["step"], record[key]) for record in records if key in record and record["step"] > skip]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, alpha=alpha, label=shown)
