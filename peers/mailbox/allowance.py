"""How much may be under way at once: so many requests, and so many bytes of them."""

import asyncio
from collections import deque


class Allowance:
    """Requests and their bytes that are under way. For one event loop.

    Args:
        count: most requests.
        size: most bytes; one request alone may have more.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._taken = 0
        self._bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        """How many requests are under way."""
        return self._taken

    def _fits(self, size: int) -> bool:
        return self._taken < self._count and (not self._taken or self._bytes + size <= self._size)

    async def take(self, size: int) -> None:
        """Begin a request, once there is room."""
        while not self._fits(size):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
        self._taken += 1
        self._bytes += size

    def give_back(self, size: int) -> None:
        """End a request."""
        self._taken -= 1
        self._bytes -= size
        self._wake()

    async def idle(self) -> None:
        """Return once nothing is under way."""
        while self._taken:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def _wake(self) -> None:
        # All of them, for each looks again: they are the one reader of a face, and who waits for its end.
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
