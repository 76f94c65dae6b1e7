"""The known sets, one file each."""

from msvae.data.sets import colours, polymnist
from msvae.data.sets.known import KnownSet, Option
from msvae.data.sets.making import Built, get_set

SETS: dict[str, KnownSet] = {
    "colours": colours.SET,
    "polymnist": polymnist.SET,
}

__all__ = ["SETS", "Built", "KnownSet", "Option", "get_set"]
