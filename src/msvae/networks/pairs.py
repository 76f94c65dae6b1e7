"""Which networks read and draw which source: one pair each, a shared trunk with FiLM, or the user's own modules."""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from msvae.errors import ConfigError, SourceError, unknown
from msvae.gaussian import bounded_log_variance
from msvae.likelihoods import likelihood_of
from msvae.networks.blocks import Condition, lay_out
from msvae.networks.conv import ConvDecoder, ConvEncoder
from msvae.networks.mlp import MlpDecoder, MlpEncoder
from msvae.networks.parts import in_parts
from msvae.source import Source

Pair = tuple[nn.Module, nn.Module]


class PairBuilder(NamedTuple):
    """How to build an encoder and a decoder of one kind; both take (source, inputs, outputs, width, conditions)."""

    encoder: Any
    decoder: Any


NETWORKS: dict[str, PairBuilder] = {
    "conv": PairBuilder(ConvEncoder, ConvDecoder),
    "residual": PairBuilder(partial(ConvEncoder, refine=1), partial(ConvDecoder, refine=1)),
    "mlp": PairBuilder(MlpEncoder, MlpDecoder),
}


def input_channels(source: Source) -> int:
    """Channels that a network reads: one per class of a categorical source."""
    return source.shape[0] * (source.categories or 1)


def network_input(source: Source, values: Tensor) -> Tensor:
    """The user's values as networks like them: [-1, 1], or one-hot channels for a categorical source."""
    if source.categories is None:
        inputs = (source.normalise(values) * 2 - 1).float()
    else:
        one_hot = F.one_hot(values.round().long(), source.categories)  # (rows, *shape, categories)
        inputs = one_hot.movedim(-1, 1).flatten(1, 2).float()
    return inputs.contiguous(memory_format=torch.channels_last) if source.is_image else inputs


