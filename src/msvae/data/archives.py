"""Archives of package registries, read in memory: only the wanted members, only regular files, nothing on disk.

A name inside an archive is a key and never a path, so that no archive can write outside its place.
"""

import fnmatch
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from msvae.errors import DataError

LARGEST_TOTAL = 1 << 30  # bytes of all wanted members, unpacked
DEB_MAGIC = b"!<arch>\n"


def read_members(archive: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    """`{member: content}` of the members of a .tgz, .whl, .zip or .deb that fit one of the patterns, by name.

    Args:
        patterns: names, with `*` and `?` as in a shell; `*` also fits `/`.

    Raises:
        DataError: if the archive cannot be read, lacks a pattern's members, or holds more than a GiB of them.
    """
    found: dict[str, bytes] = {}
    total = 0
    try:
        for name, size, read in _files(archive):
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                total += size
                if total > LARGEST_TOTAL:
                    raise DataError(f"{archive} holds more than {LARGEST_TOTAL >> 30} GiB of wanted files; refused.")
                found[name] = read()
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
        raise DataError(f"{archive} cannot be read as an archive ({error}). Remove it and download it again.") from None
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in found):
            raise DataError(f"{archive} holds no {pattern!r}; it is not the archive this set is made from.")
    return dict(sorted(found.items()))


def members_sha256(members: dict[str, bytes]) -> str:
    """SHA-256 over names and contents, in the order of names: equal for every packing of the same files."""
    digest = hashlib.sha256()
    for name, content in sorted(members.items()):
        digest.update(f"{name}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _files(archive: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Name, size and reader of every regular file; links and devices are passed over."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, partial(zipped.read, info)
        return
    with archive.open("rb") as stream:
        packed = io.BytesIO(_deb_data(stream.read())) if archive.suffix == ".deb" else stream
        with tarfile.open(fileobj=packed, mode="r:*") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name.removeprefix("./"), member.size, content.read


def _deb_data(content: bytes) -> bytes:
    """The data.tar.* of a Debian package, which is an `ar` archive: 60-byte headers, contents padded to even length."""
    if not content.startswith(DEB_MAGIC):
        raise ValueError("it is no Debian package")
    place = len(DEB_MAGIC)
    while place + 60 <= len(content):
        name = content[place : place + 16].decode("ascii", "replace").strip().rstrip("/")
        size = int(content[place + 48 : place + 58])
        place += 60
        if name.startswith("data.tar"):
            if place + size > len(content):
                raise ValueError("it is cut off")
            return content[place : place + size]
        place += size + size % 2
    raise ValueError("it has no data.tar")
