"""A file that others may not read, and that is there only once it is whole."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from keys.private_file import claim, sync_directory

_MODE: Final = 0o600
# What kernels and file systems answer that know no files without a name; some take the flag for less than it says.
_NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_DESCRIPTORS: Final = Path("/proc/self/fd")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open `path`, which nothing may have as its name, for writing. At the end of the ``with`` block the file is synced
    and gets its name, mode 0600; if an exception leaves the block there is no file.

    Where the system can do that (Linux, most file systems) the file has no name before, so that not even a kill leaves
    anything behind. Elsewhere it has a temporary one beside `path`, which a kill leaves.

    Raises:
        FileExistsError: something has that name, at the beginning or by the end; it stays as it is.
        OSError: it cannot be written.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    directory = path.parent
    descriptor = _unnamed(directory)
    temporary = None
    if descriptor is None:
        temporary = directory / f".{path.name}.{secrets.token_hex(8)}.tmp"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, _MODE)  # the umask may have taken bits of the owner's
            yield file
            file.flush()
            os.fsync(descriptor)
            if temporary is None:
                _link(descriptor, path)
            else:
                claim(temporary, path)
        sync_directory(directory)
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


def _unnamed(directory: Path) -> int | None:
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not _DESCRIPTORS.is_dir():
        return None
    try:
        return os.open(directory, flag | os.O_RDWR | os.O_CLOEXEC, _MODE)
    except OSError as error:
        # The directory itself may be missing: the attempt with a name says so.
        if error.errno in _NO_UNNAMED:
            return None
        raise


def _link(descriptor: int, path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # With a directory's descriptor this is linkat(2), which follows the link that /proc has for the file.
        os.link(_DESCRIPTORS / str(descriptor), path.name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)