class SourceNetworks(nn.Module):
    """All encoders and decoders of a model, by source name.

    Args:
        sources: the sources of the model.
        encoder_outputs: length of an encoder's vector: twice the latent size of a source, and the token.
        decoder_inputs: length of a decoder's code.
        kind: a key of `NETWORKS`.
        width: channels of the first map.
        shared_trunk: sources of equal shape, likelihood and classes share one pair, each with its own FiLM: fewer
            parameters, more data per weight.
        custom: `{name: (encoder, decoder)}`, copies of the user's own modules for some sources or all. The encoder maps
            (rows, input channels, ...) to (rows, encoder_outputs); the decoder (rows, decoder_inputs) to
            (rows, raw channels, ...).
        token_size: how many of an encoder's numbers a learned fusion reads beside mean and log-variance.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        encoder_outputs: int,
        decoder_inputs: int,
        kind: str = "conv",
        width: int = 32,
        shared_trunk: bool = False,
        custom: Mapping[str, Pair] | None = None,
        token_size: int = 0,
    ) -> None:
        super().__init__()
        custom = dict(custom or {})
        names = [source.name for source in sources]
        for name in custom:
            if name not in names:
                raise SourceError(f"Own networks: {unknown('source', name, names)}")
        if kind not in NETWORKS:
            raise ConfigError(unknown("networks", kind, NETWORKS))
        self.sources = {source.name: source for source in sources}
        self.encoder_outputs = encoder_outputs
        self.token_size = token_size
        self.encoders = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        self.trunk_of: dict[str, str] = {}
        self.condition_of: dict[str, int | None] = {}
        for group in source_groups([s for s in sources if s.name not in custom], shared_trunk):
            first = group[0]
            conditions = len(group) if len(group) > 1 else 0
            raw_channels = likelihood_of(first).raw_channels(first)
            builder = NETWORKS[kind]
            self._add(
                group,
                builder.encoder(first, input_channels(first), encoder_outputs, width=width, conditions=conditions),
                builder.decoder(first, decoder_inputs, raw_channels, width=width, conditions=conditions),
            )
        for name, (encoder, decoder) in custom.items():
            self._add([self.sources[name]], copy.deepcopy(encoder), copy.deepcopy(decoder))
        lay_out(self)

    def _add(self, group: Sequence[Source], encoder: nn.Module, decoder: nn.Module) -> None:
        trunk = f"of_{group[0].name}"  # a bare name could be one of nn.ModuleDict's own, such as "values"
        self.encoders[trunk], self.decoders[trunk] = encoder, decoder
        for index, source in enumerate(group):
            self.trunk_of[source.name] = trunk
            self.condition_of[source.name] = index if len(group) > 1 else None

    def _call(self, module: Any, name: str, argument: Tensor) -> Tensor:
        condition = self.condition_of[name]

        def ask(rows: Tensor) -> Tensor:
            return module(rows) if condition is None else module(rows, condition)

        return ask(argument) if self.training else in_parts(ask, self.sources[name].value_count, argument)

    def encode(
        self, name: str, values: Tensor
    ) -> tuple[Float[Tensor, "rows latent"], Float[Tensor, "rows latent"], Float[Tensor, "rows token"]]:
        """Mean and log-variance of q(z | x_name) in float32, the log-variance softly bounded, and the token."""
        source = self.sources[name]
        outputs = self._call(self.encoders[self.trunk_of[name]], name, network_input(source, values)).float()
        if outputs.dim() != 2 or outputs.shape[1] != self.encoder_outputs:
            raise SourceError(
                f"Source {name!r}: its encoder must give {self.encoder_outputs} numbers a row (means, log-variances"
                f"{', token' if self.token_size else ''}), got {tuple(outputs.shape[1:])}."
            )
        latent = (self.encoder_outputs - self.token_size) // 2
        mean, log_variance, token = outputs.split([latent, latent, self.token_size], dim=1)
        return mean, bounded_log_variance(log_variance), token

    def maps(self, name: str, values: Tensor) -> Tensor | None:
        """The encoder's last spatial map, or None where the network has none."""
        encoder = self.encoders[self.trunk_of[name]]
        if not hasattr(encoder, "maps"):
            return None
        return self._call(encoder.maps, name, network_input(self.sources[name], values)).float()

    def decode(self, name: str, code: Float[Tensor, "rows latent"]) -> Tensor:
        """The raw output that the source's likelihood reads, in float32."""
        raw = self._call(self.decoders[self.trunk_of[name]], name, code).float()
        source = self.sources[name]
        expected = (likelihood_of(source).raw_channels(source), *source.shape[1:])
        if tuple(raw.shape[1:]) != expected:
            raise SourceError(
                f"Source {name!r}: its decoder must give {expected} for its {source.likelihood} likelihood, "
                f"got {tuple(raw.shape[1:])}."
            )
        return raw


def source_groups(sources: Sequence[Source], shared: bool, alone: Collection[str] = ()) -> list[list[Source]]:
    """Sources that share a pair of networks: each alone, or those of equal form together, but for some that stand
    alone in any case."""
    groups: dict[Any, list[Source]] = {}
    for source in sources:
        form = (source.shape, source.likelihood, source.categories)
        groups.setdefault(form if shared and source.name not in alone else source.name, []).append(source)
    return sorted(groups.values(), key=lambda group: group[0].name in alone)


def by_trunk(place: Mapping[str, tuple[str, int | None]], names: Iterable[str]) -> dict[str, list[str]]:
    """Which sources go through which network together.

    Args:
        place: `{source: (trunk, its number among the sources of that trunk, or None where it is the only one)}`.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(place[name][0], []).append(name)
    return groups


def condition_of(
    place: Mapping[str, tuple[str, int | None]],
    names: Sequence[str],
    lengths: Sequence[int | torch.SymInt],
    device: torch.device,
) -> Condition | None:
    """What tells a trunk which rows are of which source, for rows of several sources one after the other."""
    numbers = [place[name][1] for name in names]
    if len(names) == 1:
        return numbers[0]
    runs = [
        torch.full((length,), int(number or 0), device=device) for number, length in zip(numbers, lengths, strict=True)
    ]
    return torch.cat(runs)
