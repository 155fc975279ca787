"""A file that other programs append lines to, followed through restarts, truncation and rotation.

Everything here blocks, and is called in a thread. The position that comes with the lines is kept in the transaction
that keeps the messages made of them: so each line is sent once, wherever the program is killed.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from peers.chat.bridge.lines import LINE_MAX, Line, Splitter

_PIECE: Final = 1 << 18
"""Bytes that are read in one go."""
_HEAD: Final = 256
"""Bytes of the beginning of a file by which it is known again. An inode alone is not enough: a new file may get that of
one that was just removed."""


class Unwatchable(Exception):
    """The file cannot be followed; the text says why."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a file was read.

    Attributes:
        inode: of the file; 0 as long as there is none.
        offset: bytes up to which its lines were taken.
        head: bytes at its beginning that `digest` is of.
        digest: SHA-256 of them, in hex.
    """

    inode: int = 0
    offset: int = 0
    head: int = 0
    digest: str = ""

    def encode(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :meth:`encode` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Batch:
    """What a look at the file gave.

    Attributes:
        lines: the new ones.
        position: where they end.
        note: something the user should know, if anything.
    """

    lines: list[Line]
    position: Position
    note: str = ""


class Tail:
    """Follows a file by its name.

    A line counts once its end is there. A file that takes the name's place is read from its beginning, after what was
    left in the one before, which may have got another name in the same directory; a last line of that without an end
    will get none any more, and is taken as it is. A file that became shorter, or begins otherwise than before, is read
    from its beginning.

    Args:
        path: the file, which may not be there yet. A symbolic link is followed.
        position: how far it was read before; None the first time, when what is in it already is not taken.
    """

    def __init__(self, path: Path, position: Position | None) -> None:
        self._path = path
        self._position = position
        self._file: int | None = None
        self._read_to = 0
        self._splitter = Splitter()
        self._still = False
        self._note = ""

    @property
    def position(self) -> Position:
        """How far the lines were taken."""
        return self._position or Position()

    def look(self) -> Batch | None:
        """Return what is new; None if nothing is.

        Raises:
            Unwatchable: the file is none that can be followed, or may not be read.
        """
        before = self._position
        try:
            lines = self._look()
        except OSError as error:
            raise Unwatchable(f"cannot read {self._path}: {error.strerror}") from None
        note, self._note = self._note, ""
        if not lines and not note and self._position == before:
            return None
        return Batch(lines, self.position, note)

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _look(self) -> list[Line]:
        if self._file is None and not self._open_first():
            return []
        file = self._file
        if file is None:
            raise RuntimeError("a file that was opened is open")
        if os.fstat(file).st_size < self._read_to or not self._begins_as_before(file):
            self._begin(file, "it became shorter or was written anew: reading from its beginning")
        piece = os.pread(file, _PIECE, self._read_to)
        if piece:
            self._still = False
            self._read_to += len(piece)
            return self._take(file, self._splitter.feed(piece))
        return self._after_end(file)

    def _after_end(self, file: int) -> list[Line]:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return []  # between two steps of a rotation; until there is another file, this one may still grow
        here = os.fstat(file)
        if (now.st_dev, now.st_ino) == (here.st_dev, here.st_ino):
            return []
        if not self._still:
            # Whoever writes may still have the old file open, and does not know of its new name at once.
            self._still = True
            return []
        lines = self._take(file, self._splitter.end())
        self.close()
        self._position = Position()
        new = self._open(self._path)
        if new is not None:
            self._file = new
            self._begin(new, "")
        return lines

    # --- Where to begin -----------------------------------------------------------------------------------------------

    def _open_first(self) -> bool:
        """Open the file that was read last, or the one of our name; tells whether there is one."""
        if self._position is not None and self._position.inode:
            for path in (self._path, *self._siblings()):
                found = self._open(path)
                if found is None:
                    continue
                if self._is_it(found, self._position):
                    self._file, self._read_to = found, self._position.offset
                    self._splitter = Splitter()
                    return True
                os.close(found)
        new = self._open(self._path)
        if new is None:
            if self._position is None:
                self._position = Position()
            return False
        self._file = new
        if self._position is None:
            self._begin(new, "", at=self._last_line(new))
        else:
            self._begin(new, "it is another file now, read from its beginning" if self._position.inode else "")
        return True

    def _begin(self, file: int, note: str, at: int = 0) -> None:
        self._splitter = Splitter()
        self._read_to = at
        self._note = f"{self._path}: {note}" if note else self._note
        self._move_to(file, at)

    def _siblings(self) -> Iterator[Path]:
        """Files beside ours that have the inode of the one that was read last: what a rotation has made of it."""
        if self._position is None:
            return
        with suppress(OSError), os.scandir(self._path.parent) as entries:
            for entry in entries:
                if entry.inode() == self._position.inode and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)

    def _open(self, path: Path) -> int | None:
        try:
            # Without O_NONBLOCK a pipe under this name would hold us until somebody writes to it.
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise Unwatchable(f"{path} is not a regular file; a pipe belongs on stdin")
        return file

    @staticmethod
    def _is_it(file: int, position: Position) -> bool:
        there = os.fstat(file)
        if there.st_ino != position.inode or there.st_size < position.offset:
            return False
        return _digest(os.pread(file, position.head, 0)) == position.digest

    @staticmethod
    def _last_line(file: int) -> int:
        """Where the line begins whose end has not come yet; the end of the file if the last one is whole."""
        size = os.fstat(file).st_size
        start = max(size - LINE_MAX, 0)
        end = os.pread(file, size - start, start).rfind(b"\n")
        return start + end + 1 if end >= 0 or start == 0 else size

    # --- How far ------------------------------------------------------------------------------------------------------

    def _take(self, file: int, lines: list[Line]) -> list[Line]:
        if lines:
            self._move_to(file, self.position.offset + sum(len(line.raw) for line in lines))
        return lines

    def _move_to(self, file: int, offset: int) -> None:
        size = min(offset, _HEAD)
        known = self._position
        inode = os.fstat(file).st_ino
        if known is not None and known.inode == inode and known.head == size:
            digest = known.digest
        else:
            digest = _digest(os.pread(file, size, 0))
        self._position = Position(inode, offset, size, digest)

    def _begins_as_before(self, file: int) -> bool:
        position = self.position
        return _digest(os.pread(file, position.head, 0)) == position.digest


def _digest(head: bytes) -> str:
    return hashlib.sha256(head).hexdigest()
