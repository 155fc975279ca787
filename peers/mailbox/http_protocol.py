"""uvicorn's HTTP protocol with the bounds that it lacks: on connections, on what a request may be, and on its time.

uvicorn bounds how long an idle connection is kept, and nothing else: headers may be without end, arrive a byte a
minute, and be followed by thousands of requests in one packet; an answer that nobody takes stays in memory. Here each
of these ends the connection. Proxies that stand in front do all this too; a mailbox may stand alone.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from peers.mailbox.forwarded import Proxies
from peers.mailbox.quotas import address_key
from wire.mailbox_http import REQUEST_MAX

HEAD_MAX: Final = 16 * 1024
"""Most bytes of a request's line and headers, but for what one read of the socket brings beyond."""
_REQUEST_MAX: Final = REQUEST_MAX + 2 * HEAD_MAX
"""Most bytes of one request as it travels, chunks and all."""
_PIPELINE_MAX: Final = 8
_SWEEP: Final = 1.0


@dataclass(slots=True)
class Doors:
    """What the connections of one listener share.

    Attributes:
        connections: most of them; beyond it they are hung up on.
        of_address: most of one address that is no trusted proxy.
        request: seconds for a request to arrive and be answered, and as long again for the answer to be taken.
        turned_away: is told why one was refused.
    """

    connections: int
    of_address: int
    request: float
    proxies: Proxies
    turned_away: Callable[[str], None]
    open: set["BoundedProtocol"] = field(default_factory=set)
    by_address: dict[bytes, int] = field(default_factory=dict)

    async def sweep(self) -> None:
        """Cut connections that take too long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(_SWEEP, self.request / 4))
            now = loop.time()
            for connection in [each for each in self.open if each.is_late(now)]:
                self.turned_away("too_slow")
                connection.transport.abort()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Made by :func:`bounded` for the doors of its listener."""

    doors: Doors

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline = float("inf")
        self._received = 0
        self._in_head = True
        self._let_in = False
        self._key: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        doors = self.doors
        # From the first byte on, and before: who connects and says nothing holds a place too.
        self._extend()
        if len(doors.open) >= doors.connections:
            self._turn_away("connections")
            return
        peer = None if self.client is None else self.client[0]
        if peer is not None and not doors.proxies.trusts(peer):
            key = address_key(peer.partition("%")[0])
            if doors.by_address.get(key, 0) >= doors.of_address:
                self._turn_away("address_connections")
                return
            self._key = key
            doors.by_address[key] = doors.by_address.get(key, 0) + 1
        self._let_in = True
        doors.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        doors = self.doors
        doors.open.discard(self)
        if self._key is not None:
            doors.by_address[self._key] -= 1
            if not doors.by_address[self._key]:
                del doors.by_address[self._key]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._let_in:
            return
        if (self.cycle is None or self.cycle.response_complete) and not self._received:
            self._extend()
        self._received += len(data)
        super().data_received(data)
        if self._received > (HEAD_MAX if self._in_head else _REQUEST_MAX):
            self._turn_away("too_large")

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
        if len(self.pipeline) > _PIPELINE_MAX:
            self._turn_away("too_large")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._received = 0
        self._in_head = True

    def on_response_complete(self) -> None:
        # For the answer to be taken; the idle time of uvicorn is shorter, but waits for what is not taken.
        self._extend()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self.doors.turned_away("malformed")
        super().send_400_response(msg)

    def is_late(self, now: float) -> bool:
        """Tell whether it takes too long, by the loop's clock. Whoever took all and asks nothing is only idle."""
        if now <= self.deadline:
            return False
        answered = self.cycle is not None and self.cycle.response_complete and not self._received
        return not answered or self.transport.get_write_buffer_size() > 0

    def _extend(self) -> None:
        self.deadline = self.loop.time() + 2 * self.doors.request

    def _turn_away(self, reason: str) -> None:
        if not self.transport.is_closing():
            self.doors.turned_away(reason)
            self.transport.abort()


def bounded(doors: Doors) -> type[BoundedProtocol]:
    """Return the protocol of a listener with these doors."""
    return type("BoundedProtocol", (BoundedProtocol,), {"doors": doors})
