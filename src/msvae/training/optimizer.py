"""The optimiser of all methods: Muon for the weights that are matrices, AdamW for all others."""
# pyright: reportPrivateImportUsage=false
# PyTorch's operations on lists of tensors (`_foreach_..`) have no public names.

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
OBLONG = 1.5  # sides from which on multiplying the factors first is less work
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
        in_bf16: whether matrices are orthogonalised in bfloat16, which suffices.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        in_bf16: bool = False,
    ) -> None:
        self.in_bf16 = in_bf16
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
        alike: dict[tuple[int, int], list[Tensor]] = {}
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
                state["step"] = torch.zeros(())  # AdamW's loading asks it of every weight
            alike.setdefault((len(weight), weight[0].numel()), []).append(weight)
        for (high, wide), weights in alike.items():
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            momenta = [self.state[weight]["momentum"] for weight in weights]
            torch._foreach_mul_(momenta, MOMENTUM)
            torch._foreach_add_(momenta, gradients)
            looked_ahead = torch._foreach_add(gradients, momenta, alpha=MOMENTUM)
            ahead = torch.stack([momentum.flatten(1) for momentum in looked_ahead])
            learning = torch.stack(torch._foreach_norm(gradients, math.inf)) != 0  # no gradient, no step
            updates = orthogonal(ahead.mul_(learning[:, None, None]), self.in_bf16)
            pace = group["lr"] * SCALE * max(high, wide) ** 0.5
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            shaped = [update.view_as(weight) for update, weight in zip(updates, weights, strict=True)]
            torch._foreach_add_(weights, shaped, alpha=-pace)


def orthogonal(matrices: Tensor, in_bf16: bool = False) -> Tensor:
    """About U V^T of each matrix U S V^T, (count, high, wide): singular values near 1, the smallest ones below.

    A Newton-Schulz iteration of fifth order, X <- q(X X^T) X with q(G) = a + b G + c G^2. In fp32, where one side is
    longer than the other, the factors are multiplied first: all are functions of the first G, so that only the short
    side counts. bf16 is not exact enough for that: G loses its smallest eigenvalues.
    """
    turned = matrices.shape[1] > matrices.shape[2]
    start = matrices.mT if turned else matrices
    start = start / start.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    if in_bf16:
        found = _iterated(start.bfloat16())
    elif start.shape[2] >= OBLONG * start.shape[1]:
        found = _factor(start @ start.mT) @ start
    else:
        found = _iterated(start)
    return (found.mT if turned else found).to(matrices.dtype)


def _iterated(matrices: Tensor) -> Tensor:
    first, third, fifth = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = matrices @ matrices.mT
        matrices = torch.baddbmm(
            matrices, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), matrices, beta=first
        )
    return matrices


def _factor(gram: Tensor) -> Tensor:
    """What `_iterated` multiplies a matrix of this G = X X^T by: q(G_5) .. q(G_1), with G <- q(G) G q(G)."""
    first, third, fifth = NEWTON_SCHULZ
    product = None
    for last in [False] * (ITERATIONS - 1) + [True]:
        factor = torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth)
        factor.diagonal(dim1=1, dim2=2).add_(first)
        product = factor if product is None else factor @ product
        gram = gram if last else factor @ gram @ factor
    assert product is not None
    return product


def optimizer_of(
    model: nn.Module,
    kind: str,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    precision: str = "fp32",
) -> torch.optim.Optimizer:
    """The optimiser of a model's parameters.

    Args:
        kind: `muon`: weights of convolutions, and of linear maps that are not large, by Muon; `adamw`: none.
        precision: of the training, such as `bf16`.
    """
    chosen = {id(weight) for weight in _matrices(model)} if kind == "muon" else set()
    matrices = [parameter for parameter in model.parameters() if id(parameter) in chosen]
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return Muon(matrices, others, lr, betas, weight_decay, in_bf16=precision != "fp32")


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
