"""Data sets: rows of several sources, some absent, in fixed splits."""

from msvae.config import DataConfig
from msvae.data.base import SPLITS, DataSet, Rows, check_data, complete_rows
from msvae.data.own import Tell, is_path, own_data
from msvae.data.sets import SETS, KnownSet, get_set
from msvae.errors import DataError, unknown


def load_data(config: DataConfig, tell: Tell | None = None) -> DataSet:
    """The set that the settings name, with only the wanted sources and the wanted share of images removed.

    Args:
        tell: called with a title, how much is done and how much there is, while files are decoded.

    Raises:
        DataError: for an unknown set, one that has to be built first, or files that cannot be used.
        ConfigError: for an option the set does not know, or a value out of its range.
    """
    if names_own_data(config.name):
        return prepared(own_data(config.name, config.options, tell), config)
    return prepared(known_set(config.name).open(config.options), config)


def names_own_data(name: str) -> bool:
    """Whether a name is the path of a person's own data; a known set is meant also where a folder is called like it."""
    return name not in SETS and is_path(name)


def known_set(name: str) -> KnownSet:
    """The known set of that name.

    Raises:
        DataError: naming the known sets and the nearest one.
    """
    if name not in SETS:
        raise DataError(unknown("data set", name, SETS))
    return SETS[name]


def prepared(data: DataSet, config: DataConfig) -> DataSet:
    """A set with only the wanted sources, and the wanted share of training and validation images removed."""
    if config.sources is not None:
        data = data.only(config.sources)
    return data.with_missing(config.missing, config.missing_seed)


__all__ = [
    "SETS",
    "SPLITS",
    "DataSet",
    "Rows",
    "check_data",
    "complete_rows",
    "get_set",
    "known_set",
    "load_data",
    "names_own_data",
    "prepared",
]
