"""A person's own data: folders of files, arrays, shards or a table of paths become a data set, without code."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msvae.config import parse
from msvae.data.base import DataSet
from msvae.data.own.cache import cached, files_fingerprint
from msvae.data.own.finding import find_layout
from msvae.data.own.settings import RUN_OPTIONS, SETTINGS_FILE, OwnSettings, checked, read_settings
from msvae.data.own.survey import propose, survey
from msvae.errors import ConfigError, DataError, unknown
from msvae.training.progress import Tell

log = logging.getLogger("msvae.data")


def is_path(name: str) -> bool:
    """Whether the name of a data set is a path of a person's own data."""
    return "/" in name or "\\" in name or Path(name).exists()


def settings_place(path: Path) -> Path:
    """Where the settings of some data lie: in its folder, or beside its file (a link's own) as `NAME.sources.yaml`."""
    path = path.expanduser().resolve()
    is_folder = path.is_dir() and path.suffix.lower() != ".zarr"
    return path / SETTINGS_FILE if is_folder else path.with_name(f"{path.name}.{SETTINGS_FILE}")


def own_data(name: str, options: Mapping[str, Any], tell: Tell | None = None) -> DataSet:
    """The rows in a folder (or one file of arrays, shard or manifest), decoded once into the cache.

    Args:
        options: settings of this run that win over those of `sources.yaml`: `skip_unreadable`, `split_seed`, ..

    Raises:
        ConfigError: for settings that do not fit.
        DataError: for data that cannot be used, naming every file or how many more.
    """
    for option in options:
        if option not in RUN_OPTIONS:
            raise ConfigError(f"Own data: {unknown('option', option, RUN_OPTIONS)}")
    path = Path(name).expanduser().resolve()
    tell = tell or (lambda title, done, total: None)
    settings = read_settings(settings_place(path), options)
    layout = find_layout(path, settings, allow_outside=bool(options.get("allow_outside")))

    def chosen() -> OwnSettings:
        if settings is not None:
            return settings
        found = survey(layout, None, tell, every_value=False)
        proposal = propose(found)
        for source, seen in found.sources.items():
            if seen.holes:
                log.warning("Source %r: %d images hold NaN, which is read as %g.", source, seen.holes, seen.low)
        for source, described in proposal.sources.items():
            if described.fit not in ("exact", "contain"):
                raise DataError(
                    f"Source {source!r}: its images differ in size, or are larger than networks take. Say what to do: "
                    f"msvae data check {path} writes {settings_place(path)} with a proposal."
                )
        return checked(parse(OwnSettings, {**proposal.model_dump(), **options}), "Options of the data")

    described = settings.model_dump(mode="json") if settings else {"proposed": dict(options)}
    return cached(layout, path, files_fingerprint(layout, described), chosen, tell)


__all__ = ["Tell", "is_path", "own_data", "settings_place"]
