"""A loss over many decoded images in bounded memory: row by row, each part's graph gone before the next is built.

An objective that decodes K M^2 images a row needs gigabytes of activations at once. Rows do not depend on each other
once they are encoded, so parts of the batch are scored one after the other, and their gradients summed on the spot.
It costs what one pass costs: nothing is computed twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msvae.objectives.base import Loss, mean_terms
from msvae.posterior import Evidence, Experts
from msvae.source import SourceBatch

FP16_SCALE = 1024.0
LossOfRows = Callable[[Evidence, SourceBatch], Loss]


def streamed_loss(
    loss_of_rows: LossOfRows,
    evidence: Evidence,
    batch: SourceBatch,
    parameters: Sequence[Tensor],
    rows_at_once: int,
) -> Loss:
    """The mean loss of all rows, computed `rows_at_once` at a time.

    Args:
        loss_of_rows: a mean over rows that does not depend on how they are grouped.
        evidence: what the encoders say, with their graph.
        parameters: everything else that the loss depends on and that learns.
    """
    tensors = _tensors(evidence)
    terms: list[tuple[int, dict[str, Tensor]]] = []

    def part(leaves: Sequence[Tensor], rows: Tensor) -> Tensor:
        loss = loss_of_rows(_evidence(leaves, evidence.present[:, rows]), batch.rows(rows))
        terms.append((len(rows), loss.terms))
        return loss.total * (len(rows) / len(batch))

    parts = torch.arange(len(batch), device=batch.device).split(rows_at_once)
    if torch.is_grad_enabled():
        total = _Streamed.apply(part, parts, len(tensors), *tensors, *parameters)
    else:
        total = torch.stack([part([tensor[:, rows] for tensor in tensors], rows) for rows in parts]).sum()
    assert isinstance(total, Tensor)
    return Loss(total, mean_terms(terms))


class _Streamed(torch.autograd.Function):
    """Sum of the parts; its gradients are known when it is computed, and are only scaled on the way back."""

    @staticmethod
    def forward(ctx: Any, part: Callable[..., Tensor], parts: Sequence[Tensor], by_row: int, *inputs: Tensor) -> Tensor:
        rows_of, parameters = inputs[:by_row], inputs[by_row:]
        gradients: list[Tensor | None] = [torch.zeros_like(tensor) for tensor in rows_of]
        gradients += [None] * len(parameters)
        total = torch.zeros((), device=inputs[0].device)
        scale = _scale(total.device.type)
        for rows in parts:
            with torch.enable_grad():
                leaves = [tensor[:, rows].detach().requires_grad_() for tensor in rows_of]
                value = part(leaves, rows)
                found = torch.autograd.grad(scale * value, [*leaves, *parameters], allow_unused=True)
            total += value.detach()
            for index, gradient in enumerate(found):
                if gradient is None:
                    continue
                gradient = gradient if scale == 1.0 else gradient / scale
                kept = gradients[index]
                if index < by_row:
                    assert kept is not None
                    kept[:, rows] = gradient
                else:
                    gradients[index] = gradient if kept is None else kept + gradient
        ctx.gradients = gradients
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        scaled = (None if gradient is None else gradient * upstream[0] for gradient in ctx.gradients)
        return None, None, None, *scaled


def _scale(device: str) -> float:
    """In fp16 small gradients would vanish: those in here are not yet scaled by what scales the loss outside."""
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return FP16_SCALE if half else 1.0


def _tensors(evidence: Evidence) -> list[Tensor]:
    shared, private = evidence.shared, evidence.private
    tokens = [] if shared.tokens is None else [shared.tokens]
    return [shared.means, shared.log_variances, private.means, private.log_variances, *tokens]


def _evidence(tensors: Sequence[Tensor], present: Tensor) -> Evidence:
    shared = Experts(tensors[0], tensors[1], present)
    if len(tensors) == 5:
        shared = replace(shared, tokens=tensors[4])
    return Evidence(shared, Experts(tensors[2], tensors[3], present))
