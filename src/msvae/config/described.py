"""What every setting is called, what it is without a choice, and what it means: read from the classes of settings."""

import inspect
import re
from dataclasses import dataclass
from typing import Any

from msvae.config.base import Settings

ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*): (?P<meaning>.*)")
INDENT = "    "


@dataclass(frozen=True)
class Described:
    """One setting.

    Args:
        name: as `--set` calls it.
        value: what it is.
        meaning: in words.
    """

    name: str
    value: Any
    meaning: str


def described(settings: Settings, prefix: str = "") -> list[Described]:
    """All settings, those inside others too, in the order of their classes."""
    meanings = _meanings(type(settings))
    found = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            found += described(value, f"{prefix}{name}.")
        else:
            found.append(Described(prefix + name, value, meanings.get(name, "")))
    return found


def _meanings(kind: type[Settings]) -> dict[str, str]:
    """Of the fields, from the part `Args` of the docstring; fields that are told together share their meaning."""
    _, _, entries = inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in entries.splitlines():
        if line.startswith(2 * INDENT):
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
        elif (entry := ENTRY.fullmatch(line.strip())) is not None:
            names = entry["names"].split(", ")
            meanings |= dict.fromkeys(names, entry["meaning"])
    return meanings
