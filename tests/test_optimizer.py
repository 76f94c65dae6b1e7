"""Muon: against the singular value decomposition, against PyTorch's own, and against AdamW for all other weights."""

import pytest
import torch
from torch import nn

from msvae.training import optimizer as module
from msvae.training.optimizer import Muon, optimizer_of, orthogonal


@pytest.mark.parametrize("shape", [(3, 20, 70), (2, 70, 20), (1, 32, 32)])
def test_orthogonalisation_keeps_the_directions_and_evens_out_their_sizes(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    rotated = left.mT @ orthogonal(matrices) @ right.mT
    sizes = rotated.diagonal(dim1=1, dim2=2)
    assert float(sizes.min()) > 0.3
    assert float(sizes.max()) < 1.3
    assert float((rotated - torch.diag_embed(sizes)).abs().max()) < 0.05


@pytest.mark.parametrize("shape", [(3, 20, 70), (2, 32, 33), (1, 5, 400)])
def test_factors_multiplied_first_make_the_same_matrices(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(module._factor(matrices @ matrices.mT) @ matrices, module._iterated(matrices))


def test_steps_are_those_of_pytorchs_muon() -> None:
    start = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    rate = 0.01
    mine = Muon([ours], [], rate, (0.9, 0.99), 0.1)
    known = torch.optim.Muon(
        [theirs], rate * module.SCALE / 0.2, 0.1 * 0.2 / module.SCALE, 0.95, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(3):
        gradient = torch.randn(24, 40, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        known.step()
    torch.testing.assert_close(
        ours.detach(), theirs.detach(), atol=0.05 * float((ours - start).detach().abs().max()), rtol=0
    )
    assert not torch.equal(ours, start)


def test_other_weights_take_adamws_steps() -> None:
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([], [ours], 0.01, (0.9, 0.99), 0.1)
    known = torch.optim.AdamW([theirs], 0.01, (0.9, 0.99), weight_decay=0.1)
    for seed in range(3):
        ours.grad = torch.randn(5, generator=torch.Generator().manual_seed(seed))
        theirs.grad = ours.grad.clone()
        mine.step()
        known.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


def test_which_weights_are_matrices() -> None:
    model = nn.ModuleDict(
        {
            "convolution": nn.Conv2d(8, 32, 3),
            "up": nn.ConvTranspose2d(32, 16, 4),
            "grouped": nn.Conv2d(32, 32, 3, groups=32),
            "to_pixels": nn.Conv2d(32, 3, 3),
            "linear": nn.Linear(64, 32),
            "large": nn.Linear(512, 512),
            "embedding": nn.Embedding(32, 32),
            "norm": nn.LayerNorm(32),
        }
    )
    found = optimizer_of(model, "muon", 1e-3, (0.9, 0.99), 0.0)
    name_of = {id(value): name for name, value in model.named_parameters()}
    assert [name_of[id(p)] for p in found.param_groups[0]["params"]] == [
        "convolution.weight",
        "up.weight",
        "linear.weight",
    ]
    assert sum(len(group["params"]) for group in found.param_groups) == len(name_of)
    plain = optimizer_of(model, "adamw", 1e-3, (0.9, 0.99), 0.0)
    assert not plain.param_groups[0]["params"]


@pytest.mark.parametrize("gradient", [None, torch.zeros(20, 20)])
def test_weights_without_a_gradient_stay(gradient: torch.Tensor | None) -> None:
    weight = nn.Parameter(torch.randn(20, 20))
    optimizer = Muon([weight], [], 0.1, (0.9, 0.99), 0.0)
    weight.grad = torch.randn(20, 20)
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = gradient
    optimizer.step()
    assert torch.equal(weight.detach(), before)


def test_weights_of_one_shape_and_any_layout_are_moved_alike() -> None:
    """A channels-last weight beside a plain one of its shape: as each alone."""
    start, gradient = torch.randn(2, 2, 16, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    together = [nn.Parameter(start[0].contiguous(memory_format=torch.channels_last)), nn.Parameter(start[1].clone())]
    alone = [nn.Parameter(part.clone()) for part in start]
    for weights in (together, alone):
        for weight, its in zip(weights, gradient, strict=True):
            weight.grad = its.clone()
    Muon(together, [], 0.01, (0.9, 0.99), 0.0).step()
    for weight in alone:
        Muon([weight], [], 0.01, (0.9, 0.99), 0.0).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), atol=1e-3, rtol=0)


def test_matrices_of_one_size_need_not_have_one_shape() -> None:
    gradient = torch.randn(16, 48, generator=torch.Generator().manual_seed(0))
    shapes = [(16, 48), (16, 48, 1, 1), (16, 12, 2, 2)]
    weights = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for weight in weights:
        weight.grad = gradient.view_as(weight).clone()
    Muon(weights, [], 0.01, (0.9, 0.99), 0.0).step()
    first, *others = (weight.detach().flatten(1) for weight in weights)
    assert float(first.abs().min()) > 0
    for other in others:
        torch.testing.assert_close(other, first)
