"""The joint VAE: encoders x fusion x latent structure x objective x prior x decoders. Every part is chosen alone; none
knows the others."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from msvae import gaussian
from msvae.config import ModelConfig
from msvae.errors import SourceError
from msvae.fusion import FusionSettings, build_fusion
from msvae.fusion.barycenter import Barycenter
from msvae.fusion.product import ProductOfExperts
from msvae.fusion.separate import Separate
from msvae.likelihoods import likelihood_of, likelihood_scales, mean_image
from msvae.models.base import Features, Mode, MultiSourceModel, Weights, check_mode
from msvae.models.streaming import streamed_loss
from msvae.networks import SourceNetworks
from msvae.networks.pairs import Pair
from msvae.objectives import Loss, build_objective, cross_source_contrast
from msvae.posterior import Evidence, Experts, Posterior
from msvae.priors import Guard, build_prior, build_sampler
from msvae.source import Source, SourceBatch, check_batch
from msvae.subsets import rows_of_each

ENCODED_AT_ONCE = 500
DECODED_AT_ONCE_ON_CPU = 256
VALUES_DECODED_AT_ONCE = 16_000_000  # image values; at 28x28x3 some 700 MB of activations


class JointVAE(MultiSourceModel):
    """q(z | x_S) by fusion of one expert per source, p(x | z, w) by one decoder per source, trained by an objective.

    A row's code is the fused code, followed by the private codes w_1, .., w_M where the model has such. Sources that a
    row lacks cost nothing: only present images are encoded, decoded and scored.

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
        self.progress = 1.0  # of the training; schedules of objectives read it
        self.fusion_settings = FusionSettings(len(sources), config.latent, config.prior_expert, config.dependence)
        self.fusion = build_fusion(config.fusion, self.fusion_settings)
        self.objective = build_objective(config, len(sources))
        own = config.latent + config.private
        tokens = self.fusion.token_size(config.latent)
        self.networks = SourceNetworks(
            sources,
            encoder_outputs=2 * own + tokens,
            decoder_inputs=own,
            kind=config.networks,
            width=config.width,
            shared_trunk=config.shared_trunk,
            custom=networks,
            token_size=tokens,
        )
        scales = likelihood_scales(sources, config.likelihood_scaling)
        self.register_buffer("scales", torch.tensor([scales[name] for name in self.source_names]), persistent=False)
        self.scales: Tensor
        self.shared_length = self.fusion.latent_size(config.latent)
        self.prior = build_prior(config, self.shared_length)
        self.guard = Guard(len(sources), config.private, self.objective.crosses_private)
        self.sampler = build_sampler(config, self.shared_length + len(sources) * config.private)

    @property
    def latent_rules(self) -> tuple[str, ...]:
        if isinstance(self.fusion, Separate) or not self.fusion.experts_are_posteriors:
            return ("own",)
        return ("own", "product", "barycenter")

    def tell_progress(self, share: float, steps: int) -> None:
        self.progress = share

    @property
    def needs_complete_rows(self) -> bool:
        return self.objective.needs_complete_rows

    def loss(self, batch: SourceBatch, generator: Generator | None = None) -> Loss:
        batch = batch.to(self.device)
        check_batch(batch, self.sources)
        if self.needs_complete_rows:
            self._refuse_partial_rows(batch)
        evidence = self.evidence(batch)
        values = self.objective.copies() * sum(source.value_count for source in self.sources)
        rows_at_once = max(1, VALUES_DECODED_AT_ONCE // values)
        if len(batch) <= rows_at_once:
            loss = self.objective(self, evidence, batch, generator)
        else:
            encoders = {id(parameter) for parameter in self.networks.encoders.parameters()}
            others = [p for p in self.parameters() if id(p) not in encoders and p.requires_grad]
            loss = streamed_loss(
                lambda part, rows: self.objective(self, part, rows, generator), evidence, batch, others, rows_at_once
            )
        if not self.config.contrast:
            return loss
        contrast = cross_source_contrast(evidence.shared, self.config.contrast_temperature)
        return Loss(loss.total + self.config.contrast * contrast, {**loss.terms, "contrast": contrast.detach()})

    def _refuse_partial_rows(self, batch: SourceBatch) -> None:
        absent = ~batch.presence(self.source_names)
        if bool(absent.any()):
            source, row = absent.nonzero()[0].tolist()
            raise SourceError(
                f"The objective {self.config.objective!r} needs complete rows; row {row} of the batch lacks source "
                f"{self.source_names[source]!r}."
            )

    def evidence(self, batch: SourceBatch) -> Evidence:
        """What the encoders say of every present image; absent images are not read."""
        config, rows = self.config, len(batch)
        present = batch.presence(self.source_names)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for name, index in zip(self.source_names, rows_of_each(present), strict=True):
            if index is not None and len(index) == 0:
                own = torch.zeros(rows, config.latent + config.private, device=batch.device)
                parts.append((own, own, own.new_zeros(rows, self.networks.token_size)))
            else:
                said = self.networks.encode(name, _take(batch.values[name], index))
                if index is not None:
                    said = (_put(said[0], index, rows), _put(said[1], index, rows), _put(said[2], index, rows))
                parts.append(said)
        means, log_variances, tokens = (torch.stack(kind) for kind in zip(*parts, strict=True))
        lengths = [config.latent, config.private]
        shared_means, private_means = means.split(lengths, dim=2)
        shared_log_variances, private_log_variances = log_variances.split(lengths, dim=2)
        return Evidence(
            Experts(shared_means, shared_log_variances, present, tokens if self.networks.token_size else None),
            Experts(private_means, private_log_variances, present),
        )

    def log_likelihoods(
        self,
        codes: Float[Tensor, "copies rows latent"],
        private: Float[Tensor, "copies sources rows private"],
        batch: SourceBatch,
        wanted: Bool[Tensor, "copies sources rows"],
    ) -> Float[Tensor, "copies sources rows"]:
        """log p(x_m | code) in nats wherever it is wanted; 0 elsewhere, which costs no decoding."""
        rows = len(batch)
        flat_codes = codes.flatten(0, 1)
        scores = []
        everything = torch.arange(len(flat_codes), device=codes.device)
        asked = rows_of_each(wanted.transpose(0, 1).flatten(1))
        for index, (source, pairs) in enumerate(zip(self.sources, asked, strict=True)):
            name = source.name
            if pairs is not None and len(pairs) == 0:
                scores.append(flat_codes.new_zeros(len(flat_codes)))
                continue
            code = self._code_of(index, _take(flat_codes, pairs), _take(private[:, index].flatten(0, 1), pairs))
            which = everything if pairs is None else pairs
            target = source.normalise(batch.values[name])
            likelihood = likelihood_of(source)
            parts = [
                likelihood.log_prob(self.networks.decode(name, some), target[of % rows], source)
                for some, of in zip(*(_parts(tensor) for tensor in (code, which)), strict=True)
            ]
            score = torch.cat(parts)
            scores.append(score if pairs is None else _put(score, pairs, len(flat_codes)))
        return torch.stack([score.unflatten(0, (-1, rows)) for score in scores], dim=1)

    def private_codes(
        self, evidence: Evidence, own: Bool[Tensor, "copies sources rows"], generator: Generator | None = None
    ) -> Float[Tensor, "copies sources rows private"]:
        """Private codes of every source: from its own posterior where `own` says so, else from its guard."""
        copies, _, rows = own.shape
        if self.config.private == 0:
            return evidence.private.means.expand(copies, -1, -1, -1)
        known = evidence.private.sample(copies, generator)
        if bool((own | ~evidence.present).all()):
            return known
        return torch.where(own[..., None], known, self.guard.sample(copies, rows, generator))

    def private_kls(self, evidence: Evidence) -> Float[Tensor, "sources rows"]:
        """KL(q(w_m | x_m) || N(0, I)) of every source."""
        return gaussian.kl_to_standard(evidence.private.means, evidence.private.log_variances)

    def private_kl(
        self,
        evidence: Evidence,
        own: Bool[Tensor, "*copies sources rows"],
        drawn: Bool[Tensor, "*copies sources rows"] | None = None,
    ) -> Float[Tensor, "*copies rows"]:
        """KL of the private codes of all sources that are drawn (all present ones by default), each from its own
        posterior or from its guard."""
        counted = evidence.present if drawn is None else drawn
        guarded = self.guard.kl_to_standard()[:, None]
        return (torch.where(own, self.private_kls(evidence), guarded) * counted).sum(dim=-2)

    @contextmanager
    def decoders_held(self) -> Iterator[None]:
        """What is decoded in here teaches encoders alone."""
        learning = [parameter for parameter in self.networks.decoders.parameters() if parameter.requires_grad]
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)

    def encode(self, batch: SourceBatch, weights: Weights | None = None, rule: str = "own") -> Posterior:
        batch = batch.to(self.device)
        check_batch(batch, self.sources, allow_empty_rows=True)
        self.check_rule(rule)
        if rule == "own":
            fusion = self.fusion
        elif rule == "product":
            fusion = ProductOfExperts(replace(self.fusion_settings, prior_expert=self.fusion.counts_prior))
        else:
            fusion = Barycenter(self.fusion_settings)
        vector = None if weights is None else self.weight_vector(weights, batch)
        evidence = self.evidence(batch)
        fused = fusion(evidence.shared, vector)
        heard = evidence.present if vector is None else evidence.present & (vector > 0)[:, None]
        return self._with_private(fused, evidence.private, heard)

    def _with_private(self, fused: Posterior, private: Experts, heard: Bool[Tensor, "sources rows"]) -> Posterior:
        """The posterior over the whole code: private codes of sources that are not heard follow their guards."""
        if self.config.private == 0:
            return fused
        known = heard[..., None]
        means = torch.where(known, private.means, torch.zeros_like(private.means))
        log_variances = torch.where(known, private.log_variances, self.guard.log_variances[:, None])

        def beside(shared: Tensor, own: Tensor) -> Tensor:
            return torch.cat([shared, own.transpose(0, 1).flatten(1).expand(len(shared), -1, -1)], dim=2)

        return Posterior(beside(fused.means, means), beside(fused.log_variances, log_variances), fused.log_weights)

    def _code_of(self, index: int, shared: Tensor, private: Tensor) -> Tensor:
        """What a source is decoded from."""
        code = self.fusion.code_of(shared, index)
        return torch.cat([code, private], dim=1) if self.config.private else code

    def decode(
        self,
        code: Float[Tensor, "rows latent"],
        to: Sequence[str] | str | None = None,
        mode: Mode = "mean",
        generator: Generator | None = None,
    ) -> SourceBatch:
        check_mode(mode)
        images: dict[str, Tensor] = {}
        code = self.checked_codes(code, self.shared_length + len(self.sources) * self.config.private)
        shared = code[:, : self.shared_length]
        private = code[:, self.shared_length :].unflatten(1, (len(self.sources), self.config.private))
        for name in self.wanted(to):
            index = self.source_names.index(name)
            source = self.sources[index]
            raw = self.networks.decode(name, self._code_of(index, shared, private[:, index]))
            images[name] = mean_image(raw, source)
        return SourceBatch.complete(images)

    def draw(
        self, rows: int, generator: Generator | None = None, *, from_prior: bool = False
    ) -> Float[Tensor, "rows latent"]:
        if from_prior or self.sampler is None or not self.sampler.is_fitted:
            shared = self.prior.sample(rows, generator)
            length = len(self.sources) * self.config.private
            return torch.cat([shared, torch.randn(rows, length, generator=generator, device=self.device)], dim=1)
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


def _take(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values[rows]


def _parts(values: Tensor) -> Sequence[Tensor]:
    """Rows in parts whose maps stay in a CPU's cache; a GPU takes all at once."""
    return values.split(DECODED_AT_ONCE_ON_CPU) if values.device.type == "cpu" else [values]


def _put(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Values of some of the rows among `count` rows, the others 0."""
    return values.new_zeros(count, *values.shape[1:]).index_copy(0, rows, values)
