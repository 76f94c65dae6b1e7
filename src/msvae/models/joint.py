"""The joint VAE: encoders x fusion x objective x prior x decoders. Every part is chosen alone; none knows the
others."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from msvae.config import ModelConfig
from msvae.errors import ConfigError, unknown
from msvae.fusion import build_fusion
from msvae.fusion.barycenter import Barycenter
from msvae.fusion.product import ProductOfExperts
from msvae.fusion.separate import Separate
from msvae.likelihoods import likelihood_of, likelihood_scales
from msvae.models.base import Features, Loss, Mode, MultiSourceModel, Weights
from msvae.networks import SourceNetworks
from msvae.networks.pairs import Pair
from msvae.objectives import build_objective
from msvae.posterior import Experts, Posterior
from msvae.priors import FittedMixture, StandardPrior
from msvae.source import Source, SourceBatch, check_batch

ENCODED_AT_ONCE = 500


class JointVAE(MultiSourceModel):
    """q(z | x_S) by fusion of one expert per source, p(x | z) by one decoder per source, trained by an objective.

    Sources that a row lacks cost nothing: only present images are encoded, decoded and scored.

    Args:
        sources: the sources, in the order of all presence matrices.
        config: the parts.
        networks: the user's own `{source: (encoder, decoder)}` modules, for some sources or all.
    """

    def __init__(
        self, sources: Sequence[Source], config: ModelConfig, networks: Mapping[str, Pair] | None = None
    ) -> None:
        super().__init__(sources)
        self.config = config
        self.fusion = build_fusion(config.fusion, len(sources), config.prior_expert)
        self.objective = build_objective(config)
        self.networks = SourceNetworks(
            sources,
            encoder_outputs=2 * config.latent,
            decoder_inputs=config.latent,
            kind=config.networks,
            width=config.width,
            shared_trunk=config.shared_trunk,
            custom=networks,
        )
        self.likelihood_scales = likelihood_scales(sources, config.likelihood_scaling)
        latent = self.fusion.latent_size(config.latent)
        self.prior = StandardPrior(latent)
        self.sampler = FittedMixture(config.sampler_components, latent) if config.sampler_components else None

    @property
    def latent_rules(self) -> tuple[str, ...]:
        return ("own",) if isinstance(self.fusion, Separate) else ("own", "product", "barycenter")

    @property
    def has_fitted_sampler(self) -> bool:
        return self.sampler is not None and self.sampler.is_fitted

    def loss(self, batch: SourceBatch, generator: Generator | None = None) -> Loss:
        batch = batch.to(self.device)
        check_batch(batch, self.sources)
        return self.objective(self, batch, generator)

    def experts(self, batch: SourceBatch) -> Experts:
        """One Gaussian per source and row; absent images are not read."""
        present = batch.presence(self.source_names)
        blank = torch.zeros(len(batch), self.config.latent, device=batch.device)
        means, log_variances = [], []
        for name, has_it in zip(self.source_names, present, strict=True):
            rows = _present_rows(has_it)
            if rows is not None and len(rows) == 0:
                mean, log_variance = blank, blank
            else:
                mean, log_variance = self.networks.encode(name, _take(batch.values[name], rows))
                if rows is not None:
                    mean = blank.index_copy(0, rows, mean)
                    log_variance = blank.index_copy(0, rows, log_variance)
            means.append(mean)
            log_variances.append(log_variance)
        return Experts(torch.stack(means), torch.stack(log_variances), present)

    def log_likelihoods(
        self, code: Float[Tensor, "rows latent"], batch: SourceBatch
    ) -> dict[str, Float[Tensor, " rows"]]:
        """log p(x_m | code) in nats for every source of the batch; 0 where it is absent, which costs no decoding."""
        scores = {}
        for index, name in enumerate(self.source_names):
            if name not in batch.present:
                continue
            rows = _present_rows(batch.present[name])
            if rows is not None and len(rows) == 0:
                continue
            source = self.sources[index]
            raw = self.networks.decode(name, self.fusion.code_of(_take(code, rows), index))
            target = source.normalise(_take(batch.values[name], rows))
            score = likelihood_of(source).log_prob(raw, target, source)
            scores[name] = score if rows is None else score.new_zeros(len(batch)).index_copy(0, rows, score)
        return scores

    def encode(self, batch: SourceBatch, weights: Weights | None = None, rule: str = "own") -> Posterior:
        batch = batch.to(self.device)
        check_batch(batch, self.sources, allow_empty_rows=True)
        if rule not in self.latent_rules:
            raise ConfigError(unknown("latent rule", rule, self.latent_rules))
        if rule == "own":
            fusion = self.fusion
        elif rule == "product":
            fusion = ProductOfExperts(len(self.sources), self.config.prior_expert)
        else:
            fusion = Barycenter(len(self.sources))
        vector = None if weights is None else self.weight_vector(weights, batch)
        return fusion(self.experts(batch), vector)

    def decode(
        self,
        code: Float[Tensor, "rows latent"],
        to: Sequence[str] | str | None = None,
        mode: Mode = "mean",
        generator: Generator | None = None,
    ) -> SourceBatch:
        images = {}
        for name in self.wanted(to):
            index = self.source_names.index(name)
            source = self.sources[index]
            raw = self.networks.decode(name, self.fusion.code_of(code, index))
            images[name] = source.denormalise(likelihood_of(source).mean(raw, source))
        return SourceBatch.complete(images)

    def draw(
        self, rows: int, generator: Generator | None = None, *, from_prior: bool = False
    ) -> Float[Tensor, "rows latent"]:
        if from_prior or self.sampler is None or not self.sampler.is_fitted:
            return self.prior.sample(rows, generator)
        return self.sampler.sample(rows, generator)

    @torch.no_grad()
    def after_training(self, batch: SourceBatch, seed: int) -> None:
        """Fit the sampler to the codes of training rows."""
        if self.sampler is not None:
            generator = torch.Generator(self.device).manual_seed(seed)
            parts = torch.arange(len(batch), device=batch.device).split(ENCODED_AT_ONCE)
            codes = torch.cat([self.encode(batch.rows(part)).sample(generator) for part in parts])
            self.sampler.fit(codes, seed)

    def features(self, batch: SourceBatch) -> Features:
        batch = batch.to(self.device)
        pooled = self.encode(batch).mean
        maps = {}
        for name, has_it in batch.present.items():
            values = batch.values[name]
            filled = torch.where(has_it.view(-1, *[1] * (values.dim() - 1)), values, torch.zeros_like(values))
            source_maps = self.networks.maps(name, filled)
            if source_maps is not None:
                maps[name] = source_maps * has_it.view(-1, 1, 1, 1)
        return Features(pooled, maps)


def _present_rows(present: Tensor) -> Tensor | None:
    """Indices of the rows that have a source; None for all of them, so that complete batches copy nothing."""
    return None if bool(present.all()) else present.nonzero().squeeze(1)


def _take(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values[rows]
