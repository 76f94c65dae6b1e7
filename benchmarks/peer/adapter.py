"""The peer's trained models behind this project's contract: the same judges ask them the same questions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msvae.data.base import Rows
from msvae.models.base import Mode, MultiSourceModel, Weights
from msvae.posterior import Posterior
from msvae.source import Source, SourceBatch

FITTED_ROWS = 5000
COMPONENTS = 20  # of the fitted mixture: as many as ours
FEWEST_FITTED = 100


class PeerModel(MultiSourceModel):
    """A model of PyPI `multivae`: `sample`, `encode`, `draw` and `decode` are its own `predict` and `encode`, its
    prior, and its own `GaussianMixtureSampler`.

    Codes of models with private latents are the shared code, followed by those of every source.
    """

    def __init__(self, sources: Sequence[Source], peer: Any) -> None:
        super().__init__(sources)
        self.peer = peer
        self.private = int(getattr(peer, "modalities_specific_dim", None) or 0)
        self.sampler: Any = None

    @property
    def has_fitted_sampler(self) -> bool:
        return self.sampler is not None

    @torch.no_grad()
    def fit_sampler(self, rows: Rows, seed: int) -> None:
        """Its Gaussian mixture, fitted to codes of complete training rows; with too few of these there is none."""
        from multivae.data.datasets.base import MultimodalBaseDataset
        from multivae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig

        complete = rows.having()
        order = torch.randperm(len(complete), generator=torch.Generator().manual_seed(seed))
        chosen = complete[order[:FITTED_ROWS]]
        if len(chosen) < FEWEST_FITTED:
            return
        np.random.seed(seed)  # scikit-learn's, which the peer leaves to it
        self.peer.eval()
        sampler = GaussianMixtureSampler(self.peer, GaussianMixtureSamplerConfig(n_components=COMPONENTS))
        sampler.fit(MultimodalBaseDataset(rows.batch(chosen).values))
        self.sampler = sampler

    @property
    def latent_rules(self) -> tuple[str, ...]:
        """None: it fuses without weights."""
        return ()

    def encode(self, batch: SourceBatch, weights: Weights | None = None, rule: str = "own") -> Posterior:
        with torch.no_grad():
            found = self.peer.encode(self._inputs(batch), list(batch.names), return_mean=True)
        parts = [found.z]
        if self.private:  # of sources that are not given nothing is known
            blank = found.z.new_zeros(len(found.z), self.private)
            parts += [found.modalities_z[name] if name in batch.names else blank for name in self.source_names]
        code = torch.cat(parts, dim=1)
        return Posterior.single(code, torch.zeros_like(code))

    @torch.no_grad()
    def sample(
        self,
        given: SourceBatch | None = None,
        to: Sequence[str] | None = None,
        n: int = 1,
        weights: Weights | None = None,
        mode: Mode = "sample",
        rule: str = "own",
        generator: torch.Generator | None = None,
    ) -> SourceBatch:
        assert given is not None
        assert n == 1
        wanted = self.wanted(to)
        with _Seeded(generator):
            made = self.peer.predict(self._inputs(given), list(given.names), list(wanted), return_mean=mode == "mean")
        return SourceBatch.complete({name: made[name].clamp(0, 1) for name in wanted})

    def draw(self, rows: int, generator: torch.Generator | None = None, *, from_prior: bool = False) -> Tensor:
        with _Seeded(generator), torch.no_grad():
            if from_prior or self.sampler is None:
                drawn = self.peer.generate_from_prior(rows)
            else:
                drawn = self.sampler.sample(rows)
        if not self.private:
            return drawn.z.float()
        shared = drawn.z[:, : -self.private] if drawn.one_latent_space else drawn.z
        own = [
            drawn.z[:, -self.private :] if drawn.one_latent_space else drawn.modalities_z[name]
            for name in self.source_names
        ]
        return torch.cat([shared, *own], dim=1).float()

    def decode(
        self,
        code: Tensor,
        to: Sequence[str] | str | None = None,
        mode: Mode = "mean",
        generator: torch.Generator | None = None,
    ) -> SourceBatch:
        """Expected images in both modes, as its own `predict` gives."""
        images = {}
        length = code.shape[1] - len(self.sources) * self.private
        shared, private = code[:, :length], code[:, length:].unflatten(1, (len(self.sources), self.private))
        for name in self.wanted(to):
            own = private[:, self.source_names.index(name)]
            with torch.no_grad():
                images[name] = self.peer.decoders[name](torch.cat([shared, own], dim=1)).reconstruction.clamp(0, 1)
        return SourceBatch.complete(images)

    def _inputs(self, batch: SourceBatch) -> Any:
        """Its kind of batch; absent sources are zeros, which some of its methods read and do not use."""
        from multivae.data.datasets.base import DatasetOutput

        blank = {source.name: torch.zeros(len(batch), *source.shape) for source in self.sources}
        return DatasetOutput(data={**blank, **batch.values})


class _Seeded:
    """The global generators, which the peer draws from, seeded by one of ours; torch's own state comes back."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.seed = None if generator is None else int(torch.randint(2**31, (1,), generator=generator))
        self.fork = torch.random.fork_rng()

    def __enter__(self) -> None:
        self.fork.__enter__()
        if self.seed is not None:
            torch.manual_seed(self.seed)
            np.random.seed(self.seed)

    def __exit__(self, *raised: Any) -> None:
        self.fork.__exit__(*raised)
