"""Networks that predict the velocity of a source's latents: over the whole map at once, or over squares of its cells.

Sources with maps of one shape share the linear maps in and out, so that few steps are enough; sources that are added to
a trained model have their own, so that nothing of the others changes.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from msvae.networks.modulated import ModulatedMlp
from msvae.networks.transformer import Transformer, grid_positions

Shape = tuple[int, int, int]
Runs = Sequence[tuple[str, int | torch.SymInt]]
"""(source, number of rows), in the order of the rows; their maps of latents have one shape. Symbolic where exported."""


class SourceLinear(nn.Module):
    """A linear map for each shape of the sources' maps, and one for each source that stands alone.

    Args:
        shapes: of the sources' maps; the first source of each shape gives its name to what they share.
        inputs, outputs: numbers of each source.
        alone: sources that share nothing.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        alone: Collection[str] = (),
    ) -> None:
        super().__init__()
        first: dict[Shape, str] = {}
        self.place = {n: n if n in alone else first.setdefault(shape, n) for n, shape in shapes.items()}
        self.maps = nn.ModuleDict(
            {f"of_{n}": nn.Linear(inputs[n], outputs[n]) for n in dict.fromkeys(self.place.values())}
        )

    def forward(self, runs: Runs, values: Tensor) -> Tensor:
        places = [self.place[name] for name, _ in runs]
        if len(set(places)) == 1:
            return self.maps[f"of_{places[0]}"](values)
        parts = values.split([length for _, length in runs])
        return torch.cat([self.maps[f"of_{place}"](part) for place, part in zip(places, parts, strict=True)])


class VectorField(nn.Module):
    """The map as one vector, through a residual MLP: for small maps whose cells belong together, as in a digit.

    Args:
        shapes: `{source: (channels, height, width)}` of the latents.
        alone: sources with linear maps of their own.
    """

    def __init__(self, shapes: Mapping[str, Shape], width: int, depth: int, alone: Collection[str] = ()) -> None:
        super().__init__()
        self.tokens = 1
        self.network = ModulatedMlp(width, depth)
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        self.into = SourceLinear(shapes, sizes, dict.fromkeys(sizes, width), alone)
        self.out = SourceLinear(shapes, dict.fromkeys(sizes, width), sizes, alone)

    def forward(
        self,
        runs: Runs,
        state: Float[Tensor, "rows latents"],
        condition: Float[Tensor, "rows width"],
        content: Float[Tensor, "rows slots width"],
    ) -> Float[Tensor, "rows latents"]:
        """The velocity; the content is in the condition already."""
        return self.out(runs, self.network(self.into(runs, state), condition)).float()


class GridField(nn.Module):
    """A Transformer whose tokens are squares of cells, and the slots of the shared code where there are several.

    Args:
        shapes: `{source: (channels, height, width)}` of the latents.
        patch: side of the square of cells that make a token.
        alone: sources with linear maps of their own.
        normalised: of attention, as in `msvae.networks.transformer`.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        width: int,
        depth: int,
        heads: int,
        patch: int,
        alone: Collection[str] = (),
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.shapes, self.patch = dict(shapes), patch
        self.transformer = Transformer(width, depth, heads, normalised)
        sizes = {name: shape[0] * patch**2 for name, shape in shapes.items()}
        self.into = SourceLinear(shapes, sizes, dict.fromkeys(sizes, width), alone)
        self.out = SourceLinear(shapes, dict.fromkeys(sizes, width), sizes, alone)
        self.tokens = max(math.prod(self._grid(shape)) for shape in shapes.values())
        for name, shape in self.shapes.items():
            self.register_buffer(f"position_of_{name}", grid_positions(*self._grid(shape), width), persistent=False)

    def forward(
        self,
        runs: Runs,
        state: Float[Tensor, "rows latents"],
        condition: Float[Tensor, "rows width"],
        content: Float[Tensor, "rows slots width"],
    ) -> Float[Tensor, "rows latents"]:
        """The velocity."""
        shape = self.shapes[runs[0][0]]
        positions = self.get_buffer(f"position_of_{runs[0][0]}")
        tokens = self.into(runs, self._tokens(state, shape))
        tokens = tokens + positions.to(tokens.dtype)
        if content.shape[1] > 1:
            tokens = torch.cat([tokens, content.to(tokens.dtype)], dim=1)
        refined = self.transformer(tokens, condition)[:, : len(positions)]
        return self._cells(self.out(runs, F.layer_norm(refined, refined.shape[-1:])).float(), shape)

    def _grid(self, shape: Shape) -> tuple[int, int]:
        return math.ceil(shape[1] / self.patch), math.ceil(shape[2] / self.patch)

    def _tokens(self, state: Float[Tensor, "rows latents"], shape: Shape) -> Float[Tensor, "rows tokens numbers"]:
        """Flat latents as one token for each square of cells, with zeros beyond the map's border."""
        _, height, across = shape
        maps = F.pad(state.unflatten(1, shape), (0, -across % self.patch, 0, -height % self.patch))
        return F.pixel_unshuffle(maps, self.patch).flatten(2).transpose(1, 2)

    def _cells(self, tokens: Float[Tensor, "rows tokens numbers"], shape: Shape) -> Float[Tensor, "rows latents"]:
        """The inverse of `_tokens`."""
        _, height, across = shape
        maps = F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, self._grid(shape)), self.patch)
        return maps[..., :height, :across].flatten(1)
