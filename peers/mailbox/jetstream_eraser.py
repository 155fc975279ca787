"""Overwrites what was deleted, behind those who deleted it: NATS syncs each overwriting by itself, some milliseconds.

What is to be overwritten stands in the stream's sums, written with the commit that deleted it. So a process that is
killed leaves it to the next one, or to another on the same stream; to overwrite twice does nothing.
"""

import asyncio
from typing import Final

from peers.mailbox.jetstream_link import Link
from peers.mailbox.jetstream_writer import Writer
from peers.mailbox.store import StoreError

ERASING_MAX: Final = 2048
"""Contents that may wait to be overwritten; beyond, whoever deletes waits. They are named in each commit: 16 KiB."""
_UNDER_WAY: Final = 8
_RETRY: Final = 1.0
"""Seconds after a failure: NATS is away, and nothing tells when it is back but asking."""


class Eraser:
    """For one event loop; made within it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._writer: Writer
        self._wanted = asyncio.Event()
        self._moved = asyncio.Condition()
        self._failed: StoreError | None = None
        self._task: asyncio.Task[None]

    def start(self, writer: Writer) -> None:
        """Begin."""
        self._writer = writer
        self._task = asyncio.create_task(self._work())

    def wake(self) -> None:
        """Say that there may be something to overwrite."""
        self._wanted.set()

    async def below(self, most: int) -> None:
        """Wait until at most so many contents wait.

        Raises:
            StoreError: NATS cannot be reached meanwhile.
        """
        if self._writer.waiting <= most:
            return
        async with self._moved:
            while self._writer.waiting > most:
                if self._failed is not None:
                    raise StoreError(str(self._failed)) from self._failed
                self._wanted.set()
                await self._moved.wait()

    async def close(self) -> None:
        """Stop; what is left is done after the next start."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _work(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            waiting = sorted(self._writer.erasing)[:_UNDER_WAY]
            try:
                await asyncio.gather(*(self._erase(seq) for seq in waiting))
                self._failed = None
            except StoreError as error:
                self._failed = error
            async with self._moved:
                self._moved.notify_all()
            if self._failed is not None:
                await asyncio.sleep(_RETRY)
            if self._writer.waiting:
                self._wanted.set()

    async def _erase(self, seq: int) -> None:
        await self._link.erase(seq)
        self._writer.overwritten(seq)
