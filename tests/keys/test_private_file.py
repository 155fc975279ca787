import errno
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keys.errors import KeyFileError
from keys.private_file import SIZE_MAX, read_private, refuse_existing, write_private
from tests.keys.known import ROOT


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.keys"


# --- Writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("overwrite", [False, True])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, mask: int, *, overwrite: bool) -> None:
    path = tmp_path / "new" / "deep" / "a.keys"
    with umask(mask):
        write_private(path, b"content", overwrite=overwrite)
    assert mode(path) == 0o600
    assert mode(path.parent) == mode(path.parent.parent) == 0o700
    assert read_private(path) == b"content"
    assert path.lstat().st_nlink == 1
    assert list(path.parent.iterdir()) == [path]


def test_directories_that_exist_keep_their_mode(path: Path) -> None:
    path.parent.chmod(0o755)
    write_private(path, b"content")
    assert mode(path.parent) == 0o755


def test_a_file_that_exists_is_kept(path: Path) -> None:
    path.write_bytes(b"old")
    with pytest.raises(KeyFileError, match="exists and is not overwritten"):
        refuse_existing(path)
    with pytest.raises(KeyFileError, match="exists and is not overwritten"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_overwriting_closes_a_file_that_was_open_to_others(path: Path) -> None:
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new", overwrite=True)
    assert read_private(path) == b"new"


@pytest.mark.parametrize("target_exists", [False, True])
def test_a_link_is_never_followed(path: Path, *, target_exists: bool) -> None:
    target = path.with_name("target")
    if target_exists:
        target.write_bytes(b"theirs")
    path.symlink_to(target)
    with pytest.raises(KeyFileError, match="exists"):
        refuse_existing(path)
    with pytest.raises(KeyFileError, match="exists"):
        write_private(path, b"new")
    assert path.is_symlink()
    write_private(path, b"new", overwrite=True)
    assert not path.is_symlink()
    assert path.read_bytes() == b"new"
    assert target.exists() == target_exists
    assert not target_exists or target.read_bytes() == b"theirs"


def test_of_many_writers_one_succeeds(path: Path) -> None:
    def write(number: int) -> int | None:
        try:
            write_private(path, str(number).encode())
        except KeyFileError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [n for n in pool.map(write, range(64)) if n is not None]
    assert len(winners) == 1
    assert path.read_bytes() == str(winners[0]).encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("module", "name"), [("os", "fsync"), ("os", "fchmod"), ("pathlib.Path", "replace")])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"{module}.{name}", fail)
    with pytest.raises(KeyFileError, match=r"cannot write .*a\.keys: No space left on device"):
        write_private(path, b"new", overwrite=True)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("dies_at", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.hardlink_to"])
def test_a_process_that_dies_leaves_the_old_file(path: Path, dies_at: str, *, overwrite: bool) -> None:
    if overwrite:
        path.write_bytes(b"old")
    program = f"""
import os, pathlib
from keys.private_file import write_private
{dies_at} = lambda *_: os._exit(9)
write_private(pathlib.Path({str(path)!r}), b"new", overwrite={overwrite})
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    never_called = dies_at.endswith("hardlink_to" if overwrite else "replace")
    assert done.returncode == (0 if never_called else 9)
    if never_called:
        assert path.read_bytes() == b"new"
    else:
        assert path.exists() == overwrite
        assert not overwrite or path.read_bytes() == b"old"
    left = [other for other in path.parent.iterdir() if other != path]
    assert all(mode(other) == 0o600 and other.name.startswith(".") for other in left)


def test_content_is_on_the_disk_before_it_has_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_private(path, b"content", overwrite=True)
    assert steps == ["file", "rename", "directory"]


def without_links(code: int) -> Any:
    def hardlink_to(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return hardlink_to


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES])
def test_where_there_are_no_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(Path, "hardlink_to", without_links(code))
    write_private(path, b"content")
    assert read_private(path) == b"content"
    with pytest.raises(KeyFileError, match="exists"):
        write_private(path, b"other")
    assert read_private(path) == b"content"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_that_fails_for_another_reason(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", without_links(errno.EIO))
    with pytest.raises(KeyFileError, match="Input/output error"):
        write_private(path, b"content")
    assert list(path.parent.iterdir()) == []


def test_a_file_system_without_modes_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fchmod = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda descriptor, _: fchmod(descriptor, 0o666))
    with pytest.raises(KeyFileError, match="cannot keep a file from others"):
        write_private(path, b"content")
    assert list(path.parent.iterdir()) == []


def test_a_directory_that_cannot_be_synced_is_no_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refuse_directories(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_directories)
    write_private(path, b"content")
    assert read_private(path) == b"content"


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    for path, overwrite in (
        (tmp_path / "file" / "a.keys", False),
        (tmp_path / "directory", True),
        (tmp_path / ("n" * 300), False),
        (tmp_path / "nul\0", False),
        (Path("/"), True),
    ):
        with pytest.raises(KeyFileError, match="cannot write"):
            write_private(path, b"content", overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file"]


# --- Reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0o604, 0o640, 0o660, 0o606, 0o644, 0o777, 0o620, 0o602, 0o610, 0o601])
def test_a_file_that_is_open_to_others_is_refused_with_the_command_that_mends_it(path: Path, bits: int) -> None:
    path.write_bytes(b"content")
    path.chmod(bits)
    with pytest.raises(KeyFileError, match=f"mode {bits:04o}") as caught:
        read_private(path)
    assert str(caught.value).endswith(f"chmod 600 {path}")
    subprocess.run(str(caught.value).rpartition(": ")[2], shell=True, check=True)  # noqa: S602 - the point of it
    assert read_private(path) == b"content"


@pytest.mark.parametrize("name", ["it's $(a) name", "-rf", "a;b"])
def test_the_command_is_for_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.touch(0o644)
    path.chmod(0o644)
    with pytest.raises(KeyFileError) as caught:
        read_private(path)
    command = str(caught.value).rpartition("close it with: ")[2]
    assert shlex.split(command)[:2] == ["chmod", "600"]
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - the point of it
    assert mode(path) == 0o600


@pytest.mark.parametrize("bits", [0o600, 0o400])
def test_a_file_that_is_closed_to_others_is_read(path: Path, bits: int) -> None:
    path.write_bytes(b"content")
    path.chmod(bits)
    assert read_private(path) == b"content"


def test_links_are_followed(path: Path) -> None:
    write_private(path, b"content")
    link = path.with_name("link")
    link.symlink_to(path)
    assert read_private(link) == b"content"
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_private(link)


def test_what_cannot_be_read(path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"there is no key file .*a\.keys; blindrelay-keygen makes one"):
        read_private(path)
    with pytest.raises(KeyFileError, match="not a regular file"):
        read_private(path.parent)
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyFileError, match="not a regular file"):
        read_private(path)
    with pytest.raises(KeyFileError, match="cannot read"):
        read_private(path / "below")
    with pytest.raises(KeyFileError, match="cannot read"):
        read_private(Path("nul\0"))


def test_the_size_is_bounded(path: Path) -> None:
    write_private(path, bytes(SIZE_MAX))
    assert len(read_private(path)) == SIZE_MAX
    write_private(path, bytes(SIZE_MAX + 1), overwrite=True)
    with pytest.raises(KeyFileError, match="too big"):
        read_private(path)
