"""A person's own data: look at it before training, and write sets as files."""

from pathlib import Path
from typing import Annotated

import typer

from msvae.cli.options import Json, Settings, parse_settings
from msvae.cli.output import progress, say


def check(
    path: Annotated[Path, typer.Argument(help="A folder, a file of arrays, a .tar shard or a .csv manifest.")],
    force: Annotated[bool, typer.Option("--force", help="Write sources.yaml anew where there is one.")] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Follow links and paths that lead out of the folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What is in your own data: sources, sizes, ranges, which rows lack what, files that cannot be used.

    Writes `sources.yaml`, which says how the files are read; edit and keep it. Ends with an error where files cannot be
    used.

    Example:

        msvae data check my-images/
    """
    from msvae.data.own import settings_place
    from msvae.data.own.check import check_own, words
    from msvae.errors import DataError
    from msvae.training.progress import teller

    place = settings_place(path)
    with teller(progress(as_json)) as tell:
        answer = check_own(path, place, tell, force=force, allow_outside=allow_outside)
    say("" if as_json else words(answer), answer, as_json)
    if answer["problems"] and not answer["skip_unreadable"]:
        raise typer.Exit(DataError.exit_code)


def export(
    name: Annotated[str, typer.Argument(help="A data set, or the path of your own data.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder.")],
    to: Annotated[str, typer.Option("--to", help="`folders`, `npz` or `shards` (WebDataset).")] = "folders",
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """Write a set as files, with its labels and splits; msvae and other tools read them again.

    Example:

        msvae data export colours --to folders -o colours/
    """
    from msvae.config import DataConfig
    from msvae.data import load_data
    from msvae.data.own.export import export as write
    from msvae.training.progress import teller

    with teller(progress(as_json)) as tell:
        data = load_data(DataConfig(name=name, options=parse_settings(set_)), tell)
        left_out = write(data, out, to, tell)
    lost = f" Left out, since they hold more than one value a row: {', '.join(left_out)}." if left_out else ""
    rows = sum(len(part) for part in data.splits.values())
    say(f"{rows} rows in {out}.{lost}", {"out": str(out), "rows": rows, "left_out": left_out}, as_json)


def register(data: typer.Typer) -> None:
    for command in (check, export):
        data.command()(command)
