"""Networks between an image and a small map of latents, or between a vector and one such cell; shared by sources of
one form, each with its own FiLM, or one pair for each source."""

import math
import re
from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from msvae.likelihoods import likelihood_of
from msvae.networks.blocks import Condition, ConvBlock, ResidualBlock, channels_at, laid_out, lay_out
from msvae.networks.conv import SubPixelDecoder, image_pyramid
from msvae.networks.mlp import MlpDecoder, MlpEncoder
from msvae.networks.pairs import by_trunk, condition_of, input_channels, network_input, source_groups
from msvae.networks.parts import in_parts
from msvae.source import Source

FILM_TABLE = re.compile(r"\bfilms?\.(\d+\.)?table\.weight$")  # a row for each source of the trunk


def map_sizes(source: Source, smallest: int) -> list[tuple[int, int]]:
    """Map sizes from the image down to a side of at most `smallest`, with one halving or more."""
    return image_pyramid(source, min(smallest, (max(source.shape[1:]) + 1) // 2))


class MapEncoder(nn.Module):
    """Image -> (channels, height, width) of latents: four neighbours become channels, then strided convolutions."""

    def __init__(
        self, source: Source, channels: int, width: int = 32, smallest: int = 4, refine: int = 1, conditions: int = 0
    ) -> None:
        super().__init__()
        sizes = map_sizes(source, smallest)
        self.padding = (0, -source.shape[2] % 2, 0, -source.shape[1] % 2)
        self.blocks = nn.ModuleList([ConvBlock(4 * input_channels(source), width, conditions=conditions)])
        inside = width
        for level in range(2, len(sizes)):
            self.blocks.append(ConvBlock(inside, channels_at(level, width), stride=2, conditions=conditions))
            inside = channels_at(level, width)
        self.blocks.extend(ResidualBlock(inside, conditions) for _ in range(refine))
        self.head = nn.Conv2d(inside, channels, 1)

    def forward(
        self, values: Float[Tensor, "rows channels height width"], condition: Condition | None = None
    ) -> Float[Tensor, "rows latent height_2 width_2"]:
        maps = F.pixel_unshuffle(F.pad(values, self.padding), 2)
        for block in self.blocks:
            maps = block(maps, condition)
        return self.head(maps)


class MapDecoder(SubPixelDecoder):
    """(channels, height, width) of latents -> raw image channels."""

    def __init__(
        self, source: Source, channels: int, width: int = 32, smallest: int = 4, refine: int = 1, conditions: int = 0
    ) -> None:
        sizes, outputs = map_sizes(source, smallest), likelihood_of(source).raw_channels(source)
        stem = ConvBlock(channels, channels_at(len(sizes) - 1, width), conditions=conditions)
        super().__init__(stem, sizes, outputs, width, refine, conditions)

    def forward(
        self, latents: Float[Tensor, "rows latent height width"], condition: Condition | None = None
    ) -> Float[Tensor, "rows raw height_2 width_2"]:
        return self.from_stem(self.stem(latents, condition), condition)


class CellEncoder(nn.Module):
    """Vector -> one cell of latents, (channels, 1, 1)."""

    def __init__(self, source: Source, channels: int, width: int = 32, conditions: int = 0) -> None:
        super().__init__()
        self.network = MlpEncoder(source, input_channels(source), channels, width, conditions=conditions)

    def forward(self, values: Tensor, condition: Condition | None = None) -> Float[Tensor, "rows latent 1 1"]:
        return self.network(values, condition)[:, :, None, None]


class CellDecoder(nn.Module):
    """One cell of latents -> raw output of a vector source."""

    def __init__(self, source: Source, channels: int, width: int = 32, conditions: int = 0) -> None:
        super().__init__()
        self.network = MlpDecoder(
            source, channels, likelihood_of(source).raw_channels(source), width, conditions=conditions
        )

    def forward(self, latents: Float[Tensor, "rows latent 1 1"], condition: Condition | None = None) -> Tensor:
        return self.network(latents.flatten(1), condition)


class MapNetworks(nn.Module):
    """One encoder and one decoder (or the encoder alone) for every source.

    Args:
        channels: latents of a cell.
        width: channels of the first map.
        smallest: the largest side a map of latents may have.
        shared_trunk: sources of equal form share their networks, each with its own FiLM.
        alone: sources that get networks of their own in any case.
        decoders: whether there are decoders.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        channels: int,
        width: int,
        smallest: int,
        refine: int = 1,
        shared_trunk: bool = True,
        alone: Collection[str] = (),
        decoders: bool = True,
    ) -> None:
        super().__init__()
        self.sources = {source.name: source for source in sources}
        self.encoders, self.decoders = nn.ModuleDict(), nn.ModuleDict()
        self.place: dict[str, tuple[str, int | None]] = {}
        self.map_shape: dict[str, tuple[int, int, int]] = {}
        for group in source_groups(sources, shared_trunk, alone):
            first, conditions = group[0], len(group) if len(group) > 1 else 0
            trunk = f"of_{first.name}"
            if first.is_image:
                build = {"width": width, "smallest": smallest, "refine": refine, "conditions": conditions}
                self.encoders[trunk] = MapEncoder(first, channels, **build)
                if decoders:
                    self.decoders[trunk] = MapDecoder(first, channels, **build)
                side = map_sizes(first, smallest)[-1]
            else:
                self.encoders[trunk] = CellEncoder(first, channels, width, conditions)
                if decoders:
                    self.decoders[trunk] = CellDecoder(first, channels, width, conditions)
                side = (1, 1)
            for index, source in enumerate(group):
                self.place[source.name] = (trunk, index if conditions else None)
                self.map_shape[source.name] = (channels, side[0], side[1])
        lay_out(self)

    def encode(self, values: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "rows latent height width"]]:
        """Latents of images in each source's value range, in float32; sources of one trunk go through it together."""
        inputs = {name: network_input(self.sources[name], tensor) for name, tensor in values.items()}
        return self._through(self.encoders, inputs)

    def decode(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The raw outputs that the sources' likelihoods read, in float32."""
        return self._through(self.decoders, latents)

    def lent_to(self, other: "MapNetworks") -> dict[str, Tensor]:
        """The weights with which another set of networks, of some of these sources in any order, does what this one
        does: of a trunk that more sources share, the rows of its FiLM that are theirs.

        Raises:
            ValueError: where sources that share a trunk there have several here, or one that has its own there shares
                one here.
        """
        state: dict[str, Tensor] = {}
        for trunk, names in by_trunk(other.place, other.place).items():
            trunks = {self.place[name][0] for name in names}
            if len(trunks) > 1:
                raise ValueError(f"{', '.join(names)} share networks in one, and not in the other")
            [own], rows = trunks, [self.place[name][1] for name in names]
            if len(names) == 1 and rows != [None]:
                raise ValueError(f"{names[0]} shares networks with others there, and would be alone here")
            for kind in ("encoders", "decoders"):
                for key, value in getattr(self, kind)[own].state_dict().items():
                    state[f"{kind}.{trunk}.{key}"] = value[rows] if FILM_TABLE.search(key) else value
        return state

    def _through(self, networks: nn.ModuleDict, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        for trunk, names in by_trunk(self.place, inputs).items():
            parts = [inputs[name] for name in names]
            lengths = [part.shape[0] for part in parts]
            together = torch.cat(parts) if len(parts) > 1 else parts[0]
            if together.dim() == 4:
                together = laid_out(together)
            condition = condition_of(self.place, names, lengths, together.device)
            answer = self._asked(networks[trunk], self.sources[names[0]].value_count, together, condition).float()
            outputs |= zip(names, answer.split(lengths), strict=True)
        return outputs

    def _asked(self, network: nn.Module, values: int, inputs: Tensor, condition: Condition | None) -> Tensor:
        if self.training:
            return network(inputs, condition)
        if isinstance(condition, Tensor):  # of each row
            return in_parts(network, values, inputs, condition)
        return in_parts(lambda rows: network(rows, condition), values, inputs)

    def size(self, name: str) -> int:
        """Latents of one image of the source."""
        return math.prod(self.map_shape[name])
