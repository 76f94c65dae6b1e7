"""What stops a run: losses and gradients that are not finite."""

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from msvae.config import TrainingConfig
from msvae.errors import NonFiniteError
from msvae.models.base import Loss
from msvae.training.checkpoint import RunFolder
from msvae.training.state import non_finite_text

SMALLEST_LOSS_SCALE = 1e-6


def refuse_non_finite_losses(losses: Sequence[Loss], step: int, run: RunFolder) -> None:
    bad = next((loss for loss in losses if not bool(torch.isfinite(loss.total))), None)
    if bad is None:
        return
    guilty = [name for name, value in bad.terms.items() if not bool(torch.isfinite(value))]
    sources = [name.split("/", 1)[1] for name in guilty if "/" in name]
    what = f"the loss of source {', '.join(map(repr, sources))}" if sources else "the loss"
    if guilty and not sources:
        what += f" ({', '.join(guilty)})"
    raise NonFiniteError(non_finite_text(what, step, run))


def refuse_non_finite_gradients(
    parameters: Mapping[str, Tensor], config: TrainingConfig, accelerator: Accelerator, step: int, run: RunFolder
) -> None:
    if accelerator.scaler is not None:
        if config.gradient_clip is not None:
            accelerator.clip_grad_norm_(parameters.values(), config.gradient_clip)
        if accelerator.scaler.get_scale() < SMALLEST_LOSS_SCALE:
            raise NonFiniteError(non_finite_text("every gradient, at any loss scale,", step, run))
        return  # the scaler skips single such steps by itself
    named = [(name, p.grad) for name, p in parameters.items() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([gradient for _, gradient in named])
    if not bool(torch.isfinite(norm)):
        norms = [(name, torch.linalg.vector_norm(gradient)) for name, gradient in named]  # one may be too large itself
        name = next((name for name, value in norms if not bool(torch.isfinite(value))), "all weights together")
        raise NonFiniteError(non_finite_text(f"the gradient of {name}", step, run))
    if config.gradient_clip is not None and float(norm) > config.gradient_clip:
        torch.nn.utils.clip_grads_with_norm_(parameters.values(), config.gradient_clip, norm)
