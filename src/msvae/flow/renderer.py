"""Stage C, second flow: the latents of any source, given the shared code; its noise is the source's private part."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from msvae.flow.guidance import guided_velocity
from msvae.flow.path import MEAN_SHARE, path_points
from msvae.flow.sampler import Velocity
from msvae.networks.transformer import TimeEmbedding, Transformer, grid_positions

Shape = tuple[int, int, int]
Runs = Sequence[tuple[str, int]]


class Renderer(nn.Module):
    """v(h_t, t; w, source): a Transformer over the cells of a source's map of latents, one network for all sources.

    Each source has its own embedding and its own linear maps in and out, so that a source can be added without
    touching the others. The shared code modulates every layer; where it has several slots, they are tokens as well.

    Args:
        shapes: `{source: (channels, height, width)}` of the latents.
        slots, size: tokens of the shared code and their numbers.
        dropped: share of rows that are trained on without their code.
        patch: side of the square of cells that make a token; where it is the whole map, the network is an MLP.
        only_mean: learn the conditional mean alone: a plain decoder of the code, to compare with.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        slots: int,
        size: int,
        width: int,
        depth: int,
        heads: int,
        dropped: float,
        patch: int = 1,
        only_mean: bool = False,
    ) -> None:
        super().__init__()
        self.shapes, self.slots, self.dropped, self.patch = dict(shapes), slots, dropped, patch
        self.only_mean = only_mean
        self.names = tuple(shapes)
        self.width = width
        self.time = TimeEmbedding(width)
        self.read_code = nn.Linear(size, width)
        self.slot = nn.Parameter(0.02 * torch.randn(slots, width))
        self.nothing = nn.Parameter(0.02 * torch.randn(slots, width))
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(width, width))
        self.transformer = Transformer(width, depth, heads)
        self.source = nn.ParameterDict({f"of_{name}": 0.02 * torch.randn(width) for name in shapes})
        self.into, self.out = nn.ModuleDict(), nn.ModuleDict()
        for name, (channels, height, across) in self.shapes.items():
            self.into[f"of_{name}"] = nn.Linear(channels * patch**2, width)
            self.out[f"of_{name}"] = nn.Linear(width, channels * patch**2)
            positions = grid_positions(math.ceil(height / patch), math.ceil(across / patch), width)
            self.register_buffer(f"position_of_{name}", positions, persistent=False)

    def velocity(
        self,
        runs: Runs,
        code: Float[Tensor, "rows slots size"],
        known: Bool[Tensor, " rows"] | None = None,
    ) -> Velocity:
        """The velocity field of flat latents given the shared code: a function of (state, time).

        Args:
            runs: (source, number of rows) in the order of the rows; their maps of latents have one shape.
            known: rows whose code counts; the others are drawn without any.
        """
        return self._field(runs, self._content(code, known))

    def guided(self, name: str, code: Float[Tensor, "rows slots size"], guidance: float) -> Velocity:
        """The field with what the code adds multiplied by `guidance`; 1 costs one evaluation, anything else two."""
        if guidance == 1.0:
            return self.velocity([(name, len(code))], code)
        known = torch.ones(len(code), dtype=torch.bool, device=code.device)
        field = self.velocity([(name, 2 * len(code))], torch.cat([code, code]), torch.cat([known, ~known]))

        def both(state: Tensor, time: Tensor) -> Tensor:
            conditional, unconditional = field(torch.cat([state, state]), torch.cat([time, time])).chunk(2)
            return guided_velocity(conditional, unconditional, guidance)

        return both

    def mean(self, name: str, code: Float[Tensor, "rows slots size"]) -> Float[Tensor, "rows latents"]:
        """E[h | w] in one evaluation, at t = 0, where the state says nothing of the latents."""
        state = code.new_zeros(len(code), math.prod(self.shapes[name]))
        return self.velocity([(name, len(code))], code)(state, state.new_zeros(len(code)))

    def loss(
        self,
        latents: Mapping[str, Tensor],
        code: Mapping[str, Tensor],
        known: Mapping[str, Tensor],
        generator: Generator | None,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the velocity over rows; the code is dropped from some rows, for guidance.

        Args:
            latents, code, known: by source, of the rows in which it is drawn: (rows, latents), (rows, slots, size), and
                (rows,) whether there is a code at all.
        """
        groups: dict[Shape, list[str]] = {}
        for name in latents:
            groups.setdefault(self.shapes[name], []).append(name)
        total = 0.0
        for names in groups.values():
            data, content, has_code = (torch.cat([part[name] for name in names]) for part in (latents, code, known))
            dropped = torch.rand(len(data), generator=generator, device=data.device) < self.dropped
            points = path_points(data, 1.0, generator, 1.0 if self.only_mean else MEAN_SHARE)
            runs = [(name, len(latents[name])) for name in names]
            guess = self.velocity(runs, content, has_code & ~dropped)(points.state, points.time)
            total = total + (guess - points.velocity).square().mean(dim=1).sum()
        assert isinstance(total, Tensor)
        return total / sum(len(part) for part in latents.values())

    def _content(self, code: Tensor, known: Tensor | None) -> Float[Tensor, "rows slots width"]:
        content = self.read_code(code)
        if known is not None:
            content = torch.where(known[:, None, None], content, self.nothing.to(content.dtype))
        return content + self.slot

    def _field(self, runs: Runs, content: Tensor) -> Velocity:
        shape = self.shapes[runs[0][0]]
        lengths = [length for _, length in runs]
        sources = torch.cat([self.source[f"of_{name}"].expand(length, -1) for name, length in runs])
        about = content.mean(dim=1) + sources
        positions = self.get_buffer(f"position_of_{runs[0][0]}")

        def field(state: Tensor, time: Tensor) -> Tensor:
            cells = self._tokens(state, shape).split(lengths)
            tokens = torch.cat([self.into[f"of_{name}"](part) for (name, _), part in zip(runs, cells, strict=True)])
            tokens = tokens + positions.to(tokens.dtype)
            if self.slots > 1:
                tokens = torch.cat([tokens, content.to(tokens.dtype)], dim=1)
            refined = self.transformer(tokens, self.condition(about + self.time(time)))
            refined = F.layer_norm(refined[:, : len(positions)], (self.width,)).split(lengths)
            outputs = [self.out[f"of_{name}"](part) for (name, _), part in zip(runs, refined, strict=True)]
            return self._cells(torch.cat(outputs).float(), shape)

        return field

    def _tokens(self, state: Float[Tensor, "rows latents"], shape: Shape) -> Float[Tensor, "rows tokens numbers"]:
        """Flat latents as one token for each square of cells, with zeros beyond the map's border."""
        _, height, across = shape
        maps = F.pad(state.unflatten(1, shape), (0, -across % self.patch, 0, -height % self.patch))
        return F.pixel_unshuffle(maps, self.patch).flatten(2).transpose(1, 2)

    def _cells(self, tokens: Float[Tensor, "rows tokens numbers"], shape: Shape) -> Float[Tensor, "rows latents"]:
        """The inverse of `_tokens`."""
        _, height, across = shape
        grid = (math.ceil(height / self.patch), math.ceil(across / self.patch))
        maps = F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, grid), self.patch)
        return maps[..., :height, :across].flatten(1)
