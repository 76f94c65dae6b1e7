"""Archives of packages: fetched by the ordinary clients, checked, cached; whatever is odd is refused and named."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from msvae.data import archives, cache
from msvae.data.archives import members_sha256, read_members
from msvae.data.fetch import Package, fetch
from msvae.errors import DataError

CONTENT = {"package/a.txt": b"first", "package/b.txt": b"second"}
PACKAGE = Package("npm", "@scope/things", "1.0.0", ("package/*.txt",), members_sha256(CONTENT), 0.1, "CC0")
FILE = "scope-things-1.0.0.tgz"


def _tgz(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def _deb(path: Path, members: dict[str, bytes]) -> Path:
    data = _tgz(path.with_suffix(".data"), members).read_bytes()
    parts = [("debian-binary", b"2.0\n"), ("control.tar.gz", b"odd"), ("data.tar.gz", data)]
    packed = b"!<arch>\n"
    for name, content in parts:
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    path.write_bytes(packed)
    return path


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `npm` that packs what lies in a folder, and counts its calls; the cache is a folder of the test."""
    _tgz(tmp_path / "registry" / FILE, CONTENT)
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho call >> {tmp_path}/calls\ncp {tmp_path}/registry/* .\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MSVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def _calls(client: Path) -> int:
    return len((client / "calls").read_text().split()) if (client / "calls").exists() else 0


def _cached(client: Path) -> list[str]:
    return sorted(path.name for path in (client / "cache" / "downloads").iterdir() if not path.name.endswith(".lock"))


def test_a_package_is_downloaded_once(client: Path) -> None:
    assert fetch(PACKAGE) == CONTENT
    assert fetch(PACKAGE) == CONTENT
    assert _calls(client) == 1
    assert _cached(client) == [FILE]


def test_a_given_folder_comes_first_and_nothing_is_downloaded(client: Path) -> None:
    assert fetch(PACKAGE, client / "registry") == CONTENT
    (client / "empty").mkdir()
    with pytest.raises(DataError, match=r"no scope-things-1\.0\.0\.tgz.*npm pack @scope/things@1\.0\.0"):
        fetch(PACKAGE, client / "empty")
    with pytest.raises(DataError, match="no folder"):
        fetch(PACKAGE, client / "nowhere")
    assert _calls(client) == 0


def test_other_files_than_the_pinned_ones_are_refused_and_not_cached(client: Path) -> None:
    _tgz(client / "registry" / FILE, {**CONTENT, "package/a.txt": b"forged"})
    with pytest.raises(DataError, match=rf"expected SHA-256 {PACKAGE.sha256}, got "):
        fetch(PACKAGE)
    assert _cached(client) == []
    with pytest.raises(DataError, match="expected SHA-256"):
        fetch(PACKAGE, client / "registry")


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b"", lambda b: b"no archive" * 50])
def test_a_damaged_archive_is_named_and_a_damaged_cache_mended(client: Path, damage) -> None:
    whole = (client / "registry" / FILE).read_bytes()
    (client / "registry" / FILE).write_bytes(damage(whole))
    with pytest.raises(DataError, match=rf"{FILE} .*(cannot be read|holds no|does not hold)"):
        fetch(PACKAGE)
    assert _cached(client) == []
    (client / "cache" / "downloads" / FILE).write_bytes(damage(whole))
    (client / "registry" / FILE).write_bytes(whole)
    assert fetch(PACKAGE) == CONTENT
    assert (client / "cache" / "downloads" / FILE).read_bytes() == whole


def test_a_missing_client_names_the_other_way(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(client / "registry"))
    with pytest.raises(DataError, match=r"'npm' is not installed.*npm pack @scope/things@1\.0\.0.*--from DIR"):
        fetch(PACKAGE)


def test_a_client_that_fails_is_quoted(client: Path) -> None:
    (client / "bin" / "npm").write_text("#!/bin/sh\necho 'network is down' >&2\nexit 3\n")
    with pytest.raises(DataError, match=r"network is down.*--from DIR"):
        fetch(PACKAGE)
    (client / "bin" / "npm").write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(DataError, match=r"left no scope-things"):
        fetch(PACKAGE)
    assert _cached(client) == []


def test_a_cache_that_cannot_be_written_is_named(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (client / "file").write_text("")
    monkeypatch.setenv("MSVAE_CACHE", str(client / "file"))
    with pytest.raises(DataError, match="MSVAE_CACHE"):
        fetch(PACKAGE)


def test_no_name_in_an_archive_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    archive = _tgz(tmp_path / "in" / "x.tgz", {"../../evil.txt": b"1", "/etc/odd.txt": b"2", "a.txt": b"3"})
    assert set(read_members(archive, ["*.txt"])) == {"../../evil.txt", "/etc/odd.txt", "a.txt"}
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "x.tgz"]


def test_links_are_passed_over(tmp_path: Path) -> None:
    archive = _tgz(tmp_path / "x.tgz", {"a.txt": b"3"}, links={"b.txt": "/etc/passwd"})
    assert read_members(archive, ["*.txt"]) == {"a.txt": b"3"}
    with pytest.raises(DataError, match=r"holds no 'b\.txt'"):
        read_members(archive, ["b.txt"])


def test_wheels_and_debian_packages_are_read_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x-1-py3-none-any.whl", "w") as wheel:
        for name, content in CONTENT.items():
            wheel.writestr(name, content)
    assert read_members(tmp_path / "x-1-py3-none-any.whl", ["package/*"]) == CONTENT
    deb = _deb(tmp_path / "x_1_all.deb", {f"./{name}": content for name, content in CONTENT.items()})
    assert read_members(deb, ["package/*"]) == CONTENT
    deb.write_bytes(deb.read_bytes()[:-20])
    with pytest.raises(DataError, match="it is cut off"):
        read_members(deb, ["package/*"])


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_TOTAL", 8)
    with pytest.raises(DataError, match="refused"):
        read_members(_tgz(tmp_path / "x.tgz", CONTENT), ["package/*"])


def test_the_cache_is_where_the_platform_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSVAE_CACHE", str(tmp_path / "own"))
    assert cache.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("MSVAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for platform, folder in (("linux", tmp_path / "msvae"), ("win32", tmp_path / "local" / "msvae")):
        monkeypatch.setattr(cache.sys, "platform", platform)
        assert cache.cache_folder() == folder


def test_an_unknown_client_is_refused() -> None:
    with pytest.raises(DataError, match="Did you mean 'npm'"):
        Package("npn", "x", "1", (), "", 0.0, "")
