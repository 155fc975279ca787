"""A Unix socket to listen on: whose place it takes, with which rights, and what it leaves."""

import os
import socket
from pathlib import Path

import pytest

from relay.unix_socket import bind_unix, identity_of, remove_own


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.sock"


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        return True


@pytest.mark.parametrize("mode", [0o660, 0o666, 0o600])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_mode_is_that_one_whatever_the_umask(path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        with bind_unix(path, mode, 1):
            assert path.stat().st_mode & 0o777 == mode
            assert connects(path)
    finally:
        os.umask(before)
    assert list(path.parent.iterdir()) == [path]


def test_a_socket_that_a_dead_process_left_is_replaced(path: Path) -> None:
    bind_unix(path, 0o660, 1).close()
    assert path.is_socket()
    assert not connects(path)
    with bind_unix(path, 0o660, 1):
        assert connects(path)


def test_nobody_who_listens_is_put_out(path: Path) -> None:
    with bind_unix(path, 0o660, 1):
        with pytest.raises(OSError, match="another process listens there"):
            bind_unix(path, 0o660, 1)
        assert connects(path)
    assert list(path.parent.iterdir()) == [path]


def test_one_who_listens_and_is_busy_is_not_put_out(path: Path) -> None:
    with bind_unix(path, 0o660, 0), socket.socket(socket.AF_UNIX) as one:
        one.connect(os.fspath(path))
        with pytest.raises(OSError, match="another process listens there"):
            bind_unix(path, 0o660, 1)


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link", "link to a socket"])
def test_what_is_no_socket_stays(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    else:
        bind_unix(path.with_name("other"), 0o660, 1).close()
        path.symlink_to("other")
    before = identity_of(path)
    with pytest.raises(OSError, match="something is there that is no socket"):
        bind_unix(path, 0o660, 1)
    assert identity_of(path) == before


def test_a_directory_that_is_not_there(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bind_unix(path / "deeper", 0o660, 1)


def test_the_name_of_the_moment_is_taken_again(path: Path) -> None:
    path.with_name(f"relay.sock.{os.getpid():x}").write_text("of a process that died")
    with bind_unix(path, 0o660, 1):
        assert list(path.parent.iterdir()) == [path]


def test_only_our_own_is_removed(path: Path) -> None:
    with bind_unix(path, 0o660, 1) as first:
        ours = identity_of(path)
        first.close()
        with bind_unix(path, 0o660, 1):
            remove_own(path, ours)
            assert connects(path)
            remove_own(path, identity_of(path))
            assert not path.exists()
    remove_own(path, ours)
    remove_own(path, None)
