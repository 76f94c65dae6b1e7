"""What an objective is: a training loss made of a model's parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from msvae.config import ModelConfig
from msvae.posterior import Evidence
from msvae.source import SourceBatch

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


@dataclass(frozen=True)
class Loss:
    """A training loss in nats per row (a scalar), and the terms it is made of (detached scalars, for display)."""

    total: Tensor
    terms: dict[str, Tensor]


def mean_loss(parts: Sequence[tuple[int, Loss]]) -> Loss:
    """Of all rows, detached, from (rows, their mean loss) of each part."""
    total = mean_terms([(rows, {"total": loss.total.detach()}) for rows, loss in parts])["total"]
    return Loss(total, mean_terms([(rows, loss.terms) for rows, loss in parts]))


def mean_terms(parts: Sequence[tuple[int, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Means of the terms by rows, each over the parts that have it."""
    means = {}
    for name in dict.fromkeys(name for _, terms in parts for name in terms):
        known = [(rows, terms[name]) for rows, terms in parts if name in terms]
        means[name] = torch.stack([rows * value for rows, value in known]).sum() / sum(rows for rows, _ in known)
    return means


class Objective(nn.Module):
    """The contract. Every objective is a mean per row in nats, so learning rates carry over between them.

    In all of them lam_m is the likelihood scale of source m (`model.scales`), A the sources that a row has, and a
    source that a row lacks is neither encoded, nor decoded, nor counted: the loss is that of a model without it.
    """

    options: ClassVar[frozenset[str]] = frozenset()  # the model settings that act on it, beside the common ones
    needs_complete_rows: ClassVar[bool] = False
    needs_one_code: ClassVar[bool] = False  # whether it compares sources' codes with a fused one of the same length
    reads_prior: ClassVar[bool] = True  # or has N(0, I) in its own formula

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__()
        self.beta = config.beta
        self.source_count = source_count

    @property
    def crosses_private(self) -> bool:
        """Whether sources are drawn with private codes that are not their own."""
        return False

    def copies(self) -> int:
        """Codes of a row that one source is decoded from in a step: what memory has to hold."""
        return 1

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        """The loss of a checked batch whose rows may lack any sources, given what the encoders say of it."""
        raise NotImplementedError


def weighted(model: JointVAE, scores: Float[Tensor, "*copies sources rows"]) -> Float[Tensor, "*copies rows"]:
    """sum_m lam_m log p(x_m | ..) for each row."""
    return (model.scales[:, None] * scores).sum(dim=-2)


def singles(present: Bool[Tensor, "sources rows"]) -> Bool[Tensor, "sources sources rows"]:
    """Every source as a subset of its own, empty in the rows that lack it."""
    return torch.eye(len(present), dtype=torch.bool, device=present.device)[:, :, None] & present


def drawn_from(
    model: JointVAE,
    evidence: Evidence,
    batch: SourceBatch,
    subsets: Bool[Tensor, "copies sources rows"],
    wanted: Bool[Tensor, "copies sources rows"],
    generator: Generator | None,
) -> tuple[Float[Tensor, "copies sources rows"], Float[Tensor, "copies rows"]]:
    """Scores of the wanted sources, drawn from a code of each subset, and the KL of that code and the private ones.

    Private codes are their source's own where it is in the subset, else its guard's. Where nothing is wanted, both
    answers are 0.
    """
    posterior = model.fusion(evidence.shared.stacked(subsets))
    codes = posterior.sample(generator)
    private = model.private_codes(evidence, subsets, generator)
    scores = model.log_likelihoods(codes.unflatten(0, (len(subsets), -1)), private, batch, wanted)
    kl = model.prior.kl(posterior, codes).unflatten(0, (len(subsets), -1))
    return scores, (kl + model.private_kl(evidence, subsets, wanted)) * wanted.any(dim=1)


def drawn_alone(
    model: JointVAE, evidence: Evidence, generator: Generator | None
) -> tuple[Float[Tensor, "sources rows latent"], Float[Tensor, "sources rows"]]:
    """A code of each row from q(z | x_m) of every source alone, as it answers questions, and the KL to the model's
    prior, which is 0 in rows that lack it."""
    present = evidence.present
    posterior = model.fusion(evidence.shared.stacked(singles(present)))
    codes = posterior.sample(generator)
    kl = model.prior.kl(posterior, codes).unflatten(0, (len(present), -1))
    return codes.unflatten(0, (len(present), -1)), kl * present


def summary(
    model: JointVAE,
    total: Float[Tensor, " rows"],
    scores: Float[Tensor, "sources rows"],
    present: Bool[Tensor, "sources rows"],
    **terms: Tensor,
) -> Loss:
    """The mean loss of the rows, with each source's reconstruction in nats per image and further mean terms."""
    counts = present.sum(dim=1)
    means = -(scores.detach() * present).sum(dim=1) / counts.clamp_min(1)
    known = zip(model.source_names, means, counts.tolist(), strict=True)
    shown = {f"reconstruction/{name}": mean for name, mean, count in known if count}
    return Loss(total.mean(), {**shown, **{name: value.detach().mean() for name, value in terms.items()}})
