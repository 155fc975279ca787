"""What stands below the relay, in memory: a loop whose clock is ours, and transports that take what a test lets them.

Nothing here waits. :meth:`Loop.run` runs until nothing is ready, :meth:`Loop.advance` moves the clock. An exception in
a callback comes out of either, where asyncio would only log it.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

INFINITE: Final = 1 << 60


class Handle:
    """A callback that can be taken back."""

    def __init__(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._call: Callable[..., object] | None = call
        self._args = args

    def cancel(self) -> None:
        self._call = None

    def run(self) -> None:
        if self._call is not None:
            self._call(*self._args)


class Loop:
    """As much of an event loop as the relay uses, with a clock that stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0

    @property
    def asyncio(self) -> asyncio.AbstractEventLoop:
        """The same, as those see it who ask for asyncio's."""
        return cast("asyncio.AbstractEventLoop", self)

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., object], *args: Any) -> Handle:
        handle = Handle(call, args)
        self.ready.append(handle)
        return handle

    def call_later(self, delay: float, call: Callable[..., object], *args: Any) -> Handle:
        handle = Handle(call, args)
        self._count += 1
        heapq.heappush(self._timers, (self.now + delay, self._count, handle))
        return handle

    def turn(self) -> None:
        """Run what is ready now, not what becomes ready by that."""
        for _ in range(len(self.ready)):
            self.ready.popleft().run()

    def run(self) -> int:
        """Run until nothing is ready; return after how many turns."""
        turns = 0
        while self.ready:
            self.turn()
            turns += 1
            assert turns < 100_000, "the loop never comes to rest"
        return turns

    def advance(self, seconds: float) -> None:
        """Move the clock, running every timer at its time."""
        until = self.now + seconds
        self.run()
        while self._timers and self._timers[0][0] <= until:
            when, _, handle = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            handle.run()
            self.run()
        self.now = until


class Steps:
    """A clock that moves by one unit each time it is read."""

    def __init__(self, unit: float) -> None:
        self.now = 0.0
        self._unit = unit

    def __call__(self) -> float:
        self.now += self._unit
        return self.now


class Transport(asyncio.Transport):
    """A socket whose other end takes `window` bytes more, and which can die under a write."""

    def __init__(self, loop: Loop, peername: tuple[str, int] | None, taken: Callable[[bytes], None]) -> None:
        super().__init__()
        self._loop = loop
        self._peername = peername
        self._taken = taken
        self._buffer = bytearray()
        self._incoming: deque[bytes] = deque()
        self._reading = True
        self._paused = False
        self._eof = False
        self._closing = False
        self._lost = False
        self.protocol: asyncio.Protocol | None = None
        self.window = INFINITE
        self.dies_at_write = False
        self.writes = 0
        self.written = bytearray()

    # --- What the relay calls ----------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peername if name == "peername" else default

    def forget_peer(self) -> None:
        """Be reset: what arrived can be read, and from whom it came cannot be told any more."""
        self._peername = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._eof, "a write after the end of the stream"
        if self.dies_at_write:
            self.die()
        if self._closing:
            return
        self.writes += 1
        self.written += data
        self._buffer += data
        self._drain()
        if self._buffer and not self._paused:
            self._paused = True
            self._serving.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._eof = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        if not self._buffer:
            self._lose()

    def abort(self) -> None:
        self.die()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._pump)

    # --- What the test calls -----------------------------------------------------------------------------------------

    @property
    def reading(self) -> bool:
        """Whether the relay reads."""
        return self._reading

    @property
    def unread(self) -> int:
        """Bytes that the relay has not read yet."""
        return sum(map(len, self._incoming))

    @property
    def ended(self) -> bool:
        """Whether the relay sent the end of the stream, or the socket is gone."""
        return self._eof or self._closing

    def arrive(self, data: bytes) -> None:
        """Let bytes arrive, to be read as one chunk when the relay reads."""
        self._incoming.append(data)
        self._loop.call_soon(self._pump)

    def take(self, size: int) -> None:
        """Let the other end take this many bytes more."""
        self.window += size
        self._drain()
        if not self._buffer:
            if self._closing:
                self._lose()
            elif self._paused:
                self._paused = False
                self._serving.resume_writing()

    def die(self, error: Exception | None = None) -> None:
        """Lose the connection; the relay is told in the next turn."""
        self._closing = True
        self._buffer.clear()
        self._lose(error)

    def hang_up(self) -> None:
        """Send the end of the stream; the relay's transport closes once it has written what it has."""
        if not self._closing and not self._serving.eof_received():
            self.close()

    @property
    def _serving(self) -> asyncio.Protocol:
        assert self.protocol is not None
        return self.protocol

    def _pump(self) -> None:
        if self._reading and self._incoming and not self._closing:
            self._serving.data_received(self._incoming.popleft())
            if self._incoming:
                self._loop.call_soon(self._pump)

    def _drain(self) -> None:
        size = min(self.window, len(self._buffer))
        if size:
            self.window = self.window if self.window >= INFINITE else self.window - size
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._taken(data)

    def _lose(self, error: Exception | None = None) -> None:
        if not self._lost:
            self._lost = True
            self._incoming.clear()
            self._loop.call_soon(self._serving.connection_lost, error)
