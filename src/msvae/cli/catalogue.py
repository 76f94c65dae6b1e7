"""What there is: data sets and methods."""

from pathlib import Path
from typing import Annotated

import typer

from msvae.cli.options import Json, Settings, parse_settings
from msvae.cli.output import say

data = typer.Typer(no_args_is_help=True, help="Data sets: list, describe, look at.")


@data.command("list")
def list_sets(as_json: Json = False) -> None:
    """The built-in data sets."""
    from msvae.data import DATASETS

    names = list(DATASETS)
    say("\n".join(names), {"data": names}, as_json)


@data.command()
def info(
    name: Annotated[str, typer.Argument(help="A data set.")],
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """What a set holds: sources, rows, origin, licence, split rule, options.

    Example:

        msvae data info colours --set pairing=class
    """
    from msvae.config import DataConfig
    from msvae.data import known_options, load_data

    loaded = load_data(DataConfig(name=name, options=parse_settings(set_)))
    rows = {split: len(part) for split, part in loaded.splits.items()}
    answer = {
        "name": loaded.name,
        "sources": {source.name: list(source.shape) for source in loaded.sources},
        "rows": rows,
        "shared_content": loaded.shared_content,
        "options": known_options(name),
        **loaded.card,
    }
    lines = [f"{key}: {value}" for key, value in answer.items()]
    say("\n".join(lines), answer, as_json)


@data.command()
def preview(
    name: Annotated[str, typer.Argument(help="A data set.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG file.")] = Path("preview.png"),
    n: Annotated[int, typer.Option("--n", "-n", help="Number of rows.")] = 16,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "train",
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """A picture of the first rows of a set.

    Example:

        msvae data preview colours -o grid.png
    """
    from msvae.config import DataConfig
    from msvae.data import load_data
    from msvae.errors import ConfigError, DataError
    from msvae.reporting.grids import contact_sheet

    if n < 1:
        raise ConfigError(f"--n: expected 1 or more, got {n}.")
    loaded = load_data(DataConfig(name=name, options=parse_settings(set_)))
    batch = loaded.split(split).batch(slice(0, n))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(batch.values, {source.name: source for source in loaded.sources}).save(out)
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot write {out}: {error}.") from None
    say(f"Preview: {out}", {"preview": str(out)}, as_json)


def methods(as_json: Json = False) -> None:
    """The methods: what each is, where it is from, what a step costs and where it is weak."""
    from dataclasses import asdict

    from rich.console import Console

    from msvae.models.published import METHODS
    from msvae.reporting.tables import methods_table

    if as_json:
        say("", {name: {**asdict(method), "settings": dict(method.settings)} for name, method in METHODS.items()}, True)
    else:
        Console().print(methods_table(METHODS))


def register(app: typer.Typer) -> None:
    app.add_typer(data, name="data", rich_help_panel="What there is")
    app.command(rich_help_panel="What there is")(methods)
