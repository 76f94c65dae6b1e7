"""The user's cache folder: downloaded archives and built sets. Whoever writes there holds a lock meanwhile."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from msvae.errors import DataError

PATIENCE_SECONDS = 2.0
log = logging.getLogger("msvae.data")


def cache_folder() -> Path:
    """`$MSVAE_CACHE`; else `msvae` in the platform's cache folder (`$XDG_CACHE_HOME` or ~/.cache on Linux)."""
    chosen = os.environ.get("MSVAE_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        usual = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        usual = Path.home() / "Library" / "Caches"
    else:
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return usual.absolute() / "msvae"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process works at `path`, and keep others out until the end; a killed process lets go.

    Raises:
        DataError: if the folder of `path` cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PATIENCE_SECONDS)
        except Timeout:
            log.warning("Another process works at %s; waiting for it.", path)
            lock.acquire()
    except OSError as error:
        raise DataError(
            f"Cannot write into the cache {path.parent}: {error.strerror or error}. "
            "Set MSVAE_CACHE to a folder that can be written."
        ) from None
    try:
        yield
    finally:
        lock.release()
