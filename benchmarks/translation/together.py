"""Whether what a flow of scenes draws for several sources of a row goes together, on validation rows.

    python benchmarks/translation/together.py RUN --given outline

Four ways to draw the other sources: together, of one code and one noise; with one code, and noise of each one's own;
apart, with a code of its own too; and in turns, each on those before it as well. The correlations are of what differs
from the expected images in a grid of 4 x 4 squares (channel by channel where both have as many, else of brightness),
mean over the pairs of sources (`msvae.metrics.spread`). Beside them stand figures of each source: as in `judging.py`.
"""

import argparse
import itertools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from translation.judging import DRAWS, Likeness

from msvae.cli.output import progress
from msvae.metrics import correlation_of_deviations, spread_to_error
from msvae.models import MultiSourceModel
from msvae.source import SourceBatch
from msvae.training.opening import open_run
from msvae.training.progress import tracked

WAYS = ("together", "one code", "apart", "in turns")
SQUARES = 4  # to a side


def drawn(
    model: MultiSourceModel, given: SourceBatch, wanted: list[str], way: str, generator: Generator
) -> dict[str, Tensor]:
    """One draw of the wanted sources for every row."""
    if way == "together":
        return dict(model.sample(given, wanted, generator=generator).to("cpu").values)
    codes = model.codes(given, 1, None, "sample", "own", generator)
    found: dict[str, Tensor] = {}
    for name in wanted:
        if way == "one code":
            answer = model.answer(codes, given, [name], None, "sample", "own", generator)
        else:
            seen = SourceBatch.complete({**given.values, **found}) if way == "in turns" else given
            answer = model.sample(seen, [name], generator=generator)
        found[name] = answer.to("cpu").values[name]
    return found


def squares(images: Tensor) -> Tensor:
    """Means of squares, a grid of them."""
    return F.adaptive_avg_pool2d(images.flatten(0, -4), SQUARES).unflatten(0, images.shape[:-3])


def alike(*found: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """As they are where all have as many channels, else the mean of these."""
    if len({images.shape[-3] for parts in found for images in parts}) == 1:
        return list(found)
    return [tuple(images.mean(dim=-3, keepdim=True) for images in parts) for parts in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--given", required=True, help="source")
    parser.add_argument("--rows", type=int, default=160)
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    data, model = run.data(), run.model
    sources = {source.name: source for source in data.sources}
    if arguments.given not in sources:
        parser.error(f"--given: expected one of {', '.join(sources)}, got {arguments.given}.")
    wanted = [name for name, source in sources.items() if name != arguments.given and not source.categories]
    rows = data.split("validation")
    complete = rows.having()[: arguments.rows]
    if len(wanted) < 2 or not len(complete):
        parser.error(
            f"Expected two sources or more beside {arguments.given} that are no class maps, and a validation row with "
            f"all sources; got {', '.join(wanted) or 'none'}, and {len(complete)} such rows."
        )
    batch = rows.batch(complete)
    given, truth = batch.select([arguments.given]), {name: batch.values[name] for name in wanted}
    likeness = Likeness(sources, truth)
    for way in WAYS:
        generator = torch.Generator(model.device).manual_seed(run.config.training.seed)
        many = [
            drawn(model, given, wanted, way, generator)
            for _ in tracked(range(DRAWS), progress(), f"drawing {way}", DRAWS)
        ]
        draws = {name: torch.stack([one[name] for one in many]) for name in wanted}
        seen = {name: (squares(draws[name]), squares(truth[name])) for name in wanted}
        pairs = [
            correlation_of_deviations(*alike(seen[one], seen[other]))
            for one, other in itertools.combinations(wanted, 2)
        ]
        correlation = {
            "drawn": round(sum(pair.drawn for pair in pairs) / len(pairs), 3),
            "real": round(sum(pair.real for pair in pairs) / len(pairs), 3),
        }
        each = {
            name: {**likeness.figures(name, draws[name][0]), "spread": spread_to_error(draws[name], truth[name])}
            for name in wanted
        }
        print(
            way,
            correlation,
            {name: {key: round(value, 3) for key, value in figures.items()} for name, figures in each.items()},
            flush=True,
        )


if __name__ == "__main__":
    main()
