"""Files that only their owner may read: written whole or not at all, refused when others could read or change them."""

import errno
import os
import secrets
import shlex
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from keys.errors import KeyFileError

SIZE_MAX: Final = 16384
"""Most bytes that are read of such a file; a real one has some hundreds."""
_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_OTHERS: Final = 0o077
# What file systems answer that have no hard links, or systems that forbid them (Android).
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
_NO_DIRECTORY_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


def read_private(path: Path) -> bytes:
    """Return the content of `path` (at most 16 KiB). Symbolic links are followed: secret mounts are made of them.

    Raises:
        KeyFileError: it cannot be read, is no regular file, is too big, or group or others have any right to it; the
            text then gives the ``chmod`` that mends it.
    """
    try:
        # Without O_NONBLOCK a pipe under this name would hold us until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileError(f"there is no key file {path}; blindrelay-keygen makes one") from None
    except (OSError, ValueError) as error:
        raise KeyFileError(f"cannot read {path}: {_reason(error)}") from None
    try:
        # Of the open file, not of the name: what was checked is what is read.
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise KeyFileError(f"{path} is not a regular file")
        if mode & _OTHERS:
            raise KeyFileError(
                f"{path} is open to others (mode {stat.S_IMODE(mode):04o}); close it with: chmod 600 {_shell(path)}"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {_reason(error)}") from None
    finally:
        os.close(descriptor)
    if len(content) > SIZE_MAX:
        raise KeyFileError(f"{path} is too big for a key file (more than {SIZE_MAX} bytes)")
    return content


def refuse_existing(path: Path) -> None:
    """Tell early that :func:`write_private` would refuse, before a person is asked for anything.

    Raises:
        KeyFileError: something stands at `path`, be it a dangling link.
    """
    if os.path.lexists(path):
        raise _exists(path)


def write_private(path: Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write `content` to `path` with mode 0600 whatever the umask, and make it last through a loss of power.

    At every moment there is either the old file, whole, or the new one. Missing directories are made with mode 0700. A
    symbolic link at `path` is replaced, never followed: whoever left it there must not choose where secrets go.

    Args:
        path: where to.
        content: what.
        overwrite: replace what is there. Without it, of several writers at once exactly one succeeds.

    Raises:
        KeyFileError: it exists and `overwrite` is not given, or it cannot be written.
    """
    try:
        make_directories(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            _write_new(temporary, content)
            if overwrite:
                temporary.replace(path)
            else:
                claim(temporary, path)
        finally:
            # Gone already after a rename; after a link it is the second name, after an error what must not stay.
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except FileExistsError:
        raise _exists(path) from None
    except (OSError, ValueError) as error:
        raise KeyFileError(f"cannot write {path}: {_reason(error)}") from None


def make_directories(directory: Path) -> None:
    """Make `directory` and those above it that are missing, each with mode 0700 whatever the umask, and make them last.

    What exists is left as it is.

    Raises:
        OSError: one cannot be made.
    """
    if directory.is_dir():
        return
    make_directories(directory.parent)
    with suppress(FileExistsError):  # made meanwhile; if it is a file, opening a file in it says so
        directory.mkdir(_DIRECTORY_MODE)
        directory.chmod(_DIRECTORY_MODE)
        sync_directory(directory.parent)


def _write_new(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, _FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, _FILE_MODE)  # the umask may have taken bits of the owner's
        if os.fstat(descriptor).st_mode & _OTHERS:
            raise KeyFileError(f"cannot write {path.parent}: this file system cannot keep a file from others")
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def claim(temporary: Path, path: Path) -> None:
    """Give the file `temporary` the name `path`, which nothing has yet: of several who try exactly one succeeds.

    `temporary` may be there afterwards, as a second name.

    Raises:
        FileExistsError: something has that name, be it a dangling link; it stays as it is.
        OSError: it cannot be done.
    """
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # The name is taken with an empty file and then filled: a crash between the two leaves that, and no secret.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
        temporary.replace(path)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` last through a loss of power, where the file system can.

    Raises:
        OSError: of the disk.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def _exists(path: Path) -> KeyFileError:
    return KeyFileError(f"{path} exists and is not overwritten: the keys in it would be lost")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _shell(path: Path) -> str:
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
