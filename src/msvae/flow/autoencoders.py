"""Stage A: one variational autoencoder per source, for rows that need no pairing."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from msvae.likelihoods import likelihood_of, mean_image
from msvae.networks.spatial import MapNetworks
from msvae.source import Source, SourceBatch
from msvae.subsets import rows_of_each

STATISTICS_MOMENTUM = 0.05
LEAST_DEVIATION = 0.1  # of the root mean square of all


class Standardiser(nn.Module):
    """(x - mean) / deviation for every number of a latent: of a batch in a loss, of all rows in answers."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def forward(self, values: Float[Tensor, "rows size"], of_batch: bool = False) -> Float[Tensor, "rows size"]:
        """Standardised values.

        Args:
            of_batch: by the statistics of these rows, which are remembered as a running mean; one row alone by the
                remembered ones.
        """
        if not of_batch or len(values) < 2:
            return (values - self.mean) / self.deviation
        mean, deviation = values.mean(dim=0), _deviation(values)
        with torch.no_grad():
            self.mean.lerp_(mean, STATISTICS_MOMENTUM)
            self.deviation.lerp_(deviation, STATISTICS_MOMENTUM)
        return (values - mean) / deviation

    def restore(self, values: Float[Tensor, "rows size"]) -> Float[Tensor, "rows size"]:
        """The inverse, with the statistics of all rows."""
        return values * self.deviation + self.mean

    def calibrate(self, values: Float[Tensor, "rows size"]) -> None:
        """Take the statistics of these rows."""
        self.mean.copy_(values.mean(dim=0))
        self.deviation.copy_(_deviation(values))


def _deviation(values: Float[Tensor, "rows size"]) -> Float[Tensor, " size"]:
    """Of every number, but not far below that of all: a corner that is white in nearly all rows is not blown up."""
    variance = values.var(dim=0, correction=0)
    return (variance + LEAST_DEVIATION**2 * variance.mean() + 1e-6).sqrt()


