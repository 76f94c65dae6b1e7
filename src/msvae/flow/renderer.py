"""Stage C, second flow: the latents of any source, given the shared code; its noise is the source's private part."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from msvae.flow.guidance import guided_velocity
from msvae.flow.path import clean_prediction, noisy, path_times, path_velocity
from msvae.flow.sampler import Velocity
from msvae.networks.transformer import TimeEmbedding, Transformer, grid_positions

Shape = tuple[int, int, int]


class Renderer(nn.Module):
    """v(h_t, t; w, source): a Transformer over the cells of a source's map of latents, one network for all sources.

    Each source has its own embedding and its own linear maps in and out, so that a source can be added without
    touching the others. The shared code modulates every layer; where it has several slots, they are tokens as well.

    Args:
        shapes: `{source: (channels, height, width)}` of the latents.
        slots, size: tokens of the shared code and their numbers.
    """

    def __init__(
        self, shapes: Mapping[str, Shape], slots: int, size: int, width: int, depth: int, heads: int, dropped: float
    ) -> None:
        super().__init__()
        self.shapes, self.slots, self.dropped = dict(shapes), slots, dropped
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
            self.into[f"of_{name}"] = nn.Linear(channels, width)
            self.out[f"of_{name}"] = nn.Linear(width, channels)
            self.register_buffer(f"position_of_{name}", grid_positions(height, across, width), persistent=False)

    def velocity(
        self, name: str, code: Float[Tensor, "rows slots size"], known: Bool[Tensor, " rows"] | None = None
    ) -> Velocity:
        """The velocity field of a source's flat latents given the shared code: a function of (state, time).

        Args:
            known: rows whose code counts; the others are drawn without any.
        """
        return self._field(name, self._content(code, known))

    def guided(self, name: str, code: Float[Tensor, "rows slots size"], guidance: float) -> Velocity:
        """The field with what the code adds multiplied by `guidance`; 1 costs one evaluation, anything else two."""
        if guidance == 1.0:
            return self.velocity(name, code)
        known = torch.ones(len(code), dtype=torch.bool, device=code.device)
        field = self.velocity(name, torch.cat([code, code]), torch.cat([known, ~known]))

        def both(state: Tensor, time: Tensor) -> Tensor:
            conditional, unconditional = field(torch.cat([state, state]), torch.cat([time, time])).chunk(2)
            return guided_velocity(conditional, unconditional, guidance)

        return both

    def mean(self, name: str, code: Float[Tensor, "rows slots size"]) -> Float[Tensor, "rows latents"]:
        """E[h | w] in one evaluation, at t = 0, where the state says nothing of the latents."""
        state = code.new_zeros(len(code), math.prod(self.shapes[name]))
        time = state.new_zeros(len(code))
        return clean_prediction(state, self.velocity(name, code)(state, time), time)

    def loss(
        self,
        name: str,
        latents: Float[Tensor, "rows latents"],
        code: Float[Tensor, "rows slots size"],
        known: Bool[Tensor, " rows"],
        generator: Generator | None,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the velocity; the code is dropped from some rows, for guidance."""
        dropped = torch.rand(len(code), generator=generator, device=code.device) < self.dropped
        noise = torch.randn(latents.shape, generator=generator, device=code.device)
        time = path_times(len(code), 1.0, generator, code.device)
        guess = self.velocity(name, code, known & ~dropped)(noisy(latents, noise, time), time)
        return (guess - path_velocity(latents, noise)).square().mean()

    def _content(self, code: Tensor, known: Tensor | None) -> Float[Tensor, "rows slots width"]:
        content = self.read_code(code)
        if known is not None:
            content = torch.where(known[:, None, None], content, self.nothing.to(content.dtype))
        return content + self.slot

    def _field(self, name: str, content: Tensor) -> Velocity:
        channels, height, across = self.shapes[name]
        about = content.mean(dim=1) + self.source[f"of_{name}"]
        positions = self.get_buffer(f"position_of_{name}")

        def field(state: Tensor, time: Tensor) -> Tensor:
            cells = state.unflatten(1, (channels, height * across)).transpose(1, 2)
            tokens = self.into[f"of_{name}"](cells) + positions
            if self.slots > 1:
                tokens = torch.cat([tokens, content.to(tokens.dtype)], dim=1)
            refined = self.transformer(tokens.to(content.dtype), self.condition(about + self.time(time)))
            refined = F.layer_norm(refined[:, : height * across], (self.width,))
            return self.out[f"of_{name}"](refined).transpose(1, 2).flatten(1).float()

        return field
