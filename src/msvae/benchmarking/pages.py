"""The page of a method gets its own figures from the files of results, so that none is written by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msvae.benchmarking.markdown import by_method, cell, header, line, sizes_of
from msvae.benchmarking.results import Results
from msvae.errors import ConfigError
from msvae.files import write_text

LARGEST = "frechet_conditional"  # from all other sources, however many these are
BEGIN, END = "<!-- begin: msvae bench table -->", "<!-- end -->"
CELLS = [
    *((f"{size} given", f"coherence_{size}", 3) for size in range(1, 5)),
    ("joint, prior", "prior_joint_coherence", 3),
    ("joint, mixture", "joint_coherence", 3),
    ("FD112 cond.", LARGEST, 0),
    ("FD112 prior", "prior_frechet_unconditional", 0),
    ("FD112 mixture", "frechet_unconditional", 0),
]


def figures_of(method: str, tables: Sequence[Results]) -> str:
    """A Markdown table with one line for each table of results that has the method."""
    lines = []
    for table in tables:
        rows = by_method(table.rows).get(method, [])
        if not rows:
            continue
        terms = table.terms
        missing = f", {terms.missing:.0%} missing" if terms.missing else ""
        facts = [f"{terms.data}, {terms.budget:g} s{missing}", str(len(rows))]
        known = [_with_largest(row["figures"]) for row in rows]
        lines.append(line([*facts, *(cell([figures.get(figure) for figures in known], d) for _, figure, d in CELLS)]))
    if not lines:
        return "Not measured yet."
    return "\n".join([*header(["training", "seeds", *(heading for heading, _, _ in CELLS)]), *lines])


def _with_largest(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures, and the conditional distance of most given sources under a name of its own."""
    sizes = sizes_of(figures, LARGEST)
    return {**figures, LARGEST: figures[f"{LARGEST}_{sizes[-1]}"] if sizes else None}


def write_figures(folder: Path, methods: Sequence[str], results: Path) -> list[Path]:
    """Put the figures of every method between the two marks of its page; returns the pages.

    Raises:
        ConfigError: if a page lacks the marks.
    """
    tables = [Results(path) for path in sorted(results.glob("quality-*.json"))]
    written = []
    for method in methods:
        path = folder / f"{method.replace('+', '-plus')}.md"
        if not path.exists():
            continue
        before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ConfigError(f"{path} has no place for figures; expected {BEGIN} and, below it, {END}.")
        write_text(path, f"{before}{BEGIN}\n{figures_of(method, tables)}\n{END}{after}")
        written.append(path)
    return written
