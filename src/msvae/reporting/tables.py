"""Tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from msvae.config.described import Described
    from msvae.data.sets import KnownSet
    from msvae.models.published import Method


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def print_figures(figures: Mapping[str, Any], console: Console) -> None:
    """All figures of `metrics.json`, in tables."""
    console.print(_sources_table(figures["sources"]))
    if figures["conversion"]:
        console.print(_conversion_table(figures["conversion"]))
    console.print(_summary(figures))


def print_beside(runs: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """The figures that runs of any methods have in common, beside one another."""
    table = Table("", *runs, title="Beside each other", title_justify="left")
    for row in compared_rows(list(runs.values())):
        table.add_row(*row)
    console.print(table)


def compared_rows(runs: Sequence[Mapping[str, Any] | None]) -> list[tuple[str, ...]]:
    """A figure that methods of any kind have, and its value in each run; a dash where a run has not been tested."""
    columns = [{} if figures is None else _compared(figures) for figures in runs]
    labels = dict.fromkeys(label for column in columns for label in column)
    return [(label, *(number(column.get(label)) for column in columns)) for label in labels]


def _compared(figures: Mapping[str, Any]) -> dict[str, float | None]:
    made = figures["generation"]
    quality = [entry["psnr"] for entry in figures["sources"].values() if entry["psnr"] is not None]
    return {
        **{f"coherence from {size} given": value for size, value in figures["conditional_coherence"].items()},
        "joint coherence, generated": figures["joint_coherence"],
        "class entropy, generated": made.get("class_entropy"),
        "within-class variance": made.get("within_class_variance"),
        "Fréchet distance, source classifier": made.get("frechet"),
        "PSNR of reconstructions, dB": sum(quality) / len(quality) if quality else None,
    }


def sources_lines(sources: Mapping[str, Mapping[str, float | None]]) -> tuple[list[str], list[list[str]]]:
    """Headings and a row for each source: reconstructions of every kind that was tested."""
    kinds = {"": "joint", "self_": "from itself", "single_": "trained alone"}
    measures = {"psnr": ("PSNR", 2), "ssim": ("SSIM", 3), "accuracy": ("right pixels", 3)}
    together = (("psnr", "ssim"), ("accuracy",))  # of pictures, of class maps
    headings, shown = ["source"], list[tuple[str, int]]()
    for kind, title in kinds.items():
        for part in together:
            if any(entry.get(f"{kind}{part[0]}") is not None for entry in sources.values()):
                first, *others = (measures[measure][0] for measure in part)
                headings += [f"{title} {first}", *others]
                shown += [(f"{kind}{measure}", measures[measure][1]) for measure in part]
    rows = [[name, *(number(entry.get(figure), digits) for figure, digits in shown)] for name, entry in sources.items()]
    return headings, rows


def _sources_table(sources: Mapping[str, Mapping[str, float | None]]) -> Table:
    table = Table(title="Reconstruction of test rows", title_justify="left")
    headings, rows = sources_lines(sources)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _conversion_table(conversions: Mapping[str, Mapping[str, float | None]]) -> Table:
    table = Table(title="Conversion", title_justify="left")
    columns = {"coherence": ("coherence", 3), "psnr": ("PSNR", 2), "ssim": ("SSIM", 3)}
    if any("accuracy" in entry for entry in conversions.values()):
        columns["accuracy"] = ("right pixels", 3)
    table.add_column("given -> wanted")
    for heading, _ in columns.values():
        table.add_column(heading, justify="right")
    for label, entry in conversions.items():
        table.add_row(label, *(number(entry.get(name), digits) for name, (_, digits) in columns.items()))
    return table


def summary_lines(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures that stand for the whole, each with its ceiling where it has one."""
    generation, ceilings = figures["generation"], figures["ceilings"]
    lines = []
    accuracies = list(ceilings.get("classifier_coherence", {}).values())
    ceiling = f" (real rows {number(sum(accuracies) / len(accuracies))})" if accuracies else ""
    for size, value in figures["conditional_coherence"].items():
        lines.append((f"coherence from {size} given", number(value) + ceiling))
    if "joint_coherence" in generation:
        real = number(ceilings.get("joint_coherence"))
        lines += [
            ("joint coherence, generated", f"{number(generation['joint_coherence'])} (real rows {real})"),
            ("the same, from the prior", number(generation.get("prior_joint_coherence"))),
            ("class entropy, generated", number(generation["class_entropy"])),
            (
                "within-class variance",
                f"{number(generation['within_class_variance'])} (real rows 1, reconstructions "
                f"{number(ceilings.get('within_class_variance_reconstruction'))})",
            ),
            (
                generation["features"],
                f"{number(generation['frechet'], 2)} (real train/test {number(ceilings.get('frechet_train_test'), 2)}, "
                f"reconstructions {number(ceilings.get('frechet_reconstruction'), 2)})",
            ),
        ]
    seen = figures.get("photographs", {})
    if seen:
        real = number(seen.get("real_train_test"), 1)
        conditional = list(seen.get("conditional", {}).values())
        lines += [
            (f"{seen['features']}, generated", f"{number(seen.get('unconditional'), 1)} (real train/test {real})")
        ]
        lines += [("the same, from all other sources", number(conditional[-1], 1))] if conditional else []
    lines += [(f"linear probe of the code from {subset}", number(value)) for subset, value in figures["probe"].items()]
    lines += [(f"walks of weights, {rule}", _walk(walk)) for rule, walk in figures.get("walks", {}).items()]
    return lines


def _walk(walk: Mapping[str, Any]) -> str:
    said = []
    if walk.get("legible") is not None:
        said.append(f"legible {number(walk['legible'])} (ends {number(walk['legible_ends'])})")
    if walk.get("largest_share") is not None:
        said.append(f"largest step {number(walk['largest_share'])} of the way (even {number(1 / walk['steps'])})")
    return "; ".join(said)


def _summary(figures: Mapping[str, Any]) -> Group:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for label, value in summary_lines(figures):
        table.add_row(label, value)
    return Group(Text("Coherence, generation, code", style="italic"), table)


def methods_table(methods: Mapping[str, "Method"]) -> Table:
    """The methods by name, each in a few lines, so that it can be read in a narrow window too."""
    table = Table(box=None, show_header=False, padding=(0, 2, 1, 0))
    for name, method in methods.items():
        rows = "rows may lack sources" if method.partial_rows else "needs complete rows"
        facts = f"{method.cost} a step; {rows}; {method.paper} ({method.year})"
        table.add_row(
            Text(name, style="bold"), Text.assemble(method.summary, "\n", (facts, "dim"), f"\nlimits: {method.limits}")
        )
    return table


def settings_table(settings: Sequence["Described"]) -> Table:
    """Settings by their dotted names, each with its value and what it means."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for column in range(3):
        table.add_column(overflow="fold", style="dim" if column == 2 else None)
    told = ""
    for setting in settings:
        meaning = "(with the one above)" if setting.meaning == told else setting.meaning
        table.add_row(Text(setting.name, style="bold"), Text(str(setting.value)), Text(meaning))
        told = setting.meaning
    return table


def sets_table(sets: Mapping[str, "KnownSet"], built: Mapping[str, bool]) -> Table:
    """The known data sets by name."""
    table = Table()
    for heading in ("set", "what it holds", "licence", "download", "here"):
        table.add_column(heading, overflow="fold")
    for name, known in sets.items():
        megabytes = sum(package.megabytes for package in known.packages)
        download = f"{megabytes:.0f} MB" if megabytes else "–"
        table.add_row(name, known.what, known.licence, download, "yes" if built[name] else "no")
    return table
