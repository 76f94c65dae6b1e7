"""Rows as the stages hand them on: latents of each source, and what each source says of the shared code."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from msvae.source import SourceBatch


@dataclass(frozen=True)
class CodeEvidence:
    """What each source alone says of the shared code.

    Args:
        tokens: (sources, rows, slots, size) codes of each source alone; zero where it is absent.
        logits: (sources, rows, slots) how much a source's token counts beside the others'.
        present: (sources, rows).
    """

    tokens: Float[Tensor, "sources rows slots size"]
    logits: Float[Tensor, "sources rows slots"]
    present: Bool[Tensor, "sources rows"]

    def restricted(self, subset: Bool[Tensor, "sources rows"]) -> "CodeEvidence":
        """The same evidence with only the sources in `subset` still present."""
        return CodeEvidence(self.tokens, self.logits, self.present & subset)

    def rows(self, index: Tensor | slice | None) -> "CodeEvidence":
        """Some of the rows; None for all (`msvae.subsets.rows_of_each`)."""
        if index is None:
            return self
        return CodeEvidence(self.tokens[:, index], self.logits[:, index], self.present[:, index])


@dataclass(frozen=True)
class CodedBatch(SourceBatch):
    """Rows without their images: latents and evidence, computed once by the stages before.

    Args:
        latents: `{source: (rows, latents)}`, standardised; zero where the source is absent.
        evidence: see `CodeEvidence`.
    """

    latents: dict[str, Tensor]
    evidence: CodeEvidence

    def to(self, device: torch.device | str) -> "CodedBatch":
        moved = CodeEvidence(*(part.to(device) for part in vars(self.evidence).values()))
        return CodedBatch(
            {},
            {name: tensor.to(device) for name, tensor in self.present.items()},
            {name: tensor.to(device) for name, tensor in self.latents.items()},
            moved,
        )

    def batch(self, index: Tensor | slice) -> "CodedBatch":
        """Some of the rows: coded training rows answer the same call as `Rows`."""
        if isinstance(index, Tensor):
            index = index.to(self.device)  # once, not for every tensor
        return CodedBatch(
            {},
            {name: tensor[index] for name, tensor in self.present.items()},
            {name: tensor[index] for name, tensor in self.latents.items()},
            self.evidence.rows(index),
        )


def joined(parts: list[CodedBatch]) -> CodedBatch:
    """Batches one after the other."""
    return CodedBatch(
        {},
        {name: torch.cat([part.present[name] for part in parts]) for name in parts[0].present},
        {name: torch.cat([part.latents[name] for part in parts]) for name in parts[0].latents},
        joined_evidence([part.evidence for part in parts]),
    )


def joined_evidence(parts: list[CodeEvidence]) -> CodeEvidence:
    """That of rows one after the other."""
    return CodeEvidence(
        torch.cat([part.tokens for part in parts], dim=1),
        torch.cat([part.logits for part in parts], dim=1),
        torch.cat([part.present for part in parts], dim=1),
    )
