"""Cross-source contrast: the codes of one row's sources have to find each other among the batch (InfoNCE)."""

import torch
from jaxtyping import Float
from torch import Tensor

from msvae.posterior import Experts


def cross_source_contrast(experts: Experts, temperature: float) -> Float[Tensor, ""]:
    """Mean over ordered pairs of sources (i, j) of  -log exp(c_ij(b, b)/tau) / sum_b' exp(c_ij(b, b')/tau), in nats.

    c is the cosine of the expert means of source i in row b and source j in row b'; rows count where both sources are
    present, and candidates b' where j is. Lower than log(rows) where sources agree on what a row shows. Source: van den
    Oord et al. 2018, arXiv 1807.03748; between sources, IDMVAE.

    Returns:
        0 where no row has two sources.
    """
    directions = torch.nn.functional.normalize(experts.means, dim=2)
    with torch.autocast(directions.device.type, enabled=False):
        cosines = torch.einsum("ibd,jcd->ijbc", directions, directions) / temperature
    present = experts.present
    cosines = cosines.masked_fill(~present[None, :, None, :], -torch.inf)
    both = present[:, None] & present & ~torch.eye(len(present), dtype=torch.bool, device=present.device)[:, :, None]
    positive = cosines.diagonal(dim1=2, dim2=3)
    counted = torch.where(both, torch.logsumexp(cosines, dim=3) - positive, torch.zeros_like(positive))
    return counted.sum() / both.sum().clamp_min(1)
