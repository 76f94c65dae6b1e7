"""Whether what a flow of scenes draws for several sources of a row goes together, on validation rows.

    python benchmarks/translation/together.py RUN --given outline

Three ways to draw the other sources: together, of one code and one noise; apart, each for itself; and in turns, each on
those before it as well. The correlations are of what differs from the expected images in 4 x 4 squares, mean over the
pairs of sources (`msvae.metrics.spread`): of draws, and of real images. Beside them stand the figures of each source:
how often its draw is nearest to its own truth of all, and its spread over its error.
"""

import argparse
import itertools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from translation.judging import DRAWS, FEATURES

from msvae.cli.output import progress
from msvae.metrics import correlation_of_deviations, frechet_distance, retrieval, spread_to_error
from msvae.metrics.imagenet import load_efficientnet, pooled_features, sees
from msvae.models import MultiSourceModel
from msvae.source import Source, SourceBatch
from msvae.training.progress import tracked
from msvae.training.run import open_run

WAYS = ("together", "apart", "in turns")
SQUARES = 4  # to a side


def drawn(
    model: MultiSourceModel, given: SourceBatch, wanted: list[str], way: str, generator: Generator
) -> dict[str, Tensor]:
    """One draw of the wanted sources for every row."""
    if way == "together":
        return dict(model.sample(given, wanted, generator=generator).to("cpu").values)
    found: dict[str, Tensor] = {}
    for name in wanted:
        seen = SourceBatch.complete({**given.values, **found}) if way == "in turns" else given
        found[name] = model.sample(seen, [name], generator=generator).to("cpu").values[name]
    return found


def squares(images: Tensor) -> Tensor:
    """Means of squares, over all channels: sources need not have the same number."""
    grey = images.mean(dim=-3, keepdim=True)
    return F.adaptive_avg_pool2d(grey.flatten(0, -4), SQUARES).unflatten(0, grey.shape[:-3])


class Likeness:
    """How real the draws of a source are, as far as an ImageNet network sees such images."""

    def __init__(self, sources: dict[str, Source], truth: dict[str, Tensor]) -> None:
        self.looks, self.sources = load_efficientnet(), sources
        self.real = {name: self.features(name, images) for name, images in truth.items() if sees(sources[name])}

    def features(self, name: str, images: Tensor) -> Tensor:
        return pooled_features(self.looks, images, self.sources[name], (FEATURES,))[FEATURES]

    def figures(self, name: str, images: Tensor) -> dict[str, float]:
        if name not in self.real:
            return {}
        found, real = self.features(name, images), self.real[name]
        enough = len(real) > FEATURES
        return {"first": retrieval(found, real).first} | ({"frechet": frechet_distance(found, real)} if enough else {})


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
    complete = torch.stack(list(rows.present.values())).all(dim=0).nonzero().squeeze(1)[: arguments.rows]
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
        deviations = {name: (squares(draws[name]), squares(truth[name])) for name in wanted}
        pairs = [
            correlation_of_deviations(deviations[one], deviations[other])
            for one, other in itertools.combinations(wanted, 2)
        ]
        each = {
            name: {**likeness.figures(name, draws[name][0]), "spread": spread_to_error(draws[name], truth[name])}
            for name in wanted
        }
        figures = {name: {key: round(value, 3) for key, value in seen.items()} for name, seen in each.items()}
        correlation = {
            "drawn": round(sum(pair.drawn for pair in pairs) / len(pairs), 3),
            "real": round(sum(pair.true for pair in pairs) / len(pairs), 3),
        }
        print(way, correlation, figures, flush=True)


if __name__ == "__main__":
    main()
