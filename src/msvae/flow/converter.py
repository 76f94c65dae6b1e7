"""Stage C, first flow: the shared code, given any sources or none, by a Transformer over source tokens."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from msvae.flow.coded import CodeEvidence
from msvae.flow.guidance import composed_velocity, guided_velocity
from msvae.flow.path import path_points
from msvae.flow.sampler import Velocity, sample
from msvae.networks.precision import without_gradient
from msvae.networks.transformer import TimeEmbedding, Transformer, hidden_where
from msvae.subsets import subset_of_any_size

SELF_DRAWN_STEPS = 4
LOGIT_SCALE = 5.0


class Converter(nn.Module):
    """v(w_t, t; x_S): tokens of the given sources enter clean, absent ones are hidden from all others exactly.

    A learned register stands beside them, so that the empty set is a set like any other.

    Args:
        names: the sources.
        slots, size: tokens of the shared code and their numbers.
        width, depth, heads: of the Transformer.
    """

    def __init__(self, names: Sequence[str], slots: int, size: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.slots, self.size = slots, size
        self.names = tuple(names)
        self.time = TimeEmbedding(width)
        self.read_state = nn.Linear(size, width)
        self.read_evidence = nn.Linear(size + 1, width)
        self.register = nn.Parameter(0.02 * torch.randn(width))
        self.slot = nn.Parameter(0.02 * torch.randn(slots, width))
        self.source = nn.ParameterDict({f"of_{name}": 0.02 * torch.randn(width) for name in names})
        self.transformer = Transformer(width, depth, heads)
        self.head = nn.Linear(width, size)

    def velocity(self, evidence: CodeEvidence, log_weights: Float[Tensor, "sources rows"] | None = None) -> Velocity:
        """The velocity field given the evidence: a function of (state, time).

        Args:
            log_weights: added to the attention logits of a source's tokens: log a_m weighs its evidence, -inf hides it.
        """
        present = evidence.present if log_weights is None else evidence.present & ~torch.isneginf(log_weights)
        used = present.any(dim=1)  # sources that no row has, or has at weight 0, cost nothing
        evidence = CodeEvidence(evidence.tokens[used], evidence.logits[used], present[used])
        hidden = hidden_where(~evidence.present.T)
        if log_weights is not None:
            hidden = hidden + log_weights[used].T
        given = torch.cat([evidence.tokens, torch.tanh(evidence.logits[..., None] / LOGIT_SCALE)], dim=-1)
        names = torch.stack([self.source[f"of_{name}"] for name in self.names])[used]
        tokens = self.read_evidence(given) + names[:, None, None] + self.slot  # (sources, rows, slots, width)
        tokens = tokens.transpose(0, 1).flatten(1, 2)
        rows = len(hidden)
        register = self.register.expand(rows, 1, -1)
        always = torch.zeros(rows, self.slots + 1, device=hidden.device)
        keys = torch.cat([always, hidden.repeat_interleave(self.slots, dim=1)], dim=1)

        def field(state: Tensor, time: Tensor) -> Tensor:
            noised = self.read_state(state) + self.slot
            everything = torch.cat([noised.to(tokens.dtype), register.to(tokens.dtype), tokens], dim=1)
            refined = self.transformer(everything, self.time(time), keys)[:, : self.slots]
            return self.head(torch.nn.functional.layer_norm(refined, refined.shape[-1:])).float()

        return field

    def guided(
        self, evidence: CodeEvidence, guidance: float, log_weights: Float[Tensor, "sources rows"] | None = None
    ) -> Velocity:
        """The field with what the evidence adds multiplied by `guidance`; 1 costs one evaluation, anything else two."""
        given = self.velocity(evidence, log_weights)
        if guidance == 1.0:
            return given
        free = self.velocity(evidence.restricted(torch.zeros_like(evidence.present)))

        def both(state: Tensor, time: Tensor) -> Tensor:
            return guided_velocity(given(state, time), free(state, time), guidance)

        return both

    def loss(
        self,
        evidence: CodeEvidence,
        code: Float[Tensor, "rows slots size"],
        generator: Generator | None,
        self_drawn: bool = False,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the velocity, for a subset of each row's sources of uniform size 0..|A|.

        Args:
            code: of all sources that a row has.
            self_drawn: rows that lack sources learn codes drawn by the model itself given all they have, in 4 Euler
                steps, in place of the code that their few sources pool to (subset self-distillation).
        """
        present = evidence.present
        partial = ~present.all(dim=0)
        if self_drawn and bool(partial.any()):
            rows = partial.nonzero().squeeze(1)
            start = torch.randn(code[rows].shape, generator=generator, device=code.device)
            with without_gradient():
                drawn = sample(self.velocity(evidence.rows(rows)), start, SELF_DRAWN_STEPS)
            code = code.index_copy(0, rows, drawn.to(code.dtype))
        subset = subset_of_any_size(present, generator)
        points = path_points(code, 1.2, generator)
        guess = self.velocity(evidence.restricted(subset))(points.state, points.time)
        return (guess - points.velocity).square().mean()

    def composed(self, evidence: CodeEvidence, weights: Float[Tensor, "sources rows"]) -> Velocity:
        """v_0 + sum_m a_m (v_m - v_0): the flows given each source alone, by weights; one pass over all of them."""
        count, rows = evidence.present.shape
        alone = torch.eye(count, dtype=torch.bool, device=weights.device)
        alone = torch.cat([alone, alone.new_zeros(1, count)])  # the last one is given nothing
        subset = alone.T.repeat_interleave(rows, dim=1)  # (sources, conditions x rows)
        many = CodeEvidence(
            evidence.tokens.repeat(1, count + 1, 1, 1),
            evidence.logits.repeat(1, count + 1, 1),
            evidence.present.repeat(1, count + 1) & subset,
        )
        field = self.velocity(many)

        def composition(state: Tensor, time: Tensor) -> Tensor:
            velocities = field(state.repeat(count + 1, 1, 1), time.repeat(count + 1)).unflatten(0, (count + 1, rows))
            return composed_velocity(velocities[:-1], velocities[-1], weights)

        return composition


def log_of(weights: Float[Tensor, "sources rows"]) -> Float[Tensor, "sources rows"]:
    """Log-weights; -inf for 0."""
    return torch.where(weights > 0, weights.clamp_min(torch.finfo(weights.dtype).tiny).log(), -math.inf)
