"""Questions to a trained run: images in, images out."""

from pathlib import Path
from typing import Annotated

import typer

from msvae.cli.inputs import answer_mode, answered_sources, asked, numbered
from msvae.cli.options import (
    Given,
    Json,
    Mode,
    OutFolder,
    Rows,
    RunPath,
    Sampling,
    Seed,
    To,
    parse_sampling,
    parse_weights,
)
from msvae.cli.output import say, write_answer, write_arrays

Samples = Annotated[int, typer.Option("--n", "-n", help="Answers for each row.")]
OUT = Path("out")


def reconstruct(
    run: RunPath,
    given: Given,
    out: OutFolder = OUT,
    rows: Rows = ":8",
    mode: Mode = "mean",
    seed: Seed = 0,
    sampling: Sampling = None,
    as_json: Json = False,
) -> None:
    """The given images as the model sees them.

    Example:

        msvae reconstruct RUN --given blue --given green --rows 0:16
    """
    from msvae import questions

    opened, batch, names = asked(run, given, rows, sampling)
    images = questions.reconstruct(opened, batch, answer_mode(mode), seed)
    write_answer(out, images, answered_sources(opened, images), names, as_json, given=given, shown_above=batch.values)


def convert(
    run: RunPath,
    given: Given,
    to: To = None,
    out: OutFolder = OUT,
    rows: Rows = ":8",
    n: Samples = 1,
    mode: Mode = "mean",
    seed: Seed = 0,
    sampling: Sampling = None,
    as_json: Json = False,
) -> None:
    """The same things as other sources would show them.

    Examples:

        msvae convert RUN --given blue=x.png --to green -o out/

        msvae convert RUN --given blue --given yellow --to green --rows 0:16
    """
    from msvae import questions

    opened, batch, names = asked(run, given, rows, sampling)
    images = questions.convert(opened, batch, to, n, answer_mode(mode), seed)
    write_answer(out, images, answered_sources(opened, images), numbered(names, n), as_json, given=given)


def fuse(
    run: RunPath,
    given: Given,
    weight: Annotated[
        list[str] | None, typer.Option("--weight", "-w", metavar="SOURCE=NUMBER", help="Weights; equal without.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="In image space mean, pyramid; in latent space own, product, barycenter, and of the flow flow, "
            "appearance [product; own where a model has no other].",
        ),
    ] = None,
    to: To = None,
    out: OutFolder = OUT,
    rows: Rows = ":8",
    mode: Mode = "mean",
    seed: Seed = 0,
    sampling: Sampling = None,
    as_json: Json = False,
) -> None:
    """Images of several sources made into one, by weights.

    Examples:

        msvae fuse RUN -g blue=a.png -g yellow=b.png -w blue=0.7 -w yellow=0.3 --to green

        msvae fuse RUN -g blue -g yellow --by pyramid
    """
    from dataclasses import replace

    from msvae import questions

    opened, batch, names = asked(run, given, rows, sampling)
    weights = parse_weights(weight)
    images = questions.fuse(opened, batch, weights, by, to, answer_mode(mode), seed)
    if "fused" in images:
        range_of = questions.blended_source(opened.model, weights or dict.fromkeys(batch.names, 1.0))
        sources = [replace(range_of, name="fused")]
    else:
        sources = answered_sources(opened, images)
    write_answer(out, images, sources, names, as_json, given=given)


def interpolate(
    run: RunPath,
    given: Given,
    between: Annotated[
        str,
        typer.Option("--between", metavar="A,B", help="`rows`, or sources to walk over, such as blue,yellow,green."),
    ] = "rows",
    steps: Annotated[int, typer.Option("--steps", help="Images of one walk, both ends included.")] = 9,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", help="Fusion rule of a walk between sources [barycenter; own where a model has no other]."
        ),
    ] = None,
    to: To = None,
    out: OutFolder = OUT,
    rows: Rows = ":2",
    mode: Mode = "mean",
    seed: Seed = 0,
    sampling: Sampling = None,
    as_json: Json = False,
) -> None:
    """Walk between two rows, or between the sources of one row (the first of --rows).

    Examples:

        msvae interpolate RUN --given blue --rows 3:5

        msvae interpolate RUN -g blue -g yellow -g green --between blue,yellow,green --rows 3
    """
    import torch

    from msvae import questions
    from msvae.errors import ConfigError, unknown

    opened, batch, _ = asked(run, given, rows, sampling)
    if between == "rows":
        if len(batch) != 2:
            raise ConfigError(f"A walk between rows needs two of them; {len(batch)} are given (see --rows).")
        first, last = batch.rows(slice(0, 1)), batch.rows(slice(1, 2))
        images = questions.interpolate(opened, first, last, steps, to, answer_mode(mode), seed)
    else:
        names = between.split(",")
        by = questions.usual_rule(opened.model, "barycenter") if by is None else by
        opened.model.check_rule(by)
        for name in names:
            if name not in batch.names:
                raise ConfigError(f"--between {between}: {unknown('given source', name, batch.names)}")
        path = questions.weight_path(names, steps)
        one = batch.rows(slice(0, 1))
        answers = [questions.fuse(opened, one, weights, by, to, answer_mode(mode), seed) for weights in path]
        images = {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}
    labels = [f"step-{number:02d}" for number in range(steps)]
    write_answer(out, images, answered_sources(opened, images), labels, as_json, given=given)


