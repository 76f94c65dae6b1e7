"""`msvae bench`: methods compared under one budget, and the speed of a training step."""

from pathlib import Path
from typing import Annotated

import typer

from msvae.cli.options import Json, Settings, parse_settings
from msvae.cli.output import progress, say

bench = typer.Typer(no_args_is_help=True, help="Compare methods: quality under one budget, speed of a step.")

Data = Annotated[str, typer.Option("--data", help="A data set (see `msvae data list`).")]
Methods = Annotated[str, typer.Option("--methods", help="Methods, such as poe,mopoe; `all` for every one.")]
ResultsFolder = Annotated[Path, typer.Option("--results", help="Folder of the tables.")]
RESULTS, ANCHORS = Path("benchmarks/results"), Path("benchmarks/anchors.json")


@bench.command()
def calibrate(
    data: Data = "polymnist",
    methods: Methods = "all",
    out: Annotated[
        Path,
        typer.Option("--out", "-o", show_default=False, help="The file [benchmarks/results/calibration-DATA.json]."),
    ] = Path(),
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """Measure what a step of each method costs, with short runs of the real training loop. Let the machine rest
    meanwhile.

    Example:

        msvae bench calibrate --data polymnist --methods poe,mopoe
    """
    from msvae.benchmarking.calibration import Calibration
    from msvae.benchmarking.calibration import calibrate as measure
    from msvae.benchmarking.settings import compared_config

    calibration = Calibration(_calibration_file(out, data))
    settings = parse_settings(set_)
    for method in _methods(methods):
        measure(
            calibration,
            method,
            lambda steps, m=method: compared_config(data, m, steps, settings=settings),
            progress(as_json),
        )
    say(f"Kept in {calibration.path}", {"file": str(calibration.path), "measured": calibration.entries}, as_json)


@bench.command()
def quality(
    data: Data = "polymnist",
    methods: Methods = "all",
    budget: Annotated[str, typer.Option("--budget", help="Training time of each: 90s, 5m.")] = "5m",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, such as 0,1,2.")] = "0",
    missing: Annotated[float, typer.Option("--missing", min=0, max=0.99, help="Share of training images removed.")] = 0,
    steps_from: Annotated[
        Path,
        typer.Option(
            "--steps-from", show_default=False, help="File of measured steps [RESULTS/calibration-DATA.json]."
        ),
    ] = Path(),
    results: ResultsFolder = RESULTS,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the trained runs.")] = Path("runs/bench"),
    test_rows: Annotated[
        int, typer.Option("--test-rows", min=0, help="Test rows that are converted; 0 for all.")
    ] = 2000,
    generated: Annotated[int, typer.Option("--generated", min=2, help="Rows made from nothing.")] = 2000,
    photographs: Annotated[
        int, typer.Option("--photographs", min=0, help="Images in each FD in ImageNet features; 0: none of these.")
    ] = 2000,
    again: Annotated[bool, typer.Option("--again", help="Train and test also what the table has.")] = False,
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """Train every method on the same rows under one budget, test it on test rows, and keep the table. What is in the
    table stays; what was stopped goes on.

    Examples:

        msvae bench quality --data polymnist --budget 5m --methods poe,mopoe,mvtcae --seeds 0

        msvae bench quality --data polymnist --budget 5m --methods poe --missing 0.5 --steps-from calibration.json
    """
    from msvae.benchmarking.quality import Comparison, compare
    from msvae.benchmarking.results import Terms
    from msvae.config import seconds

    terms = Terms(data, seconds(budget), missing, test_rows or None, generated, photographs)
    calibration = _calibration_file(steps_from, data, results)
    comparison = Comparison(terms, calibration, results, runs, parse_settings(set_))
    table = compare(
        comparison, _methods(methods, partial_rows=missing > 0), _numbers(seeds), again=again, display=progress(as_json)
    )
    say(f"{len(table.rows)} rows in {table.path}. Now: msvae bench table", {"file": str(table.path)}, as_json)


@bench.command()
def speed(
    methods: Methods = "all",
    sources: Annotated[int, typer.Option("--sources", min=1, help="Number of sources.")] = 5,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of a step.")] = 256,
    missing: Annotated[float, typer.Option("--missing", min=0, max=0.99, help="Share of images missing.")] = 0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Steps of each that are timed.")] = 12,
    out: Annotated[Path, typer.Option("--out", "-o", help="The JSON file.")] = RESULTS / "speed-own.json",
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """Time a training step of every joint VAE, in turns in one process; settings are those of the model. Let the
    machine rest meanwhile. (What the flow's stages cost is told by `msvae bench calibrate`.)

    Example:

        msvae bench speed --methods mvtcae,mopoe --set latent=64
    """
    import json

    from msvae.benchmarking.speed import speed_table

    timed = [name for name in _methods(methods, partial_rows=missing > 0) if methods != "all" or name != "flow"]
    content = speed_table(
        timed,
        out,
        sources=sources,
        rows=rows,
        missing=missing,
        rounds=rounds,
        settings=parse_settings(set_),
        display=progress(as_json),
    )
    if as_json:
        print(json.dumps(content))
    else:
        print("\n".join("  ".join(f"{cell:>12}" for cell in line) for line in [content["columns"], *content["table"]]))


@bench.command()
def table(
    results: ResultsFolder = RESULTS,
    anchors: Annotated[Path, typer.Option("--anchors", help="File of published figures.")] = ANCHORS,
    out: Annotated[Path, typer.Option("--out", "-o", help="The Markdown file.")] = Path("docs/benchmarks.md"),
    pages: Annotated[Path, typer.Option("--pages", help="Folder of the methods' own pages.")] = Path("docs/methods"),
    as_json: Json = False,
) -> None:
    """Write all tables as one Markdown page, and each method's figures into its own page.

    Example:

        msvae bench table --results benchmarks/results -o docs/benchmarks.md
    """
    from msvae.benchmarking.pages import write_figures
    from msvae.benchmarking.tables import page
    from msvae.errors import ConfigError
    from msvae.files import write_text
    from msvae.models import METHODS

    if not results.is_dir():
        raise ConfigError(f"--results: there is no folder {results}.")
    if anchors != ANCHORS and not anchors.exists():
        raise ConfigError(f"--anchors: there is no file {anchors}.")
    write_text(out, page(results, anchors if anchors.exists() else None))
    own = [str(path) for path in write_figures(pages, list(METHODS), results)]
    say(
        f"Tables: {out}" + (f", and in {len(own)} pages of {pages}" if own else ""),
        {"page": str(out), "pages": own},
        as_json,
    )


def _calibration_file(path: Path, data: str, results: Path = RESULTS) -> Path:
    return results / f"calibration-{data}.json" if path == Path() else path


def _methods(text: str, partial_rows: bool = False) -> list[str]:
    """The methods that are meant; `all`: every one, or every one that trains on partial rows."""
    from msvae.models import METHODS, method_named

    able = [name for name, method in METHODS.items() if method.partial_rows or not partial_rows]
    names = able if text == "all" else text.split(",")
    for name in names:
        method_named(name)
    return names


def _numbers(text: str) -> list[int]:
    from msvae.errors import ConfigError

    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text!r}: expected whole numbers, such as 0,1,2.") from None


def register(app: typer.Typer) -> None:
    app.add_typer(bench, name="bench", rich_help_panel="Work")
