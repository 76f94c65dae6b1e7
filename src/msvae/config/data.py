"""Which rows to train on, and how they are changed at random."""

from typing import Any

from pydantic import Field

from msvae.config.base import Settings


class DataConfig(Settings):
    """Which rows to train on.

    Args:
        name: a built-in set, or the path of your own data (see `docs/data.md`).
        options: what that set can be told (see `msvae data info NAME`).
        sources: only these sources; all when None.
        missing: share of the sources removed at random from training and validation rows; every row keeps one.
        missing_seed: seed of that removal.
    """

    name: str = "colours"
    options: dict[str, Any] = Field(default_factory=dict)
    sources: tuple[str, ...] | None = Field(default=None, min_length=1)
    missing: float = Field(default=0.0, ge=0.0, lt=1.0)
    missing_seed: int = 0


class AugmentConfig(Settings):
    """Random changes of training rows; all off by default. See `msvae.data.augment`.

    The geometric ones are drawn once a row and done to all its sources; the photometric ones once a row and source.

    Args:
        flip_horizontal, flip_vertical: probability of a mirrored row.
        shift: largest shift, as a share of the side.
        rotate: largest angle, in degrees.
        scale: largest change of size: factors from 1 / (1 + scale) to 1 + scale.
        crop: largest share of the side that is cut away; the rest is enlarged to the full size.
        brightness: largest number added, as a share of the value range.
        contrast: factors from 1 - contrast to 1 + contrast, about the image's mean.
        noise: standard deviation of Gaussian noise, as a share of the value range.
    """

    flip_horizontal: float = Field(default=0.0, ge=0, le=1)
    flip_vertical: float = Field(default=0.0, ge=0, le=1)
    shift: float = Field(default=0.0, ge=0, le=0.5)
    rotate: float = Field(default=0.0, ge=0, le=180)
    scale: float = Field(default=0.0, ge=0, le=1)
    crop: float = Field(default=0.0, ge=0, le=0.9)
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    noise: float = Field(default=0.0, ge=0, le=1)