class Autoencoders(nn.Module):
    """q(h | x_m) = N(standardised encoding, noise^2 I) and p(x_m | h): a VAE for each source.

    The standardised encodings have mean 0 and variance 1 over the rows (less where a number hardly varies), so that the
    KL to N(0, I), on average d / 2 (noise^2 - 1 - log noise^2) + d / 2, hardly changes, and the ELBO is the
    reconstruction term (batch-normalised inference: Zhu et al. 2020, arXiv 2004.12585). The noise makes decoders robust
    to what the flow gets wrong.

    Args:
        noise: standard deviation of the posterior, in units of the latents' own.
        edges: weight of the absolute error of image gradients beside that of the likelihood.
        even_contrast: whether images of low contrast count as much as others.
    """

    def __init__(
        self, sources: Sequence[Source], networks: MapNetworks, noise: float, edges: float, even_contrast: bool
    ) -> None:
        super().__init__()
        self.sources = {source.name: source for source in sources}
        self.networks = networks
        self.noise, self.edges, self.even_contrast = noise, edges, even_contrast
        self.standard = nn.ModuleDict({f"of_{name}": Standardiser(networks.size(name)) for name in self.sources})

    def lent_to(self, other: "Autoencoders") -> dict[str, Tensor]:
        """The weights and statistics with which other autoencoders, of some of these sources, are as these."""
        state = {f"networks.{key}": value for key, value in self.networks.lent_to(other.networks).items()}
        for name in other.sources:
            standard = self.standard[f"of_{name}"].state_dict()
            state |= {f"standard.of_{name}.{key}": value for key, value in standard.items()}
        return state

    def latents(self, values: Mapping[str, Tensor], of_batch: bool = False) -> dict[str, Float[Tensor, "rows latents"]]:
        """The posteriors' means of images of several sources, standardised and flat."""
        encoded = self.networks.encode(values)
        return {name: self.standard[f"of_{name}"](maps.flatten(1), of_batch) for name, maps in encoded.items()}

    def decode(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The likelihoods' raw parameters for standardised latents."""
        shapes = self.networks.map_shape
        return self.networks.decode({name: flat.unflatten(1, shapes[name]) for name, flat in latents.items()})

    def image(self, name: str, latents: Float[Tensor, "rows latents"]) -> Tensor:
        """The expected image, in the source's value range."""
        source = self.sources[name]
        return mean_image(self.decode({name: latents})[name], source)

    def losses(
        self, batch: SourceBatch, generator: Generator | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """For every source of the batch: its loss, -log p in nats per image (for logs), and all latents by row."""
        present = present_values(batch, self.sources)
        codes = self.latents(present, of_batch=self.training)
        noisy = {
            name: code + self.noise * torch.randn(code.shape, generator=generator, device=code.device)
            for name, code in codes.items()
        }
        losses: dict[str, Tensor] = {}
        nats: dict[str, Tensor] = {}
        for name, raw in self.decode(noisy).items():
            source = self.sources[name]
            target = source.normalise(present[name])
            score = -likelihood_of(source).log_prob(raw, target, source)
            per_image = score / source.value_count + self._edge_error(source, raw, target)
            losses[name] = (per_image * self._weights(source, target)).sum() / len(batch)
            nats[name] = score.mean()
        return losses, nats, self.by_row(codes, batch)

    def calibrate(self, name: str, values: Float[Tensor, "rows latents"]) -> None:
        """Standardise a source by the statistics of these encodings."""
        standard = self.standard[f"of_{name}"]
        assert isinstance(standard, Standardiser)
        standard.calibrate(values)

    def by_row(self, codes: Mapping[str, Tensor], batch: SourceBatch) -> dict[str, Float[Tensor, "rows latents"]]:
        """Latents of present images, put into their rows; zero where a source is absent."""
        sizes = {name: self.networks.size(name) for name in self.sources}
        blank = {name: torch.zeros(len(batch), size, device=batch.device) for name, size in sizes.items()}
        return in_their_rows(codes, batch, blank)

    def _edge_error(self, source: Source, raw: Tensor, target: Tensor) -> Tensor:
        """Mean absolute error of differences between neighbours, in the likelihood's units; 0 for other than images."""
        if not self.edges or not source.is_image or source.categories:
            return target.new_zeros(len(target))
        gap = likelihood_of(source).mean(raw, source) - target
        down, across = gap.diff(dim=2).abs().flatten(1).mean(dim=1), gap.diff(dim=3).abs().flatten(1).mean(dim=1)
        return self.edges * (down + across) / source.scale

    def _weights(self, source: Source, target: Tensor) -> Tensor:
        if not self.even_contrast or not source.is_image or source.categories:
            return target.new_ones(len(target))
        return 0.2 / (target.flatten(1).std(dim=1) + 0.05)


def rows_by_source(names: Iterable[str], chosen: Bool[Tensor, "sources rows"]) -> dict[str, Int[Tensor, " _"]]:
    """The chosen rows of every source, of sources that are chosen in some row."""
    found = {}
    for name, rows in zip(names, rows_of_each(chosen), strict=True):
        rows = torch.arange(chosen.shape[1], device=chosen.device) if rows is None else rows
        if len(rows):
            found[name] = rows
    return found


def present_values(batch: SourceBatch, names: Iterable[str]) -> dict[str, Tensor]:
    """The images of every source that some row has, without the rows that lack it."""
    names = [name for name in names if name in batch.present]
    found = {}
    for name, rows in zip(names, rows_of_each(batch.presence(names)) if names else [], strict=True):
        if rows is None or len(rows):
            found[name] = batch.values[name] if rows is None else batch.values[name][rows]
    return found


def in_their_rows(
    values: Mapping[str, Tensor], batch: SourceBatch, blank: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "rows *numbers"]]:
    """What was computed of present images, put into their rows.

    Args:
        values: `{source: (present rows, *numbers)}`, of sources that some row has.
        blank: `{source: (rows, *numbers)}` what stands where a source is absent; it names the sources.
    """
    rows_of = rows_of_each(batch.presence(list(blank)))
    placed = {}
    for (name, empty), rows in zip(blank.items(), rows_of, strict=True):
        if name not in values:
            placed[name] = empty
        else:
            placed[name] = values[name] if rows is None else empty.index_copy(0, rows, values[name])
    return placed
