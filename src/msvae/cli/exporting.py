"""Parts of a trained run for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from msvae.cli.options import Json, RunPath
from msvae.cli.output import say


def export(
    run: RunPath,
    source: Annotated[str, typer.Option("--source", help="The source whose VAE is written.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A new folder [RUN/SOURCE-vae].")] = None,
    as_json: Json = False,
) -> None:
    """One source's VAE as programs that run without msvae: encoder, decoder and generator, by torch.export.

    Example:

        msvae export RUN --source blue -o blue-vae/
    """
    from msvae import exporting

    folder = exporting.export(run, source, Path(run) / f"{source}-vae" if out is None else out)
    files = sorted(path.name for path in folder.iterdir())
    say(f"Wrote {', '.join(files)} into {folder}", {"folder": str(folder), "files": files}, as_json)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Questions to a trained run")(export)