def generate(
    run: RunPath,
    n: Annotated[int, typer.Option("--n", "-n", help="Number of rows.")] = 16,
    to: To = None,
    out: OutFolder = OUT,
    from_prior: Annotated[
        bool, typer.Option("--from-prior", help="Draw from the prior, not from the sampler fitted after training.")
    ] = False,
    seed: Seed = 0,
    sampling: Sampling = None,
    as_json: Json = False,
) -> None:
    """New rows from nothing: the same thing in every source.

    Example:

        msvae generate RUN --n 32 --seed 1
    """
    from msvae import questions
    from msvae.training.opening import open_run

    opened = open_run(run, sampling=parse_sampling(sampling))
    images = questions.generate(opened, n, to, from_prior, seed)
    write_answer(out, images, answered_sources(opened, images), [f"{row:05d}" for row in range(n)], as_json)


def impute(
    run: RunPath,
    given: Given,
    n: Annotated[
        int,
        typer.Option("--n", "-n", help="1: expected images; more: the mean of so many draws (spread: OUT/spread.npz)."),
    ] = 1,
    out: OutFolder = OUT,
    rows: Rows = ":8",
    seed: Seed = 0,
    sampling: Sampling = None,
    as_json: Json = False,
) -> None:
    """Fill in what rows lack: give folders; files that one folder has and another lacks are made.

    Example:

        msvae impute RUN --given blue=scans/blue --given green=scans/green -o complete/
    """
    from msvae import questions

    opened, batch, names = asked(run, given, rows, sampling, empty=True)
    answer = questions.impute(opened, batch, n, seed)
    filled = {
        name: [names[row] for row in flags.nonzero().squeeze(1).tolist()] for name, flags in answer.filled.items()
    }
    sources, extra = opened.model.sources, {"filled": filled}
    write_answer(out, answer.images, sources, names, as_json, given=given, spread=answer.spread, extra=extra)


def features(
    run: RunPath,
    given: Given,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npz file.")] = Path("features.npz"),
    rows: Rows = "0:",
    as_json: Json = False,
) -> None:
    """Write the pooled vectors and the spatial maps of images into one .npz file.

    Example:

        msvae features RUN --given blue -o features.npz
    """
    import numpy as np

    from msvae import questions

    out = out if out.suffix == ".npz" else out.with_name(f"{out.name}.npz")
    opened, batch, names = asked(run, given, rows)
    answer = questions.features(opened, batch)
    arrays = {f"maps_{name}": tensor.numpy() for name, tensor in answer.maps.items()}
    arrays |= {"rows": np.array(names), "pooled": answer.pooled.numpy()}
    write_arrays(out, arrays)
    shape = tuple(answer.pooled.shape)
    say(f"Features of {shape[0]} rows in {out}", {"file": str(out), "arrays": sorted(arrays)}, as_json)


def likelihood(
    run: RunPath,
    given: Given,
    samples: Annotated[int, typer.Option("--samples", "-k", min=1, help="Codes drawn for each row.")] = 100,
    rows: Rows = ":100",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The log-likelihood of images: a lower bound. Under a joint VAE it tightens with -k; under the flow -k averages.

    Example:

        msvae likelihood RUN --given blue --given green -k 1000
    """
    from msvae import questions

    opened, batch, names = asked(run, given, rows)
    nats = questions.likelihood(opened, batch, samples, seed)
    mean, error = float(nats.mean()), float(nats.std() / len(nats) ** 0.5) if len(nats) > 1 else 0.0
    answer = {"rows": names, "nats": [round(value, 3) for value in nats.tolist()], "mean": round(mean, 3)}
    say(f"log p = {mean:.2f} nats a row, +- {error:.2f} over {len(nats)} rows", answer, as_json)


def register(app: typer.Typer) -> None:
    for command in (reconstruct, convert, fuse, interpolate, generate, impute, features, likelihood):
        app.command(rich_help_panel="Questions to a trained run")(command)
