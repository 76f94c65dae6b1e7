"""The tables of all comparisons as one Markdown page, made of the files of results alone."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msvae.benchmarking.markdown import by_method, cell, header, line, sizes_of
from msvae.benchmarking.results import Results
from msvae.files import read_json
from msvae.reporting.tables import number

INTRODUCTION = """# Benchmarks

Made by `msvae bench table` from the files in `benchmarks/results`; [benchmarks/README.md](../benchmarks/README.md)
has the commands that made those.

Every method of a table was trained on the same rows for the same time: a budget is a number of steps, from the
seconds that a step takes on the idle machine with two threads; most runs took these steps beside others, with one.
What is done between and after the steps does not count for any method: joint VAEs fit their sampler, the flow also
computes codes and latents of all rows and measures its guidance ([how long](flow-measured.md#beside-the-steps)). All
figures are of **test rows**. Ours share the settings of `msvae.benchmarking.settings`; what was chosen for a method
(how the flow is sampled, on validation rows), and which rows had a second training of the judges, is told in
[benchmarks/README.md](../benchmarks/README.md), as are the settings of tables with a word after their title. [The
guide](guide.md#what-the-figures-mean) says what each figure means. A method called `peer ...` is that of PyPI
`multivae` with its own networks and published settings, untuned, judged by the same judges.

- **k given**: coherence of the source that is drawn from k others, mean over all subsets and targets. **joint**:
  share of generated rows on which all sources agree, drawn from the prior and from a Gaussian mixture fitted to
  training codes (for `mld`: by its diffusion). A sample that a verifier is unsure of (below .5) counts as wrong.
- **entropy, variance**: of the generated classes, and of features within classes, beside those of real rows (1). Low
  values mean that coherence is cheap.
- **FD112**: Fréchet distance in the features of EfficientNet-Lite0's 112-channel map, mean over sources; not FID.
  Conditional from all other sources, generated (prior, mixture), and reconstructed: expected images, of the same test
  images that they are compared with, so that a perfect autoencoder has 0.
- **fall**: the largest loss of coherence from k to k+1 given sources; a sound model has 0.
- **probe**: linear classifier on the code from one source and from all.
"""
Cell = tuple[str, str, int]  # heading, figure, digits


def _quality_table(table: Results, variant: str = "") -> str:
    """The section of a table; `variant`: the name of its folder, where other settings have their own."""
    terms = table.terms
    sizes = sizes_of(table.ceilings, "coherence")
    cells: list[Cell] = [(f"{size} given", f"coherence_{size}", 3) for size in sizes]
    cells += [
        ("fall", "coherence_fall", 3),
        ("joint, prior", "prior_joint_coherence", 3),
        ("joint, mixture", "joint_coherence", 3),
        ("entropy", "class_entropy", 2),
        ("variance", "within_class_variance", 2),
        ("FD112 cond.", f"frechet_conditional_{sizes[-1]}" if sizes else "", 0),
        ("FD112 prior", "prior_frechet_unconditional", 0),
        ("FD112 mixture", "frechet_unconditional", 0),
        ("FD112 recon.", "frechet_reconstruction", 0),
        ("probe 1", "probe_1", 3),
        ("probe all", "probe_all", 3),
        ("PSNR", "psnr", 1),
    ]
    missing = f", {terms.missing:.0%} of the training images missing" if terms.missing else ""
    title = f"{terms.data}, {terms.budget:g} s of training{missing}"
    lines = [f"## {title}; {variant}" if variant else f"## {title}", ""]
    lines += header(["method", "steps", "epochs", "seeds", "precision", *(heading for heading, _, _ in cells)])
    for method, rows in by_method(table.rows).items():
        row = rows[0]
        precisions = ", ".join(sorted({row.get("precision", "") for row in rows}))
        facts = [_named(method, rows), str(row["steps"]), _epochs(row), str(len(rows)), precisions]
        lines.append(line([*facts, *(cell([r["figures"].get(figure) for r in rows], d) for _, figure, d in cells)]))
    real = [cell([table.ceilings.get(figure)], digits) for _, figure, digits in cells]
    lines.append(line(["*real rows*", "", "", "", "", *real]))
    looked = "all" if terms.test_rows is None else str(terms.test_rows)
    pictures = table.ceilings.get("photographs") or 0
    fewer = terms.test_rows is not None and terms.test_rows < pictures
    distances = f"{pictures or 'no'} images in every Fréchet distance"
    if fewer:
        distances += f" but those of conversions and reconstructions ({terms.test_rows})"
    lines += [
        "",
        f"{looked} test rows, {terms.generated_rows} generated rows, {distances}. {_circumstances(table.rows)}",
        "",
    ]
    return "\n".join(lines)


def _named(method: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The method, and the stages at whose gates a training would have stopped."""
    failed = sorted({stage for row in rows for stage in row.get("failed_gates", ())})
    return f"{method} (gate not passed: {', '.join(failed)})" if failed else method


def _epochs(row: Mapping[str, Any]) -> str:
    """Passes over the rows; a dash for training in stages, whose batches have sizes of their own."""
    if len(row.get("stages", ())) > 1:
        return number(None)
    return number(row["steps"] * row["batch_size"] / row["rows_in_training"], 1)


def _circumstances(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where and when the rows were measured, once if it was the same for all."""
    machines = sorted({f"{_machine(row)}, torch {row['torch']}" for row in rows})
    dates = sorted({row["date"][:10] for row in rows})
    commits = sorted({row["commit"] or f"msvae {row['msvae']}" for row in rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{when}; {'; '.join(machines)}; commit {', '.join(commits)}."


def _machine(row: Mapping[str, Any]) -> str:
    """The GPU, where there was one, and the processor."""
    device = row.get("device", "cpu")
    return f"{'' if device == 'cpu' else device + ', '}{row['processor']}, {row['threads']} threads"


def anchors_section(path: Path) -> str:
    """Published figures, apart from the measured ones."""
    content = read_json(path)
    lines = ["## Published figures (not measured here)", "", content["note"], ""]
    for group in content["groups"]:
        lines += [f"**{group['title']}**", "", *header(["method", *group["columns"], "read from"])]
        lines += [line([row["method"], *map(str, row["values"]), row["mark"]]) for row in group["rows"]]
        lines.append("")
    return "\n".join(lines)


def table_section(path: Path) -> str:
    """A table whose columns and cells the file has ready."""
    content = read_json(path)
    lines = [f"## {content['title']}", "", content["note"], "", *header(content["columns"])]
    lines += [line([str(cell) for cell in row]) for row in content["table"]]
    lines += ["", _circumstances(content.get("rows") or [content["circumstances"]]), ""]
    return "\n".join(lines)


def page(results: Path, anchors: Path | None = None) -> str:
    """The whole page: every table of results in a folder and its subfolders, then what is published elsewhere."""
    parts = [_quality_table(table) for table in _tables(results)]
    for variant in sorted(path for path in results.iterdir() if path.is_dir()):
        parts += [_quality_table(table, variant.name) for table in _tables(variant)]
    if anchors is not None:
        parts.append(anchors_section(anchors))
    ready = [path for kind in ("translation", "speed") for path in sorted(results.glob(f"{kind}-*.json"))]
    parts += [table_section(path) for path in ready]
    return "\n".join([INTRODUCTION, contents(parts), *parts])


def _tables(folder: Path) -> list[Results]:
    """Those of complete rows first, short budgets before long ones."""
    tables = [Results(path) for path in sorted(folder.glob("quality-*.json"))]
    return sorted(tables, key=lambda table: (table.terms.data, table.terms.missing, table.terms.budget))


def contents(sections: Sequence[str]) -> str:
    """Links to the sections, which begin with their titles."""
    titles = [section.partition("\n")[0].removeprefix("## ") for section in sections]
    links = [_anchor(title) + _again(titles[:place].count(title)) for place, title in enumerate(titles)]
    return "\n".join([*(f"- [{title}](#{link})" for title, link in zip(titles, links, strict=True)), ""])


def _anchor(title: str) -> str:
    """What a link to a heading calls it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _again(before: int) -> str:
    """Headings of one title are told apart by a number."""
    return f"-{before}" if before else ""
