"""Do two sources show the same thing at the same places?"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SIDE, NEIGHBOURHOOD = 28, 3
RIDGE = 1e-2
LEAST_VARIANCE = 1e-9


def local_fit(
    first: Float[Tensor, "rows channels height width"], second: Float[Tensor, "rows others height width"]
) -> float:
    """Share of the second source's variance that a local filter of the first explains, on the second half of the rows.

    Each pixel of the second, less its mean over the rows, is fitted from the 3 x 3 pixels of the first around the same
    place, and from their absolute values, by ridge regression over the first half of the rows; images are averaged down
    to 28 pixels a side first. About 0 where only something such as the class of a row is shared (a little more where
    all of a class are alike), up to 1 where one source is a filtered version of the other; below 0 where the fit does
    not carry over.
    """
    half = len(first) // 2
    given, wanted = (_small(images) for images in (first, second))
    given = given - given[:half].mean(dim=0)
    inputs = _neighbourhoods(given / given[:half].std().clamp_min(torch.finfo(torch.float32).eps))
    targets = (wanted - wanted[:half].mean(dim=0)).flatten(2).transpose(1, 2).double()
    design, known = inputs[:half].flatten(0, 1), targets[:half].flatten(0, 1)
    gram = design.T @ design
    gram.diagonal()[:-1].add_(RIDGE * len(design))  # not to the 1 at the end
    left = targets[half:] - inputs[half:] @ torch.linalg.solve(gram, design.T @ known)
    variance = float(targets[half:].square().mean())
    return 1.0 - float(left.square().mean()) / variance if variance > LEAST_VARIANCE else 0.0


def _small(images: Float[Tensor, "rows channels height width"]) -> Float[Tensor, "rows channels high wide"]:
    return F.adaptive_avg_pool2d(images, (min(SIDE, images.shape[2]), min(SIDE, images.shape[3])))


def _neighbourhoods(maps: Float[Tensor, "rows channels high wide"]) -> Float[Tensor, "rows places numbers"]:
    """Each place's neighbours and their absolute values, with a 1 beside them."""
    both = torch.cat([maps, maps.abs()], dim=1)
    found = F.unfold(both, NEIGHBOURHOOD, padding=NEIGHBOURHOOD // 2).transpose(1, 2).double()
    return F.pad(found, (0, 1), value=1.0)
