"""Where received files are written while they come. All of it blocks: it is run in threads."""

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from keys.primitives import Digest
from peers.store.file_rows import content_name, part_name
from peers.store.sources import Stopped

_BLOCK: Final = 1024 * 1024


class Part:
    """A file that is not whole yet. Its path is made of the number of its message alone.

    Methods may be called from several threads; after :meth:`close` none of them writes. They raise OSError.

    Args:
        files_dir: where received files lie.
        message: the number.
        size: bytes of the whole.
    """

    def __init__(self, files_dir: Path, message: int, size: int) -> None:
        self._path = files_dir / part_name(message)
        self._final = files_dir / content_name(message)
        self._size = size
        # Held while the descriptor is used: closed by another thread, its number could be another file's by then.
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._closed = False

    def holds(self, end: int) -> bool:
        """Tell whether what was written down about it can be true: it has `end` bytes at least."""
        with self._lock:
            if not self._path.exists() and self._final.exists():
                # Whole and renamed, and then we were killed before that was written down.
                self._final.rename(self._path)
            try:
                return self._path.stat().st_size >= end
            except FileNotFoundError:
                return end == 0

    def write(self, pieces: list[tuple[int, bytes]]) -> None:
        """Write each ``(offset, data)``."""
        with self._lock:
            if self._closed:
                return
            descriptor = self._open()
            for offset, data in pieces:
                view = memoryview(data)
                while view:
                    written = os.pwrite(descriptor, view, offset)
                    view, offset = view[written:], offset + written

    def finish(self, digest: bytes | None, stop: threading.Event) -> bool:
        """Make it last and give it its final name; False if it is not what was offered.

        Raises:
            Stopped: `stop` was set, or it was closed.
        """
        with self._lock:
            if self._closed:
                raise Stopped
            descriptor = self._open()
            if os.fstat(descriptor).st_size < self._size:
                return False
            os.ftruncate(descriptor, self._size)
            if digest is not None and self._digest(descriptor, stop) != digest:
                return False
            os.fsync(descriptor)
            self._path.rename(self._final)
            directory = os.open(self._final.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with suppress(OSError):  # a file system that cannot
                    os.fsync(directory)
            finally:
                os.close(directory)
            return True

    def clear(self) -> None:
        """Begin anew."""
        with self._lock:
            if not self._closed:
                os.ftruncate(self._open(), 0)

    def close(self) -> None:
        """Let go of it; what was written stays."""
        with self._lock:
            self._closed = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def remove(self) -> None:
        """Let go of it, and remove what was written if that can be removed."""
        self.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
        return self._descriptor

    def _digest(self, descriptor: int, stop: threading.Event) -> bytes:
        digest = Digest()
        offset = 0
        while block := os.pread(descriptor, _BLOCK, offset):
            if stop.is_set():
                raise Stopped
            digest.update(block)
            offset += len(block)
        return digest.digest()


def make_directory(files_dir: Path) -> None:
    """Make it, closed to others. Where it cannot be made, there is no room in it, and senders are told so."""
    with suppress(OSError):
        files_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def remove_stored(files_dir: Path, messages: list[int]) -> list[int]:
    """Remove the stored files of these messages, whole or not; returns the messages of which nothing is left."""
    removed = []
    for message in messages:
        with suppress(OSError):
            (files_dir / content_name(message)).unlink(missing_ok=True)
            (files_dir / part_name(message)).unlink(missing_ok=True)
            removed.append(message)
    return removed


def room(files_dir: Path, spare: int) -> int:
    """Return how many bytes may still be written there when `spare` are left to everybody else."""
    try:
        return max(0, shutil.disk_usage(files_dir).free - spare)
    except OSError:
        return 0
