"""The optimiser of all methods: Muon for the weights that are matrices, AdamW for all others."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from msvae.networks.precision import native_bf16

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SCALE = 1.6  # root mean square of an update, in units of the learning rate; AdamW's is about 0.2
SMALLEST_SIDE, LARGEST_SIDE = 16, 256
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Muon(torch.optim.AdamW):
    """AdamW whose first group of parameters is moved by orthogonalised momentum instead.

    The momentum of a weight, as a matrix of its first dimension by all others, is replaced by about the nearest matrix
    of equal singular values, so that all directions of a layer learn at one pace (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon). Its size is a multiple of the learning rate for matrices of all shapes (Liu et
    al. 2025, arXiv 2502.16982), so that one rate serves both groups.

    Args:
        matrices, others: parameters of two dimensions or more, and all others.
        lr, weight_decay: of both.
        betas: of AdamW.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        groups = [{"params": list(matrices)}, {"params": list(others)}]
        super().__init__(groups, lr, betas, weight_decay=weight_decay, fused=True)
        self._step_supports_amp_scaling = False  # a gradient scaler unscales before `step`: the matrices do not

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step of both groups."""
        groups = self.param_groups
        self.param_groups = groups[1:]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        self._step_matrices(groups[0])
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
                state["step"] = torch.zeros(())  # AdamW's loading asks it of every weight
            state["step"] += 1
            momentum = state["momentum"].mul_(MOMENTUM).add_(weight.grad)
            ahead = weight.grad.add(momentum, alpha=MOMENTUM).flatten(1) * weight.grad.any()  # no gradient, no step
            alike.setdefault((ahead.shape[0], ahead.shape[1]), []).append((weight, ahead))
        for (high, wide), pairs in alike.items():
            updates = orthogonal(torch.stack([ahead for _, ahead in pairs]))
            pace = group["lr"] * SCALE * max(high, wide) ** 0.5
            for (weight, _), update in zip(pairs, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view(weight.shape), alpha=-pace)


def orthogonal(matrices: Tensor) -> Tensor:
    """About U V^T of each matrix U S V^T, (count, high, wide): singular values near 1, the smallest ones below.

    A Newton-Schulz iteration of fifth order, in bf16 where that is native.
    """
    turned = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if turned else matrices
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    if native_bf16(found.device):
        found = found.bfloat16()
    first, third, fifth = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), found, beta=first)
    return (found.mT if turned else found).to(matrices.dtype)


def optimizer_of(
    model: nn.Module, kind: str, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """The optimiser of a model's parameters.

    Args:
        kind: `muon`: weights of convolutions, and of linear maps that are not large, by Muon; `adamw`: none.
    """
    chosen = {id(weight) for weight in _matrices(model)} if kind == "muon" else set()
    matrices = [parameter for parameter in model.parameters() if id(parameter) in chosen]
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return Muon(matrices, others, lr, betas, weight_decay)


def _matrices(model: nn.Module) -> Iterator[Tensor]:
    """What is worth orthogonalising: a convolution does far more work than that takes; a large linear map less.

    The groups of a grouped convolution have nothing to do with each other.
    """
    for module in model.modules():
        if not isinstance(module, (nn.Linear, *CONVOLUTIONS)) or getattr(module, "groups", 1) > 1:
            continue
        side = min(module.weight.shape[0], module.weight[0].numel())
        if side >= SMALLEST_SIDE and (side <= LARGEST_SIDE or not isinstance(module, nn.Linear)):
            yield module.weight
