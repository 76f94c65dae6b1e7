"""Networks that are asked without a gradient answer in parts: their maps, many times as large as what goes in and comes
out, then take memory that does not grow with the number of rows."""

from collections.abc import Callable

import torch
from torch import Tensor

VALUES_AT_ONCE, ON_ACCELERATORS = 2_000_000, 16  # of images; so many times as many, which have more to share out


def in_parts(ask: Callable[..., Tensor], values: int, *inputs: Tensor) -> Tensor:
    """What a network that treats rows one by one answers.

    Args:
        ask: the network, which is in evaluation mode.
        values: of one row's image.
        inputs: (rows, ..) each.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():  # all maps are kept, or the number of rows is open
        return ask(*inputs)
    at_once = VALUES_AT_ONCE * (1 if inputs[0].device.type == "cpu" else ON_ACCELERATORS)
    rows = max(1, at_once // values)
    if inputs[0].shape[0] <= rows:
        return ask(*inputs)
    return torch.cat([ask(*part) for part in zip(*(tensor.split(rows) for tensor in inputs), strict=True)])
