"""The verifier of coherence: one small classifier per source, trained on training rows alone."""

import hashlib
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msvae.data.augment import shifted
from msvae.data.base import Rows
from msvae.errors import DataError
from msvae.metrics.coherence import Verdict
from msvae.networks import input_channels, network_input
from msvae.networks.conv import LARGEST_IMAGE, SMALLEST_IMAGE, ConvEncoder
from msvae.networks.mlp import MlpEncoder
from msvae.source import Source, source_named
from msvae.training.devices import device_named, kept_random_state
from msvae.training.progress import Display, Quiet, tracked
from msvae.training.schedule import BatchOrder, derived_seed, learning_rate

FEATURES = 64
CHUNK = 512
SHIFT = 2  # pixels: little data, so that position should not matter


@dataclass(frozen=True)
class Effort:
    """How large a verifier is, and how long it is trained.

    Args:
        steps, batch_size: of training.
        width, refine: see `ConvEncoder`.
        warped: whether every training image is turned, scaled and shifted on its own; otherwise a batch is shifted.
    """

    steps: int = 400
    batch_size: int = 64
    width: int = 16
    refine: int = 0
    warped: bool = False


QUICK = Effort()
THOROUGH = Effort(steps=6000, batch_size=128, width=24, warped=True)


class Classifier(nn.Module):
    """Class of an image of one source; `look` answers for any number of images."""

    def __init__(self, source: Source, classes: int, effort: Effort = QUICK) -> None:
        super().__init__()
        self.source, self.effort = source, effort
        convolves = (
            source.is_image and SMALLEST_IMAGE <= min(source.shape[1:]) <= max(source.shape[1:]) <= LARGEST_IMAGE
        )
        if convolves:
            self.encoder = ConvEncoder(source, input_channels(source), FEATURES, effort.width, effort.refine)
        else:
            self.encoder = MlpEncoder(source, input_channels(source), FEATURES, width=effort.width)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features."""
        features = F.relu(self.encoder(network_input(self.source, values)))
        return self.head(self.drop(features)), features

    def fingerprint(self) -> str:
        """A short name of these very weights: figures of other verifiers are of other judges."""
        digest = hashlib.sha256()
        for value in self.state_dict().values():
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    @torch.no_grad()
    def look(self, values: Tensor) -> Verdict:
        """Probabilities and features of images in the source's value range, on the CPU wherever they are computed."""
        device = self.head.weight.device
        parts = [self(chunk.to(device)) for chunk in values.split(CHUNK)]
        logits, features = (torch.cat(of_chunks).cpu() for of_chunks in zip(*parts, strict=True))
        return Verdict(logits.softmax(dim=1), features)


def train_classifier(
    rows: Rows,
    name: str,
    classes: int,
    seed: int = 0,
    effort: Effort = QUICK,
    display: Display | None = None,
) -> Classifier:
    """A classifier of one source, on the CPU, trained on the given rows wherever that is quickest; call it with
    training rows only.

    Raises:
        DataError: if the rows have no labels, or none of them has the source.
    """
    if rows.labels is None:
        raise DataError("Coherence needs labels; this data set has none.")
    has_it = rows.present[name].nonzero().squeeze(1)
    if len(has_it) == 0:
        raise DataError(f"Source {name!r} is in no training row; no classifier can be trained for it.")
    source, labels = source_named(rows.sources, name), rows.labels
    alone = replace(  # a batch of it reads nothing else
        rows, sources=(source,), values={name: rows.values[name]}, present={name: rows.present[name]}
    )
    with kept_random_state(), torch.enable_grad():
        torch.manual_seed(derived_seed(seed, f"classifier {name}", 0))
        device, steps = device_named(), effort.steps
        model = Classifier(source, classes, effort).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
        order = BatchOrder(len(has_it), effort.batch_size, seed)
        for step in tracked(range(steps), display or Quiet(), f"training the verifier of {name}", steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, 2e-3, steps // 10, steps)
            index = has_it[order(step)]
            images = alone.batch(index).values[name]
            images = _warped(images, source) if effort.warped else shifted(images, SHIFT)
            logits, _ = model(images.to(device))
            loss = F.cross_entropy(logits, labels[index].to(device), label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.to("cpu").eval()


def _warped(images: Tensor, source: Source, turn: float = 0.12, scale: float = 0.08, shift: float = 0.14) -> Tensor:
    """Every image turned (radians), scaled and shifted (share of half its side) by at most so much; edges mirrored."""
    if images.dim() < 4:
        return images
    draws = torch.rand(4, len(images)) * 2 - 1
    angle, size = turn * draws[0], 1 + scale * draws[1]
    cosine, sine = size * torch.cos(angle), size * torch.sin(angle)
    affine = torch.stack([cosine, -sine, shift * draws[2], sine, cosine, shift * draws[3]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    mode = "bilinear" if source.categories is None else "nearest"
    return F.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)
