"""Stage C, second flow: the latents of any source, given the shared code; its noise is the source's private part."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from msvae.flow.fields import GridField, Runs, Shape, VectorField
from msvae.flow.guidance import guided_velocity
from msvae.flow.path import MEAN_SHARE, path_points
from msvae.flow.sampler import Velocity
from msvae.networks.transformer import TimeEmbedding

SPREAD = 0.3  # of the embeddings of sources and of no code, as large as a code's


class Renderer(nn.Module):
    """v(h_t, t; w, source): one network for all sources, modulated by the shared code, the time and the source.

    Args:
        shapes: `{source: (channels, height, width)}` of the latents.
        slots, size: tokens of the shared code and their numbers.
        field: the network: `VectorField` or `GridField`.
        width: of the network.
        dropped: share of rows that are trained on without their code.
        only_mean: learn the conditional mean alone: a plain decoder of the code, to compare with.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        slots: int,
        size: int,
        field: VectorField | GridField,
        width: int,
        dropped: float,
        only_mean: bool = False,
    ) -> None:
        super().__init__()
        self.shapes, self.dropped, self.only_mean = dict(shapes), dropped, only_mean
        self.field = field
        self.time = TimeEmbedding(width)
        self.read_code = nn.Linear(size, width)
        self.slot = nn.Parameter(0.02 * torch.randn(slots, width))
        self.nothing = nn.Parameter(SPREAD * torch.randn(slots, width))
        self.condition = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.source = nn.ParameterDict({f"of_{name}": SPREAD * torch.randn(width) for name in shapes})

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

    def guided(
        self, name: str, code: Float[Tensor, "rows slots size"], guidance: float, begins: float = 0.0
    ) -> Velocity:
        """The field with what the code adds multiplied by `guidance`, for one solution step by step, from t = 0 on.

        There the state is noise, which says nothing of the data: without a code the field is the mean of all rows less
        the state. What the code adds changes slowly along the path: every second step takes it from the one before. So
        four steps are five evaluations, and four with guidance 1.

        Args:
            begins: time of the path before which nothing is guided: while there is little but noise, guidance costs
                variety and gains least (Kynkäänniemi et al. 2024, arXiv 2404.07724).
        """
        given = self.velocity([(name, len(code))], code)
        if guidance == 1.0:
            return given
        known = torch.ones(len(code), dtype=torch.bool, device=code.device)
        both = self.velocity([(name, 2 * len(code))], torch.cat([code, code]), torch.cat([known, ~known]))
        begun, added = False, None

        def field(state: Tensor, time: Tensor) -> Tensor:
            nonlocal begun, added
            first, begun = not begun, True
            if begins > 0.0 and bool((time < begins).all()):
                return given(state, time)
            if added is not None:
                conditional, known_addition = given(state, time), added
                added = None
                return conditional + (guidance - 1) * known_addition
            if first:
                conditional, unconditional = given(state, time), self.mean(name, code[:1], ~known[:1]) - state
            else:
                conditional, unconditional = both(torch.cat([state, state]), torch.cat([time, time])).chunk(2)
            added = conditional - unconditional
            return guided_velocity(conditional, unconditional, guidance)

        return field

    def mean(
        self, name: str, code: Float[Tensor, "rows slots size"], known: Bool[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows latents"]:
        """E[h | w], and E[h] where no code counts, in one evaluation at t = 0, where the state says nothing of them."""
        rows = code.shape[0]  # not `len`, which an exported program would keep
        state = code.new_zeros(rows, math.prod(self.shapes[name]))
        return self.velocity([(name, rows)], code, known)(state, state.new_zeros(rows))

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

    def _field(self, runs: Runs, content: Float[Tensor, "rows slots width"]) -> Velocity:
        sources = torch.cat([self.source[f"of_{name}"].expand(length, -1) for name, length in runs])
        about = content.mean(dim=1) + sources

        def field(state: Tensor, time: Tensor) -> Tensor:
            return self.field(runs, state, self.condition(about + self.time(time)), content)

        return field
