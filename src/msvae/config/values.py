"""Plain values of settings: from YAML files, from dotted names, from durations."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from msvae.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """Settings from a YAML file: a mapping with `data`, `model` and `training`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the settings file {path}: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(content).__name__}.")
    return content


def merged(base: Mapping[str, Any], *, dotted: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with some settings replaced, named as `training.steps`; what a group is given is added to it."""
    result = copy.deepcopy(dict(base))
    for key, value in dotted.items():
        *rooms, last = key.split(".")
        target = result
        for room in rooms:
            target = target.setdefault(room, {})
            if not isinstance(target, dict):
                raise ConfigError(f"Setting {key!r}: {room!r} is not a group of settings.")
        added = isinstance(value, Mapping) and not rooms and isinstance(target.get(last), dict)
        target[last] = {**target[last], **value} if added else value
    return result


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str | int | float) -> float:
    """A duration such as `90s`, `10m`, `1.5h` or `90` in seconds.

    Raises:
        ConfigError: if it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text))
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"Duration {text!r}: expected a number with s, m or h, such as 90s, 10m or 1.5h.")
    return float(match[1]) * _UNITS[match[2] or "s"]
