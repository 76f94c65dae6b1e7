"""Long work: train, evaluate, report, demo."""

from pathlib import Path
from typing import Annotated

import typer

from msvae.cli.options import Json, RunPath, Seed, Settings, parse_settings
from msvae.cli.output import console, progress, say
from msvae.launched import speaks


def train(
    data: Annotated[
        str | None, typer.Argument(help="A set (see `msvae data list`), or a path of your own [colours].")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="A preset (see `msvae methods`) [mopoe].")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run [runs/DATA-METHOD].")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Training time: 90s, 10m, 1.5h.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Number of optimiser steps instead.")] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Number of passes over the rows instead [30].")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of weights, order, noise.")
    ] = None,
    sources: Annotated[str | None, typer.Option("--sources", help="Only these sources, such as blue,green.")] = None,
    missing: Annotated[
        float | None, typer.Option("--missing", help="Share of training, validation images removed.")
    ] = None,
    missing_seed: Annotated[int | None, typer.Option("--missing-seed", help="Seed of that removal.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of settings; options win over it.")] = None,
    set_: Settings = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Go on with this run.")] = None,
    as_json: Json = False,
) -> None:
    """Train a model and keep it in a run folder. Ctrl-C saves; `--resume` goes on bit for bit.

    Examples:

        msvae train colours --budget 90s -o runs/first

        msvae train colours --method poe --missing 0.5 --set model.latent=64 --epochs 20

        msvae train my-images/ --method poe --budget 2m

        msvae train --resume runs/first

        torchrun --standalone --nproc-per-node 4 -m msvae train polymnist --method flow
    """
    from msvae import api
    from msvae.config import read_yaml
    from msvae.errors import ConfigError
    from msvae.training.processes import leave
    from msvae.training.run import train_run

    if resume is not None:
        others = (data, method, out, budget, steps, epochs, seed, sources, missing, missing_seed, config, set_)
        if any(option is not None for option in others):
            raise ConfigError("--resume goes on with a run's own settings; it takes no others.")
        run = api.resume(resume, display=progress(as_json))
    else:
        dotted = {
            "training.steps": steps,
            "training.epochs": epochs,
            "training.seed": seed,
            "data.sources": None if sources is None else sources.split(","),
            "data.missing": missing,
            "data.missing_seed": missing_seed,
        }
        settings = api.run_config(
            data,
            method,
            budget,
            {**{key: value for key, value in dotted.items() if value is not None}, **parse_settings(set_)},
            read_yaml(config) if config is not None else None,
        )
        folder = out or Path("runs") / f"{Path(settings.data.name).resolve().stem}-{settings.model.method}"
        run = train_run(settings, folder, display=progress(as_json))
    leave()
    if not speaks():
        return
    state = run.folder.state()
    say(
        f"Trained {run.config.model.method} for {state.step} steps in {state.seconds:.0f} s. "
        f"Now: msvae evaluate {run.folder.path}",
        {"run": str(run.folder.path), "steps": state.step, "seconds": state.seconds},
        as_json,
    )


def evaluate(
    run: RunPath,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline/--no-baseline",
            help="Compare with single-source VAEs, which are trained for as long as the run was.",
        ),
    ] = True,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of samples [the run's].")
    ] = None,
    photographs: Annotated[
        int,
        typer.Option(
            "--photographs", min=0, help="Images in each Fréchet distance in ImageNet features; 0: none of these."
        ),
    ] = 0,
    generated: Annotated[int, typer.Option("--generated", min=2, help="Rows made from nothing.")] = 1000,
    as_json: Json = False,
) -> None:
    """Test every source, every conversion, generation and the code on test rows; writes RUN/metrics.json.

    Example:

        msvae evaluate runs/first

        msvae evaluate runs/first --photographs 1000
    """
    import json

    from msvae import api
    from msvae.reporting.tables import print_figures

    figures = api.evaluate(
        run, baseline=baseline, seed=seed, photographs=photographs, generated=generated, display=progress(as_json)
    )
    if as_json:
        print(json.dumps(figures))
    else:
        from rich.console import Console

        print_figures(figures, Console())


def report(
    run: RunPath,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The HTML file [RUN/report.html].")] = None,
    beside: Annotated[
        Path | None, typer.Option("--beside", metavar="RUN", help="Another evaluated run on the same data.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML file: data, losses, tests, image grids, settings.

    Examples:

        msvae report runs/first

        msvae report runs/first --beside runs/flow
    """
    from msvae import api

    path = api.report(run, out, beside=beside, display=progress(as_json))
    say(f"Report: {path}", {"report": str(path)}, as_json)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path("runs/demo"),
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Training time of the joint model; the baseline takes the same again.",
            show_default="17s, longer where these are too few steps",
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="A preset (see `msvae methods`).")] = "poe",
    seed: Seed = 0,
    flow: Annotated[
        bool, typer.Option("--flow/--no-flow", help="Also train the flow, three times as long, and show it beside.")
    ] = True,
    as_json: Json = False,
) -> None:
    """The whole way in about three minutes: train on the embedded digits, test, and write a report.

    Examples:

        msvae demo

        msvae demo --no-flow

        msvae demo --budget 10m -o runs/long
    """
    from msvae import api
    from msvae.reporting.tables import print_beside, print_figures

    path, figures = api.demo(out, budget=budget, method=method, seed=seed, flow=flow, display=progress(as_json))
    if not as_json:
        print_figures(figures, console())
        if flow:
            print_beside({method: figures, "flow": figures["flow"]}, console())
    say(f"Report: {path}", {"report": str(path), "run": str(out), "seconds": figures["seconds"]}, as_json)


def register(app: typer.Typer) -> None:
    for command in (train, evaluate, report, demo):
        app.command(rich_help_panel="Work")(command)
