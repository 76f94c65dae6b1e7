"""`sources.yaml`: how a person's own files become sources; written by `msvae data check`, edited by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from msvae.config import Settings, parse, read_yaml
from msvae.data.base import SPLITS
from msvae.data.formats import Reading
from msvae.errors import ConfigError, DataError, SourceError
from msvae.files import write_text
from msvae.source import FileForm, Source

SETTINGS_FILE = "sources.yaml"
FORMAT_VERSION = 1
ALWAYS_WRITTEN = ("path", "shape", "likelihood", "scale", "file_range", "fit", "format", "dtype")
HEAD = """\
# How msvae reads this folder; edit and keep it. What each key means: docs/data.md.
# fit: exact refuses images of another size; resize, crop, pad, cover and contain make them fit the shape.
"""


class SourceSettings(Settings):
    """One source.

    Args:
        path: the folder or file with its images, within the data folder; of a manifest the column; of shards the
            middle of `key.SOURCE.png`.
        array: the array within a file of arrays.
        shape: (channels, height, width) of its images, or (features,).
        likelihood, scale, categories: as in `msvae.Source`.
        file_range: the smallest and largest number in its files.
        value_range: the numbers that they stand for; those of the files when None.
        fit, fill, colour, channels, clip, nan, axis: as in `msvae.source.FileForm`.
        affine: of its volumes, where they agree.
        pages: whether a page of a TIFF is a row, or its pages are the channels of one image.
        tile: cut images into squares of this side, each a row; what is left at the right and the bottom is dropped.
        channels_last: whether the channels of arrays come last; guessed when None.
        format, dtype: what its files are, for answers.
    """

    path: str
    array: str | None = None
    shape: tuple[int, ...]
    likelihood: str = "laplace"
    scale: float = Field(default=0.1, gt=0)
    categories: int | None = None
    file_range: tuple[float, float]
    value_range: tuple[float, float] | None = None
    fit: str = "exact"
    fill: float | None = None
    colour: str = "as_is"
    channels: tuple[int, ...] | None = None
    clip: bool = False
    nan: float | None = None
    axis: int = 2
    affine: tuple[float, ...] | None = None
    pages: Literal["rows", "channels"] = "rows"
    tile: int | None = Field(default=None, ge=1)
    channels_last: bool | None = None
    format: str = "png"
    dtype: str = "uint8"

    def source(self, name: str, affine: tuple[float, ...] | None = None) -> Source:
        """The source that models see.

        Raises:
            SourceError: if a setting is out of its range.
        """
        low, high = self.file_range
        least, most = (0, (self.categories or 1) - 1) if self.likelihood == "categorical" else (low, high)
        if self.fill is not None and not least <= self.fill <= most:
            raise SourceError(f"Source {name!r}: fill is {self.fill:g}; expected {least:g} to {most:g}.")
        form = FileForm(
            format=self.format,
            dtype=self.dtype,
            low=low,
            high=high,
            fit=self.fit,
            fill=self.fill,
            colour=self.colour,
            channels=self.channels,
            clip=self.clip,
            nan=self.nan,
            pages=self.pages,
            channels_last=self.channels_last,
            axis=self.axis,
            affine=affine or self.affine,
        )
        return Source(
            name,
            self.shape,
            self.likelihood,
            self.scale,
            self.value_range or self.file_range,
            self.categories,
            form,
        )

    def reading(self) -> Reading:
        size = self.shape[1:] if len(self.shape) == 3 else None
        return Reading(
            colour=self.colour,
            classes=self.likelihood == "categorical",
            axis=self.axis,
            pages=self.pages,
            size=(size[0], size[1]) if size else None,
            array=self.array,
            channels_last=self.channels_last,
        )


class OwnSettings(Settings):
    """The whole file.

    Args:
        sources: by name, in the order of all tables.
        split: shares of the rows; where a labels file has a column `split`, that counts instead.
        split_seed: of the random choice behind those shares.
        label: the column of `labels.csv` that holds the class; `label` when None, if there is such a column.
        class_names: all classes, in the order of their numbers; by name, of those that occur, when None.
        shared_content: whether all sources of a row show the very same thing, pixel by pixel.
        skip_unreadable: count files that cannot be read, or do not fit, as missing; else they stop everything.
        allow_outside: follow links and paths that lead out of the data folder.
    """

    format_version: int = FORMAT_VERSION
    sources: dict[str, SourceSettings] = Field(min_length=1)
    split: dict[str, float] = Field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    split_seed: int = 0
    label: str | None = None
    class_names: tuple[str, ...] | None = None
    shared_content: bool = True
    skip_unreadable: bool = False
    allow_outside: bool = False


#: Settings that a run may override (`--set data.options.skip_unreadable=true`).
RUN_OPTIONS = ("split", "split_seed", "label", "shared_content", "skip_unreadable", "allow_outside")


def read_settings(path: Path, options: Mapping[str, Any] | None = None) -> OwnSettings | None:
    """The settings beside the data, under a run's options; None if there are none.

    Raises:
        ConfigError: naming the file and every key that does not fit.
    """
    if not path.exists():
        return None
    try:
        settings = parse(OwnSettings, {**read_yaml(path), **(options or {})})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if settings.format_version > FORMAT_VERSION:
        raise ConfigError(f"{path}: format version {settings.format_version}; this version reads {FORMAT_VERSION}.")
    return checked(settings, str(path))


def checked(settings: OwnSettings, where: str) -> OwnSettings:
    """The settings, if their shares make sense.

    Raises:
        ConfigError: naming the share.
    """
    for split, share in settings.split.items():
        if split not in SPLITS or not 0 < share < 1:
            raise ConfigError(f"{where}: split {split!r}: expected a share within (0, 1) of {', '.join(SPLITS)}.")
    if "train" not in settings.split or abs(sum(settings.split.values()) - 1) > 1e-6:
        raise ConfigError(f"{where}: split: expected shares with 'train' that add up to 1, got {settings.split}.")
    return settings


def write_settings(path: Path, settings: OwnSettings) -> None:
    """Write `sources.yaml`, whole or not at all.

    Raises:
        DataError: if it cannot be written.
    """
    plain = settings.model_dump(mode="json")
    usual = {name: field.default for name, field in SourceSettings.model_fields.items() if name not in ALWAYS_WRITTEN}
    plain["sources"] = {
        name: {key: value for key, value in fields.items() if key not in usual or value != usual[key]}
        for name, fields in plain["sources"].items()
    }
    text = HEAD + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    write_text(path, text, DataError)
