"""Training rows in several random versions, for stages that compute what they learn from once."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from msvae.config import AugmentConfig
from msvae.data.augment import augmented
from msvae.data.base import Rows
from msvae.source import SourceBatch
from msvae.training.schedule import derived_seed

ENOUGH_ROWS, MOST_VERSIONS = 10_000, 50


class AugmentedRows:
    """Every row as it is, and in small sets several times more, each time changed in another way.

    Args:
        seed: of all changes: the same parts of the same rows come back whenever they are asked for.
    """

    def __init__(self, rows: Rows, config: AugmentConfig, seed: int) -> None:
        self.rows, self.config, self.seed = rows, config, seed
        self.versions = min(MOST_VERSIONS, math.ceil(ENOUGH_ROWS / len(rows)))

    def __len__(self) -> int:
        return self.versions * len(self.rows)

    def batch(self, index: Int[Tensor, " rows"] | slice) -> SourceBatch:
        """Versions by their numbers: row r of the set is r, unchanged, and r + rows, r + 2 rows, ..."""
        index = torch.arange(len(self))[index] if isinstance(index, slice) else index
        batch = self.rows.batch(index % len(self.rows))
        unchanged = index < len(self.rows)
        if bool(unchanged.all()):
            return batch
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "versions", int(index[0])))
        changed = augmented(batch, self.rows.sources, self.config, generator)
        values = {
            name: torch.where(unchanged.view(-1, *[1] * (batch.values[name].dim() - 1)), batch.values[name], other)
            for name, other in changed.values.items()
        }
        return SourceBatch(values, batch.present)
