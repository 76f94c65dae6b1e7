"""Errors that a person can act on: each says where, what was expected and what came."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MsvaeError(Exception):
    """Base of every error that msvae raises on purpose; the command line shows it and exits with 2."""

    exit_code = 2


class SourceError(MsvaeError):
    """A value, shape, name or presence that does not fit the sources of a model."""


class ConfigError(MsvaeError):
    """A setting that is unknown, of the wrong type or out of range."""


class CheckpointError(MsvaeError):
    """A run folder or checkpoint that is missing, damaged, too new or in the way."""


class DataError(MsvaeError):
    """A data set, folder or file that cannot be read as the sources it should hold."""


class NonFiniteError(MsvaeError):
    """A loss or gradient became NaN or infinite while training."""

    exit_code = 3


class GateError(MsvaeError):
    """A stage of training is not good enough for the next one to build on; everything is on disk."""

    exit_code = 4


class Interrupted(MsvaeError):
    """Training was stopped by the user; everything up to the last step is on disk."""

    exit_code = 130


def nearest(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the known word nearest to a misspelt one, or `""`."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """One sentence for an unknown name: what it was, what there is, and the nearest."""
    known = list(known)
    return f"Unknown {kind} {word!r}; known: {', '.join(known) or 'none'}.{nearest(word, known)}"
