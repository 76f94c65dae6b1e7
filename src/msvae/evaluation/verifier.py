"""The verifier of coherence: one small classifier per source, trained on training rows alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msvae.data.base import Rows
from msvae.errors import DataError
from msvae.metrics.coherence import Verdict
from msvae.networks import input_channels, network_input
from msvae.networks.conv import LARGEST_IMAGE, SMALLEST_IMAGE, ConvEncoder
from msvae.networks.mlp import MlpEncoder
from msvae.source import Source, source_named
from msvae.training.schedule import BatchOrder, derived_seed, learning_rate

FEATURES = 64
CHUNK = 512


class Classifier(nn.Module):
    """Class of an image of one source; `look` answers for any number of images."""

    def __init__(self, source: Source, classes: int) -> None:
        super().__init__()
        self.source = source
        convolves = (
            source.is_image and SMALLEST_IMAGE <= min(source.shape[1:]) <= max(source.shape[1:]) <= LARGEST_IMAGE
        )
        build = ConvEncoder if convolves else MlpEncoder
        self.encoder = build(source, input_channels(source), FEATURES, width=16)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features."""
        features = F.relu(self.encoder(network_input(self.source, values)))
        return self.head(self.drop(features)), features

    @torch.no_grad()
    def look(self, values: Tensor) -> Verdict:
        """Probabilities and features of images in the source's value range."""
        parts = [self(chunk) for chunk in values.split(CHUNK)]
        return Verdict(torch.cat([logits for logits, _ in parts]).softmax(dim=1), torch.cat([f for _, f in parts]))


def train_classifier(rows: Rows, name: str, classes: int, seed: int = 0, steps: int = 400) -> Classifier:
    """A classifier of one source, trained on the given rows; call it with training rows only.

    Raises:
        DataError: if the rows have no labels, or none of them has the source.
    """
    if rows.labels is None:
        raise DataError("Coherence needs labels; this data set has none.")
    has_it = rows.present[name].nonzero().squeeze(1)
    if len(has_it) == 0:
        raise DataError(f"Source {name!r} is in no training row; no classifier can be trained for it.")
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, f"classifier {name}", 0))
        model = Classifier(source_named(rows.sources, name), classes)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
        order = BatchOrder(len(has_it), 64, seed)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, 2e-3, steps // 10, steps)
            index = has_it[order(step)]
            logits, _ = model(_shifted(rows.batch(index).values[name]))
            loss = F.cross_entropy(logits, rows.labels[index], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def _shifted(images: Tensor, reach: int = 2) -> Tensor:
    """All images of a batch moved by one random shift: little data, so that position should not matter."""
    if images.dim() < 4:
        return images
    down, right = torch.randint(-reach, reach + 1, (2,)).tolist()
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    height, width = images.shape[-2:]
    return padded[..., reach + down : reach + down + height, reach + right : reach + right + width]
