"""A Unix socket to listen on: there at once with its mode, never in the place of another's, gone when we are."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

BACKLOG_FULL = frozenset((errno.EAGAIN, errno.EINPROGRESS))


def bind_unix(path: Path, mode: int, backlog: int) -> socket.socket:
    """Return a socket that listens at `path`; one that a dead process left there is replaced.

    It is made under another name and moved: at no moment has it other rights than `mode`, or a name at which nobody
    listens.

    Raises:
        OSError: somebody listens there, something else than a socket is there, or it cannot be made.
    """
    _refuse_taken(path)
    temporary = path.with_name(f"{path.name}.{os.getpid():x}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            # Of a process that died while it made its own, and had the number that we have now.
            temporary.unlink()
        sock.bind(os.fspath(temporary))
        try:
            temporary.chmod(mode)
            sock.listen(backlog)
            sock.setblocking(False)
            temporary.rename(path)
        except BaseException:
            temporary.unlink()
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse_taken(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "something is there that is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return  # nobody listens any more
        except OSError as error:
            if error.errno not in BACKLOG_FULL:
                raise
    raise OSError(errno.EADDRINUSE, "another process listens there")


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at `path` from another that is put in its place; None if there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove_own(path: Path, identity: tuple[int, int] | None) -> None:
    """Remove the socket at `path` if it is the one with this identity, and not a successor's."""
    if identity is not None and identity_of(path) == identity:
        with contextlib.suppress(OSError):
            path.unlink()
