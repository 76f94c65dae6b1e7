"""Files that are whole or not there: written beside their place, flushed to disk, then renamed."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from msvae.errors import CheckpointError, MsvaeError


def sha256(path: Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def flush_to_disk(path: Path) -> None:
    """Make a file survive a power cut, and the names in a folder where the system can."""
    if path.is_dir():
        with contextlib.suppress(OSError):  # Windows opens no folders
            _flush(path, os.O_RDONLY)
    else:
        _flush(path, os.O_RDWR)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """Replace a file atomically: what is written to the path that this gives, which has the same ending, takes the
    place of the old one; on failure the old one stays. Folders are made.

    Args:
        flushed: whether it shall survive a power cut; many small files are quicker without.

    Raises:
        OSError: if it cannot be written (for example a full disk).
    """
    temporary = path.with_name(f".{os.getpid()}.part.{path.name}")  # other processes may write it too
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if flushed:
            flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, error: type[MsvaeError] = CheckpointError) -> None:
    """Replace a text file atomically; on failure the old one stays.

    Raises:
        CheckpointError: or the error that is given, if it cannot be written.
    """
    try:
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as problem:
        what = problem.strerror or problem
        raise error(f"Cannot write {path}: {what}. What was there is unchanged.") from None


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: if the file is missing, damaged, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"There is no {path}.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: expected a JSON object.")
    return content


def refuse_unwritable(folder: Path) -> None:
    """Ask before long work, whose result belongs into this folder.

    Raises:
        CheckpointError: if nothing can be written there.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CheckpointError(f"Cannot write into {folder}: {error.strerror or error}.") from None


def unambiguous(path: str | Path) -> Path:
    """`new/../old` is `old`, whether `new` exists or not."""
    path = Path(path)
    return path.resolve() if ".." in path.parts else path


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder appear whole: `fill` writes into a temporary one beside it, which is then renamed.

    Raises:
        CheckpointError: if it cannot be written; nothing appears then.
    """
    path = unambiguous(path)
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        for file in temporary.iterdir():
            flush_to_disk(file)
        replace_folder(path, temporary)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}. What was there is unchanged.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that what a kill leaves of it does not bear its name, but one that counts as remains."""
    remains = path.with_name(f".{path.name}.{os.getpid()}.part")
    with contextlib.suppress(OSError):
        path.replace(remains)
        shutil.rmtree(remains, ignore_errors=True)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Whoever reads a file, changes it and writes it again, after all who do so before; where there are no locks, at
    once."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with contextlib.suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def replace_folder(path: Path, whole: Path) -> None:
    """Move a whole folder to its place; an older one steps aside first, and comes back if that fails.

    Raises:
        OSError: if it does.
    """
    older = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(older, ignore_errors=True)  # left there by a kill
        path.replace(older)
    try:
        whole.replace(path)
    except BaseException:  # Ctrl-C, too
        if older.exists() and not path.exists():
            older.replace(path)
        raise
    flush_to_disk(path.parent)
    shutil.rmtree(older, ignore_errors=True)
