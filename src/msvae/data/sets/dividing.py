"""Splits that keep together what belongs together: groups of rows, or places of one picture."""

from collections.abc import Mapping, Sequence

import numpy as np

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def divide_groups(
    groups: Sequence[str], random: np.random.RandomState, shares: Mapping[str, float] = SHARES
) -> dict[str, np.ndarray]:
    """Rows of each split, about in these shares; all rows of a group are in one split.

    Groups come in random order; each goes to the split that has the least of its share so far.

    Args:
        groups: the group of every row.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    names = sorted(members)
    filled: dict[str, list[int]] = {split: [] for split in shares}
    for place in random.permutation(len(names)):
        neediest = min(shares, key=lambda split: len(filled[split]) / shares[split])
        filled[neediest] += members[names[place]]
    return {split: np.array(sorted(rows), dtype=np.int64) for split, rows in filled.items()}


def corners(top: int, left: int, bottom: int, right: int, size: int, stride: int) -> np.ndarray:
    """Upper left corners (tiles, 2) of all square tiles wholly within an area, line by line."""
    down, across = np.arange(top, bottom - size + 1, stride), np.arange(left, right - size + 1, stride)
    return np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2)


def tiles(picture: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """The tiles (tiles, channels, size, size) of a picture (height, width[, channels]) at these corners."""
    deep = picture[..., None] if picture.ndim == 2 else picture
    windows = np.lib.stride_tricks.sliding_window_view(deep, (size, size), axis=(0, 1))
    return windows[places[:, 0], places[:, 1]]
