"""The events that came and were not taken yet: bounded, for one producer and one consumer."""

import asyncio
from collections import deque

from peers.client.events import Event
from wire.errors import LocalError


class Inbox:
    """A queue with an end.

    Args:
        size: how many may wait; :meth:`put` waits beyond that.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._events: deque[Event] = deque()
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        self._taking = False

    def __len__(self) -> int:
        return len(self._events)

    async def put(self, event: Event) -> None:
        """Add an event, once there is room."""
        while len(self._events) >= self._size:
            self._room.clear()
            await self._room.wait()
        self._events.append(event)
        self._some.set()

    async def take(self) -> Event | None:
        """Return the next event, or None after the last. Whoever is cancelled here has taken none.

        Raises:
            LocalError: somebody else waits for one already.
        """
        if self._taking:
            raise LocalError("the events of a relay client have one consumer")
        self._taking = True
        try:
            while not self._events:
                if self._ended:
                    return None
                self._some.clear()
                await self._some.wait()
        finally:
            self._taking = False
        self._room.set()
        return self._events.popleft()

    def end(self) -> None:
        """Say that no more will come; those that wait can still be taken."""
        self._ended = True
        self._some.set()
