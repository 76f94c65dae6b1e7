"""Another run on the same data beside a report's own: the figures that stand for the whole, and generated rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from msvae.evaluation.yardstick import mean
from msvae.reporting import page
from msvae.reporting.tables import number
from msvae.training.run import Run


def beside_section(
    run: Run,
    figures: Mapping[str, Any] | None,
    other: Run,
    other_figures: Mapping[str, Any],
    strips: Sequence[str],
) -> str:
    """A table of both runs' figures on test rows, and rows that the other one generates.

    Args:
        figures: of the report's own run; None where it has not been tested.
        strips: rows that the other one generates, drawn.
    """
    names = [f"{entry.config.model.method} ({entry.folder.state().seconds:.0f} s)" for entry in (run, other)]
    columns = [compared_figures(figures) if figures is not None else {}, compared_figures(other_figures)]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    rows = [[label, *(number(column.get(label)) for column in columns)] for label in labels]
    return page.section(
        f"Beside it: {other.config.model.method}",
        "Both on the same test rows, with their seconds of training; then rows that the second one generates.",
        page.table(["", *names], rows),
        *strips,
    )


def compared_figures(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures that methods of any kind have in common."""
    made = figures["generation"]
    return {
        **{f"coherence from {size} given": value for size, value in figures["conditional_coherence"].items()},
        "joint coherence, generated": figures["joint_coherence"],
        "class entropy, generated": made.get("class_entropy"),
        "within-class variance": made.get("within_class_variance"),
        "Fréchet distance, source classifier": made.get("frechet"),
        "PSNR of reconstructions, dB": mean([entry["psnr"] for entry in figures["sources"].values()]),
    }
