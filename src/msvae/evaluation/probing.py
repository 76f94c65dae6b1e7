"""What the code knows: linear probes of it, made from each source alone and from all."""

import torch
from torch import Tensor

from msvae.data.base import DataSet, Rows
from msvae.evaluation.extent import parts
from msvae.metrics import linear_probe
from msvae.models.base import MultiSourceModel
from msvae.subsets import subset_label

PROBE_ROWS = 2000


def probes(model: MultiSourceModel, data: DataSet, seed: int) -> dict[str, float]:
    """Accuracy of a linear classifier on the code, by the sources that it is made from: each alone, and all.

    The classifier is fitted to training rows and tested on test rows.
    """
    train, test = data.split("train"), data.split("test")
    if train.labels is None or test.labels is None:
        return {}
    orders = (torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)), torch.arange(len(test)))
    figures: dict[str, float] = {}
    singles = [(name,) for name in model.source_names]
    for given in dict.fromkeys([*singles, tuple(model.source_names)]):
        known, known_labels = _codes(model, train, train.labels, orders[0], given)
        unknown, unknown_labels = _codes(model, test, test.labels, orders[1], given)
        if min(len(known), len(unknown)) > 1 and len(known_labels.unique()) > 1:
            figures[subset_label(given)] = linear_probe(known, known_labels, unknown, unknown_labels, seed)
    return figures


@torch.no_grad()
def _codes(
    model: MultiSourceModel, rows: Rows, labels: Tensor, order: Tensor, given: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """Mean codes and labels of the first rows, in that order, that have all given sources."""
    have = rows.presence(given)[:, order].all(dim=0)
    chosen = order[have][:PROBE_ROWS]
    codes = [model.encode(rows.batch(part).select(given)).mean.to("cpu") for part in parts(chosen)]
    return (torch.cat(codes) if codes else torch.zeros(0, 1)), labels[chosen]
