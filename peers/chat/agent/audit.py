"""What an agent did, written down for its operator: lines of JSON in ``audit.jsonl`` of the profile.

    {"at": "2026-01-31T12:00:00.000Z", "agent": "agent", "tool": "send_message", "outcome": "done", …}

What acts on others is written down before it is done too, with the outcome ``began``: nothing is done that cannot be
written. Texts stand in it only if the operator asked for them; their sizes always do.
"""

import asyncio
import errno
import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from peers.chat.views import stamp

NAME: Final = "audit.jsonl"
SIZE: Final = 10 << 20
"""Bytes after which a file is put aside."""
KEPT: Final = 5
"""Files put aside that are kept: ``audit.jsonl.1`` is the newest."""
_MODE: Final = 0o600


class AuditFailed(Exception):
    """It cannot be written. The text names the file."""


class Audit:
    """The log of one profile; several processes may write to it.

    Args:
        path: the file, made with mode 0600 where it is missing.
        agent: stands in each line.
        texts: whether texts are written too.
        size: bytes after which a file is put aside.
    """

    def __init__(self, path: Path, agent: str, *, texts: bool, size: int = SIZE) -> None:
        self._path = path
        self._agent = agent
        self._size = size
        self.texts = texts

    async def write(self, now: int, tool: str, outcome: str, **more: Any) -> None:
        """Write a line; returns once the operating system has it.

        Args:
            now: milliseconds since 1970.
            tool: which one was called.
            outcome: ``began``, ``done``, ``refused``, ``failed``, ``cancelled``, or what the tool has to say.
            more: whatever belongs to it; never a text unless :attr:`texts` is set.

        Raises:
            AuditFailed: it cannot be written.
        """
        record = {"at": stamp(now), "agent": self._agent, "tool": tool, "outcome": outcome, **more}
        raw = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._append, raw)
        except OSError as error:
            raise AuditFailed(f"cannot write {self._path}: {error.strerror}") from None

    def _append(self, raw: bytes) -> None:
        while True:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
            try:
                # Whoever put it aside while we waited for the lock has left another one under its name.
                fcntl.flock(file, fcntl.LOCK_EX)
                if not self._is_current(file):
                    continue
                size = os.fstat(file).st_size
                if size and size + len(raw) > self._size:
                    self._put_aside()
                    continue
                self._write(file, raw, size)
                return
            finally:
                os.close(file)

    def _is_current(self, file: int) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        here = os.fstat(file)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _put_aside(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, KEPT + 1))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            with suppress(FileNotFoundError):
                newer.replace(older)

    @staticmethod
    def _write(file: int, raw: bytes, size: int) -> None:
        if os.write(file, raw) != len(raw):
            os.ftruncate(file, size)  # half a line would spoil the next one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
