"""One process of a profile carries its messages, and another takes over when that one ends."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final, Protocol, Self

from peers.carrier.carrier import Carrier

_LOOK: Final = 0.25
"""Seconds between attempts to get the lock while another process has it; an attempt is one system call."""


class Lock(Protocol):
    """What says who carries; the system takes it back from a process that is killed."""

    def acquire(self) -> bool:
        """Take it if nobody has it."""

    def release(self) -> None:
        """Give it back."""


class Keeper:
    """Carries while it runs, whenever no other process does.

    ``async with Keeper(lock, make) as keeper:`` begins; :meth:`failure` raises what ends it early.

    Args:
        lock: the profile's.
        make: gives a new carrier.

    Attributes:
        carrying: the carrier, while it is this process that carries.
    """

    _task: asyncio.Task[None]

    def __init__(self, lock: Lock, make: Callable[[], Carrier]) -> None:
        self._lock = lock
        self._make = make
        self._tried = asyncio.Event()
        self.carrying: Carrier | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="keeper")
        tried = asyncio.create_task(self._tried.wait())
        await asyncio.wait([self._task, tried], return_when=asyncio.FIRST_COMPLETED)
        tried.cancel()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)  # what it raised is for whoever waits for failure()

    async def failure(self) -> None:
        """Wait until nothing can be carried any more, and raise why: see :meth:`Carrier.failure`."""
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            while not self._lock.acquire():
                self._tried.set()
                await asyncio.sleep(_LOOK)
        except BaseException:
            self._tried.set()
            raise
        async with AsyncExitStack() as stack:
            stack.callback(self._lock.release)
            carrier = await stack.enter_async_context(self._make())
            self.carrying = carrier
            self._tried.set()
            try:
                await carrier.failure()
            finally:
                self.carrying = None
