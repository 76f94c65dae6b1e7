"""The known sets, one file each."""

from msvae.data.sets import (
    brain,
    colours,
    earth,
    emoji,
    icons,
    landsat,
    mnist_fashion,
    polymnist,
    scenes,
    stereo,
)
from msvae.data.sets.known import KnownSet, Option
from msvae.data.sets.making import Built, get_set

SETS: dict[str, KnownSet] = {
    "colours": colours.SET,
    "polymnist": polymnist.SET,
    "mnist-fashion": mnist_fashion.SET,
    "emoji": emoji.SET,
    "icons": icons.SET,
    "earth": earth.SET,
    "brain": brain.SET,
    "landsat": landsat.SET,
    "stereo": stereo.SET,
    "scenes": scenes.SET,
}

__all__ = ["SETS", "Built", "KnownSet", "Option", "get_set"]
