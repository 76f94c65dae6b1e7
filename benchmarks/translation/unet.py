"""The rival in one direction: a U-Net from one source to another (Ronneberger et al. 2015, arXiv 1505.04597)."""

import itertools
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msvae.config import TrainingConfig
from msvae.data.augment import augmented
from msvae.data.base import Rows
from msvae.likelihoods import likelihood_of, mean_image
from msvae.networks.aligned import ConvPair, channels_by_size
from msvae.networks.pairs import input_channels, network_input
from msvae.networks.precision import autocast_for
from msvae.source import Source
from msvae.training.average import RunningAverage
from msvae.training.best import BestWeights
from msvae.training.devices import chosen_precision
from msvae.training.optimizer import optimizer_of
from msvae.training.progress import Display, Quiet, tracked
from msvae.training.schedule import BatchOrder, derived_seed, learning_rate

VALIDATIONS = 20


class UNet(nn.Module):
    """Maps of width, 2, 4 and 8 times width channels, each half as large as the one before, and back with skips.

    Args:
        given, wanted: the sources of the one direction.
    """

    def __init__(self, given: Source, wanted: Source, width: int = 32) -> None:
        super().__init__()
        self.given, self.wanted = given, wanted
        sizes = channels_by_size(width)
        ways = itertools.pairwise([input_channels(given), *sizes])
        self.down = nn.ModuleList(ConvPair(before, after) for before, after in ways)
        self.up = nn.ModuleList(ConvPair(deep + flat, flat) for flat, deep in itertools.pairwise(sizes))
        self.head = nn.Conv2d(width, likelihood_of(wanted).raw_channels(wanted), 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def raw(self, images: Tensor) -> Tensor:
        """What the wanted source's likelihood reads."""
        maps, skips = network_input(self.given, images), []
        for level, pair in enumerate(self.down):
            maps = pair(F.max_pool2d(maps, 2) if level else maps)
            skips.append(maps)
        for pair, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            maps = pair(torch.cat([F.interpolate(maps, skip.shape[-2:], mode="nearest"), skip], dim=1))
        return self.head(maps).float()

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """-log p(target) in nats per number: an absolute error for pictures, cross-entropy for classes."""
        score = likelihood_of(self.wanted).log_prob(self.raw(images), self.wanted.normalise(targets), self.wanted)
        return -score.mean() / self.wanted.value_count

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The expected images of the wanted source, in its value range."""
        return torch.cat([mean_image(self.raw(part), self.wanted) for part in images.split(256)])


class Training:
    """A U-Net in training; of its averaged weights those with the least loss on validation rows are kept.

    Args:
        rows: those that have both sources are trained on.
    """

    def __init__(self, given: Source, wanted: Source, rows: Rows, config: TrainingConfig) -> None:
        torch.manual_seed(config.seed)
        self.rows, self.config = rows, config
        self.index = rows.having([given.name, wanted.name])
        self.network = UNet(given, wanted)
        self.average = RunningAverage(self.network, config.ema_decay)
        rate, decay, precision = config.learning_rate, config.weight_decay, chosen_precision(config)
        self.optimizer = optimizer_of(self.network, config.optimizer, rate, (0.9, 0.99), decay, precision)
        self.order = BatchOrder(len(self.index), config.batch_size, config.seed)
        self.step = 0

    def advance(self, total: int) -> float:
        """One step of so many; returns its seconds."""
        began = time.perf_counter()
        peak, warmup = self.config.learning_rate, self.config.warmup_steps
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, peak, warmup, total)
        changes = torch.Generator().manual_seed(derived_seed(self.config.seed, "augment", self.step))
        batch = self.rows.batch(self.index[self.order(self.step)])
        batch = augmented(batch, self.rows.sources, self.config.augment, changes)
        values = batch.values
        with autocast_for(torch.device("cpu"), "auto"):
            loss = self.network.loss(values[self.network.given.name], values[self.network.wanted.name])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update()
        self.step += 1
        return time.perf_counter() - began

    def best_of(self, steps: int, validation: Rows, display: Display | None = None) -> UNet:
        """Train, and return the average that did best on validation rows, looked at 20 times."""
        best = BestWeights()
        every = max(1, steps // VALIDATIONS)
        for _ in tracked(range(self.step, steps), display or Quiet(), "training the U-Net", steps):
            self.advance(steps)
            if self.step % every == 0 or self.step == steps:
                best.look(self._validation_loss(validation), self.step, self.average.model)
        best.give(self.average.model)
        return self.average.model.eval()

    @torch.no_grad()
    def _validation_loss(self, rows: Rows) -> float:
        network = self.average.model
        given, wanted = network.given.name, network.wanted.name
        index = rows.having([given, wanted])
        losses = [
            float(network.loss(batch.values[given], batch.values[wanted])) * len(part)
            for part in index.split(256)
            for batch in [rows.batch(part)]
        ]
        return sum(losses) / len(index)
