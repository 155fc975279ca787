"""The standard streams of a program that runs an event loop, each in a thread of its own.

Neither a pipe whose reader rests nor one whose writer is silent may hold the event loop up, and asyncio's own pipes
would set O_NONBLOCK on what the program shares with its parent. The threads are daemons that wait in a system call and
hold no lock of Python's buffers, so a program ends whenever it wants to, whatever its streams do.
"""

import asyncio
import os
import select
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

_PIECE: Final = 1 << 16
"""Bytes that are read in one go: what a pipe of Linux holds."""


def hold_standard_streams() -> None:
    """Open the null device for each standard stream that is closed. The next file that is opened would get its number,
    and what is meant for stdout would be written into it. To be called before anything is opened."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


class Input:
    """Bytes as they come. Nothing is read that nobody asked for, so a writer waits as its pipe is full.

    Args:
        descriptor: an open file; it stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._asked: SimpleQueue[tuple[asyncio.Future[bytes], asyncio.AbstractEventLoop]] = SimpleQueue()
        self._next: asyncio.Future[bytes] | None = None
        threading.Thread(target=self._run, name=f"read-{descriptor}", daemon=True).start()

    async def read(self) -> bytes:
        """Return what comes next, 1 to 65,536 bytes; none at the end. A cancelled call loses nothing.

        Raises:
            OSError: it cannot be read.
        """
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            self._asked.put((self._next, loop))
        piece = await asyncio.shield(self._next)
        self._next = None
        return piece

    def _run(self) -> None:
        while True:
            future, loop = self._asked.get()
            try:
                piece = self._read()
            except OSError as error:
                _tell(loop, future, None, error)
            else:
                _tell(loop, future, piece, None)

    def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, _PIECE)
            except BlockingIOError:  # somebody who shares it has set O_NONBLOCK
                select.select([self._descriptor], [], [])


class Output:
    """Takes bytes.

    Args:
        descriptor: an open file; it stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._given: SimpleQueue[tuple[bytes, asyncio.Future[bytes], asyncio.AbstractEventLoop]] = SimpleQueue()
        threading.Thread(target=self._run, name=f"write-{descriptor}", daemon=True).start()

    async def write(self, raw: bytes) -> None:
        """Write `raw`, whole; returns when the operating system has it.

        Raises:
            OSError: it cannot be written; BrokenPipeError if nobody reads any more.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()
        self._given.put((raw, done, loop))
        await done

    def _run(self) -> None:
        while True:
            raw, future, loop = self._given.get()
            try:
                self._write(raw)
            except OSError as error:
                _tell(loop, future, None, error)
            else:
                _tell(loop, future, b"", None)

    def _write(self, raw: bytes) -> None:
        rest = memoryview(raw)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])


def _tell(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[bytes]", value: bytes | None, error: OSError | None
) -> None:
    with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
        loop.call_soon_threadsafe(_settle, future, value, error)


def _settle(future: "asyncio.Future[bytes]", value: bytes | None, error: OSError | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    elif value is not None:
        future.set_result(value)
