"""The report's section on fusion: three different things made into one, by weights."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from msvae.data import DataSet
from msvae.models.base import MultiSourceModel
from msvae.questions import blended_source, fuse, weight_path
from msvae.reporting import page
from msvae.reporting.grids import strip, triangle, triangle_weights
from msvae.source import Source, SourceBatch

PATH_STEPS = 11
CHOSEN_AMONG = 200


def fusion_section(model: MultiSourceModel, data: DataSet, sources: Sequence[Source]) -> str:
    """Walks and triangles of weights over three images of different things; empty where a model has no shared code."""
    sources = [source for source in sources if source.categories is None]  # class numbers cannot be blended
    sources = [source for source in sources if source.shape == sources[0].shape][:3]
    if len(sources) < 2 or "barycenter" not in model.latent_rules:
        return ""
    names = [source.name for source in sources]
    row = one_thing_each(data, names)
    if row is None:
        return ""
    given = torch.cat([source.normalise(row.values[source.name]) for source in sources])
    unit = replace(sources[0], value_range=(0.0, 1.0), files=None)  # what sources of any ranges are mixed in
    content = [page.labelled_strip(", ".join(names), strip(given, unit))]
    path = weight_path(names, PATH_STEPS)
    for rule in walked_rules(model):
        content.append(f"<h3>Along the weights {' → '.join(names)}: latent, {rule}</h3>")
        walk = [fuse(model, row, weights, rule, names) for weights in path]
        content += [page.labelled_strip(s.name, strip(torch.cat([w[s.name] for w in walk]), s)) for s in sources]
    content.append("<h3>The same in image space, for comparison</h3>")
    for rule, label in (("mean", "weighted mean"), ("pyramid", "pyramid blend")):
        walk = [blended_source(model, w).normalise(fuse(model, row, w, rule)["fused"]) for w in path]
        content.append(page.labelled_strip(label, strip(torch.cat(walk), unit)))
    if len(sources) == 3:
        content.append(_triangles(model, row, sources, unit))
    text = (
        f"Different test rows, one from each source (the most typical of the first {CHOSEN_AMONG}), "
        "made into one by weights that a person turns."
    )
    return page.section("Fusion by weights", text, *content)


def walked_rules(model: MultiSourceModel) -> list[str]:
    """The latent rules of the walks; `appearance` mixes noise, which sources of several shapes do not share."""
    alike = len({source.shape for source in model.sources}) == 1
    rules = ("barycenter", "product", "flow", *(["appearance"] if alike else []))
    return [rule for rule in rules if rule in model.latent_rules]


def one_thing_each(data: DataSet, names: Sequence[str]) -> SourceBatch | None:
    """One row put together of different test rows: typical images of different classes."""
    test = data.split("test")
    batch = test.batch(slice(0, CHOSEN_AMONG))
    kinds = torch.arange(len(batch)) if test.labels is None else test.labels[:CHOSEN_AMONG]
    chosen: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name in names:
        rows = batch.present[name].nonzero().squeeze(1)
        distance = _distance_to_class_mean(batch.values[name][rows], kinds[rows])
        for row in rows[distance.argsort()].tolist():
            if int(kinds[row]) not in taken:
                taken.add(int(kinds[row]))
                chosen[name] = batch.values[name][row : row + 1]
                break
    return SourceBatch.complete(chosen) if len(chosen) == len(names) else None


def _distance_to_class_mean(images: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    distance = torch.zeros(len(images))
    for kind in kinds.unique():
        alike = images[kinds == kind]
        distance[kinds == kind] = (alike - alike.mean(dim=0)).square().flatten(1).mean(dim=1)
    return distance


def _triangles(model: MultiSourceModel, row: SourceBatch, sources: Sequence[Source], unit: Source) -> str:
    """Two triangles, in [0, 1]: the code by weights, and the look too; `unit`: what they are drawn as."""
    names = [source.name for source in sources]
    shapes, looks = [], []
    for line in triangle_weights(names):
        answers = [(weights, fuse(model, row, weights, "barycenter", names)) for weights in line]
        seen = [(w, {s.name: s.normalise(answer[s.name])[0] for s in sources}) for w, answer in answers]
        shapes.append([images[names[0]] for _, images in seen])
        looks.append([sum(w[name] * images[name] for name in names) for w, images in seen])
    pictures = []
    for lines, caption in (
        (shapes, f"The code by weights, drawn by {names[0]}"),
        (looks, "The code and the look by weights"),
    ):
        pictures.append(
            f'<div><h3>{caption}</h3><div class="corners top"><span>{names[0]}</span></div>'
            f"{page.image(triangle(lines, unit), caption)}"
            f'<div class="corners"><span>{names[1]}</span><span>{names[2]}</span></div></div>'
        )
    return f'<div class="pair">{"".join(pictures)}</div>'
