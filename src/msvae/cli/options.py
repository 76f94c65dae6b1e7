"""Options that several commands share, and how their texts become settings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from msvae.errors import ConfigError

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder for the images that are written.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, for machines.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything drawn at random.")]
Given = Annotated[
    list[str],
    typer.Option(
        "--given",
        "-g",
        metavar="SOURCE[=PATH]",
        help="A given source: with an image file or a folder, or without a path the run's own test rows. Repeatable.",
    ),
]
To = Annotated[list[str] | None, typer.Option("--to", "-t", metavar="SOURCE", help="A wanted source. Repeat for more.")]
Rows = Annotated[
    str,
    typer.Option(
        "--rows",
        metavar="A:B",
        help="Which test rows stand for sources given without a path; `:8` are the first eight, or all of fewer.",
    ),
]
Mode = Annotated[str, typer.Option("--mode", help="`mean`: the expected answer; `sample`: a drawn one.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting by its dotted name, such as model.latent=64."),
]
Sampling = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="How a flow draws, such as model.guidance=1.2 or model.evidence={blue: 3} (msvae settings flow).",
    ),
]


def parse_settings(pairs: list[str] | None) -> dict[str, Any]:
    """`["model.latent=64"]` as `{"model.latent": 64}`; values are read as YAML."""
    import yaml

    result: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {pair!r}: expected KEY=VALUE, such as model.latent=64.")
        try:
            result[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {pair!r}: {value!r} is no value.") from None
    return result


def parse_sampling(pairs: list[str] | None) -> dict[str, Any]:
    """`["model.guidance=1.2"]` as `{"guidance": 1.2}`."""
    return {key.removeprefix("model."): value for key, value in parse_settings(pairs).items()}


def parse_rows(text: str, available: int) -> range:
    """`A:B`, `:B` (at most the first B) or one number as a range of row numbers.

    Raises:
        ConfigError: if it is none of these, or reaches past the rows there are.
    """
    first, colon, last = text.partition(":")
    try:
        start = int(first or 0) if colon else int(first)
        stop = (int(last) if last else available) if colon else start + 1
        stop = stop if first else min(stop, available)
    except ValueError:
        raise ConfigError(f"--rows {text!r}: expected A:B, such as 0:16, or one number.") from None
    if not 0 <= start < stop <= available:
        raise ConfigError(f"--rows {text!r}: expected rows between 0 and {available}.")
    return range(start, stop)


def parse_weights(pairs: list[str] | None) -> dict[str, float] | None:
    """`["blue=2", "green=1"]` as weights; None for none."""
    if not pairs:
        return None
    weights: dict[str, float] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if name in weights:
            raise ConfigError(f"--weight: source {name!r} has two weights.")
        try:
            weights[name] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--weight {pair!r}: expected SOURCE=NUMBER, such as blue=0.7.")
    return weights
