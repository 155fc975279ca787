"""Files of ours on disk: looked at when they are offered, and read in pieces while they are sent. All of it blocks."""

import os
import stat
import threading
from pathlib import Path
from typing import Final, NamedTuple

from keys.primitives import Digest
from peers.store.errors import BadFile
from wire.peer_commands import FILE_MAX

_BLOCK: Final = 1024 * 1024
# Without O_NONBLOCK a pipe under the name would hold us until somebody writes to it.
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class SourceChanged(Exception):
    """The file is gone, cannot be read any more, or is not the one that was offered."""


class Stopped(Exception):
    """We were told to stop."""


class Source(NamedTuple):
    """A file that can be offered.

    Attributes:
        path: absolute, without symbolic links.
        size: bytes.
        stamp: differs as soon as the file is replaced or written to.
    """

    path: Path
    size: int
    stamp: str


def look_at(path: Path) -> Source:
    """Check a file that is to be sent.

    Raises:
        BadFile: there is none, it is no regular file, cannot be read, or has more than 1 TiB.
    """
    try:
        real = path.expanduser().resolve(strict=True)
        descriptor = os.open(real, _FLAGS)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise BadFile(f"there is no file {path}") from None
    except (OSError, RuntimeError, ValueError) as error:  # loops of links; a NUL in the name
        raise BadFile(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise BadFile(f"{path} is not a regular file: pack a directory into an archive")
    if status.st_size > FILE_MAX:
        raise BadFile(f"{path} has {status.st_size} bytes; {FILE_MAX} are the most")
    return Source(real, status.st_size, _stamp(status))


def digest_of(source: Source, stop: threading.Event) -> bytes:
    """Return the BLAKE3 of the whole file, in constant memory.

    Raises:
        SourceChanged: see there.
        Stopped: `stop` was set.
    """
    digest = Digest()
    descriptor = _open(source)
    try:
        while block := os.read(descriptor, _BLOCK):
            if stop.is_set():
                raise Stopped
            digest.update(block)
        _check(descriptor, source)
    except OSError as error:
        raise SourceChanged from error
    finally:
        os.close(descriptor)
    return digest.digest()


def read_pieces(source: Source, pieces: list[tuple[int, int]]) -> list[bytes]:
    """Return what stands at each ``(offset, length)``.

    Raises:
        SourceChanged: see there.
    """
    descriptor = _open(source)
    try:
        read = [os.pread(descriptor, length, offset) for offset, length in pieces]
        _check(descriptor, source)
    except OSError as error:
        raise SourceChanged from error
    finally:
        os.close(descriptor)
    if [len(data) for data in read] != [length for _, length in pieces]:
        raise SourceChanged
    return read


def _open(source: Source) -> int:
    try:
        # The path had no links when it was offered: one that is there now was put there to have another file sent.
        descriptor = os.open(source.path, _FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        raise SourceChanged from error
    try:
        _check(descriptor, source)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(descriptor: int, source: Source) -> None:
    # Before and after reading: what is written in between shows in the time.
    if _stamp(os.fstat(descriptor)) != source.stamp:
        raise SourceChanged


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}:{status.st_dev}"
