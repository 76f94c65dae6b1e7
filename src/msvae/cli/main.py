"""The entry point: one group of commands, and errors that a person can read."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from msvae import __version__
from msvae.cli import asking, benching, catalogue, exporting, own, working
from msvae.errors import ConfigError, DataError, GateError, Interrupted, MsvaeError
from msvae.launched import several_processes, speaks


class ReadableErrors(TyperGroup):
    """Shows our own errors as one paragraph on standard error, and exits with their code (2 for bad input)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MsvaeError as error:
            if speaks() or not isinstance(error, (GateError, Interrupted)):  # on which processes agree
                print(f"msvae: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except PermissionError as error:
            print(f"msvae: {error.filename}: {error.strerror}.", file=sys.stderr)
            raise typer.Exit(DataError.exit_code) from None


app = typer.Typer(
    cls=ReadableErrors,
    name="msvae",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
    help="Multi-source variational autoencoders: several image sources of the same thing, one generative model. "
    "Begin with `msvae demo`.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"msvae {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", envvar="MSVAE_DEVICE", help="cpu, cuda, cuda:1, mps; auto: the best there is."),
    ] = None,
) -> None:
    del version  # its callback has answered
    if device is not None:
        os.environ["MSVAE_DEVICE"] = device
    if several_processes() and context.invoked_subcommand != "train":
        raise ConfigError(f"Several processes train one model; `msvae {context.invoked_subcommand}` is for one.")


working.register(app)
benching.register(app)
asking.register(app)
exporting.register(app)
catalogue.register(app)
own.register(catalogue.data)


def main() -> None:
    """What the `msvae` command calls."""
    # Threads that wait by spinning starve each other when the machine has other work: steps would take far longer.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    app()
