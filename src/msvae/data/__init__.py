"""Data sets: rows of several sources, some absent, in fixed splits."""

from collections.abc import Callable
from typing import Any

from msvae.config import DataConfig
from msvae.data import colours
from msvae.data.base import SPLITS, DataSet, Rows, check_data, complete_rows
from msvae.data.own import Tell, is_path, own_data
from msvae.errors import ConfigError, DataError, unknown

DATASETS: dict[str, Callable[..., DataSet]] = {"colours": colours.build}


def load_data(config: DataConfig, tell: Tell | None = None) -> DataSet:
    """The set that the settings name, with only the wanted sources and the wanted share of images removed.

    Args:
        tell: called with a title, how much is done and how much there is, while files are decoded.

    Raises:
        DataError: for an unknown set, or files that cannot be used.
        ConfigError: for an option the set does not know.
    """
    if config.name not in DATASETS and is_path(config.name):
        return prepared(own_data(config.name, config.options, tell), config)
    if config.name not in DATASETS:
        raise DataError(unknown("data set", config.name, DATASETS))
    known = known_options(config.name)
    for option in config.options:
        if option not in known:
            raise ConfigError(f"Data set {config.name!r}: {unknown('option', option, known)}")
    try:
        data = DATASETS[config.name](**config.options)
    except TypeError as error:
        raise ConfigError(f"Data set {config.name!r}: an option has a wrong type ({error}).") from None
    return prepared(data, config)


def prepared(data: DataSet, config: DataConfig) -> DataSet:
    """A set with only the wanted sources, and the wanted share of training images removed."""
    if config.sources is not None:
        data = data.only(config.sources)
    return data.with_missing(config.missing, config.missing_seed)


def known_options(name: str) -> dict[str, Any]:
    """The options of a data set, with their defaults."""
    import inspect

    parameters = inspect.signature(DATASETS[name]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


__all__ = [
    "DATASETS",
    "SPLITS",
    "DataSet",
    "Rows",
    "check_data",
    "complete_rows",
    "is_path",
    "known_options",
    "load_data",
    "prepared",
]
