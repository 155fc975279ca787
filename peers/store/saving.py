"""Copies of stored files for people, under names that are theirs to choose. All of it blocks."""

import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from peers.store.errors import BadFile
from peers.store.file_rows import FileRow, content_path
from peers.store.names import numbered, safe_name

_TRIES: Final = 10_000
_BLOCK: Final = 1024 * 1024
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})


def save(row: FileRow, files_dir: Path, to: Path, *, overwrite: bool = False) -> Path:
    """Copy a received file to `to` in constant memory, with mode 0600; returns where it is.

    Into a directory it goes under its own name, made safe; where that is taken, under ``name (2).ext`` and so on. At
    every moment there is nothing under that name, or the whole.

    Args:
        row: a file whose state is ``done``.
        files_dir: where received files lie.
        to: a directory that exists, or the path of the copy.
        overwrite: replace what stands there.

    Raises:
        BadFile: it is not here (yet), something stands there, or it cannot be written.
    """
    if not row.outgoing and row.state != "done":
        raise BadFile(f"the file of message {row.message} is not here: its state is {row.state}")
    source = content_path(files_dir, row)
    inside = to.is_dir()
    target = to / safe_name(row.name) if inside else to
    temporary = target.parent / f".{secrets.token_hex(8)}.part"
    try:
        _copy(row, source, temporary)
        if overwrite:
            temporary.replace(target)
            return target
        for number in range(1, _TRIES if inside else 2):
            candidate = target.with_name(numbered(target.name, number))
            if _claim(temporary, candidate):
                return candidate
    except OSError as error:
        raise BadFile(f"cannot write {target}: {error.strerror or type(error).__name__}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    raise BadFile(f"{target} exists already")


def _copy(row: FileRow, source: Path, temporary: Path) -> None:
    try:
        reading = source.open("rb")
    except OSError as error:
        raise BadFile(f"the file of message {row.message} cannot be read: {error.strerror}") from None
    with reading:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as writing:
            shutil.copyfileobj(reading, writing, _BLOCK)
            writing.flush()
            os.fsync(writing.fileno())
            if writing.tell() != row.size:
                raise BadFile(f"the file of message {row.message} is not whole any more: something changed it")


def _claim(temporary: Path, candidate: Path) -> bool:
    """Give the copy this name unless it is taken."""
    try:
        os.link(temporary, candidate, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: the name is taken by an empty file, which is replaced at once.
        try:
            os.close(os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except FileExistsError:
            return False
        temporary.replace(candidate)
    return True
