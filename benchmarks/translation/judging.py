"""What a translation is worth: near the truth, real in kind, and of the right row."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from msvae.data.base import DataSet
from msvae.metrics import frechet_distance, pixel_quality, retrieval, spread_to_error
from msvae.metrics.imagenet import load_efficientnet, pooled_features, sees
from msvae.models import MultiSourceModel
from msvae.source import Source

FEATURES = 112
AT_ONCE = 250
DRAWS = 6  # of each row, whose spread is judged; of one of them the likeness is


class Likeness:
    """How an ImageNet network sees images of each source: distances from real ones, and which of them is nearest.

    Args:
        real: images by source, of the rows whose answers are judged; sources that are no pictures are left out.
    """

    def __init__(self, sources: Mapping[str, Source], real: Mapping[str, Tensor]) -> None:
        self.looks, self.sources = load_efficientnet(), sources
        self.real = {name: self.features(name, images) for name, images in real.items() if sees(sources[name])}

    def features(self, name: str, images: Tensor) -> Tensor:
        return pooled_features(self.looks, images, self.sources[name], (FEATURES,))[FEATURES]

    def frechet(self, name: str, features: Tensor) -> dict[str, float]:
        """Nothing where the rows are too few for a covariance."""
        real = self.real[name]
        return {"frechet": frechet_distance(features, real)} if len(real) > FEATURES else {}

    def figures(self, name: str, images: Tensor) -> dict[str, Any]:
        """Of answers in the order of the rows; none for what is no picture."""
        if name not in self.real:
            return {}
        found = self.features(name, images)
        seen = retrieval(found, self.real[name])
        return {**self.frechet(name, found), "pairwise": seen.pairwise, "first": seen.first}


class Judge:
    """One direction on the rows of a split, test by default, that have both sources.

    Likeness is judged in the pooled 112-channel map of EfficientNet-Lite0 (retrieval, and FD112 of more rows than
    features) where the wanted source is a picture, and pixel by pixel (PSNR and SSIM, or the share of right classes)
    always.
    """

    def __init__(self, data: DataSet, given: str, wanted: str, split: str = "test") -> None:
        self.data, self.given, self.wanted = data, given, wanted
        self.sources = {source.name: source for source in data.sources}
        self.rows = data.split(split)
        self.index = self.rows.having([given, wanted])
        self.batch = self.rows.batch(self.index)
        self.truth = self.batch.values[wanted]
        self.likeness = Likeness(self.sources, {wanted: self.truth})

    def real(self) -> dict[str, Any]:
        """What real images score: those of training rows, and those of the same rows in the other sources."""
        figures: dict[str, Any] = {"rows": len(self.index)}
        if self.wanted in self.likeness.real:
            train = self.data.split("train")
            some = train.present[self.wanted].nonzero().squeeze(1)
            some = some[torch.randperm(len(some), generator=torch.Generator().manual_seed(0))[: len(self.index)]]
            others = self.likeness.features(self.wanted, train.batch(some).values[self.wanted])
            figures |= self.likeness.frechet(self.wanted, others)
        return {**figures, **self._agreement(dict(self.batch.values))}

    def network(self, network: nn.Module) -> dict[str, Any]:
        """Figures of a network of this one direction."""
        found = torch.cat([network(part) for part in self.batch.values[self.given].split(AT_ONCE)])
        return {**self._pixels(found), **self.likeness.figures(self.wanted, found)}

    def model(self, model: MultiSourceModel, seed: int) -> dict[str, Any]:
        """Figures of a multi-source model: means for pixels, drawn images for likeness, and rows from nothing."""
        generator = torch.Generator(model.device).manual_seed(seed)
        means, many = [], []
        for part in self.index.split(AT_ONCE):
            given = self.rows.batch(part).select([self.given])
            means.append(model.sample(given, [self.wanted], mode="mean").to("cpu").values[self.wanted])
            found = model.sample(given, [self.wanted], n=DRAWS, generator=generator).to("cpu").values[self.wanted]
            many.append(found.unflatten(0, (len(given), DRAWS)))
        drawn = torch.cat(many).transpose(0, 1)
        figures = {**self._pixels(torch.cat(means)), **self.likeness.figures(self.wanted, drawn[0])}
        if not self.sources[self.wanted].categories:
            figures["spread"] = spread_to_error(drawn, self.truth)
        figures |= {
            f"mean_{name}": value for name, value in self.likeness.figures(self.wanted, torch.cat(means)).items()
        }
        rows = model.sample(None, n=len(self.index), generator=generator).to("cpu")
        return {**figures, **self._agreement(rows.values)}

    def _pixels(self, found: Tensor) -> dict[str, Any]:
        quality = pixel_quality(found, self.truth, self.sources[self.wanted])
        return {name: value for name, value in vars(quality).items() if value is not None}

    def _agreement(self, rows: dict[str, Tensor]) -> dict[str, Any]:
        """Whether the sources of a row show the same thing: retrieval of one by another, mean over the pairs."""
        seen = {name: self.likeness.features(name, images) for name, images in rows.items() if sees(self.sources[name])}
        pairs = [retrieval(seen[one], seen[other]) for one in seen for other in seen if one < other]
        if not pairs:
            return {}
        return {
            "agreement_pairwise": sum(pair.pairwise for pair in pairs) / len(pairs),
            "agreement_first": sum(pair.first for pair in pairs) / len(pairs),
        }
