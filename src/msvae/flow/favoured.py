"""Questions that the last stage is asked more often than others, such as `t1+t2->tissue`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from msvae.errors import ConfigError, unknown

ARROW, PLUS = "->", "+"


@dataclass(frozen=True)
class Direction:
    """One source, drawn on some others, in a share of the rows that have them all.

    Args:
        given, wanted: places among the model's sources.
    """

    given: tuple[int, ...]
    wanted: int
    share: float


def directions(favoured: Mapping[str, float], names: Sequence[str]) -> list[Direction]:
    """What `{"t1+t2->tissue": 0.5}` means for these sources.

    Raises:
        ConfigError: for an unknown source, or one that is to be drawn on itself.
    """
    found = []
    for text, share in favoured.items():
        said, _, wanted = (part.strip() for part in text.partition(ARROW))
        given = [name.strip() for name in said.split(PLUS)]
        for name in (*given, wanted):
            if name not in names:
                raise ConfigError(f"Setting 'model.favoured': {text!r}: {unknown('source', name, names)}")
        if wanted in given:
            raise ConfigError(f"Setting 'model.favoured': {text!r}: {wanted} cannot be drawn on itself.")
        found.append(Direction(tuple(names.index(name) for name in given), names.index(wanted), share))
    return found


def favour(
    directions: Sequence[Direction],
    given: Bool[Tensor, "sources rows"],
    target: Bool[Tensor, "sources rows"],
    present: Bool[Tensor, "sources rows"],
    generator: Generator | None = None,
) -> tuple[Bool[Tensor, "sources rows"], Bool[Tensor, "sources rows"]]:
    """The questions of a batch, some of which were replaced by favoured ones: their shares, of all rows.

    Rows that lack a source of the direction that chance gives them keep the question they have. Without directions
    nothing is drawn at random.
    """
    if not directions:
        return given, target
    lottery = torch.rand(given.shape[1], generator=generator, device=given.device)
    least = 0.0
    for direction in directions:
        asked, answered = torch.zeros_like(given[:, :1]), torch.zeros_like(given[:, :1])
        asked[list(direction.given)], answered[direction.wanted] = True, True
        has_all = (present | ~(asked | answered)).all(dim=0)
        chosen = has_all & (lottery >= least) & (lottery < least + direction.share)
        given, target = torch.where(chosen, asked, given), torch.where(chosen, answered, target)
        least += direction.share
    return given, target
