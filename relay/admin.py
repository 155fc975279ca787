"""The admin listener: `/metrics`, `/sessions`, `/healthz` and `/readyz` for the operator, on an address of its own.

It is apart so that a proxy which passes everything on does not publish it. It shares the event loop with the data path,
so whatever it does is short: texts are made once a second at most, counting goes in slices, connections are few and
end after one request or a deadline.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from relay.census import Census
from relay.metrics import Exposition
from relay.pages import HEALTH_PATH, READY_PATH, TOO_LARGE
from relay.replies import NO_STORE, Reply, json_reply
from relay.requests import Page, Request, answer, not_allowed, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.core import Core
    from relay.limits import Limits

METRICS_PATH: Final = "/metrics"
SESSIONS_PATH: Final = "/sessions"
MAX_CONNECTIONS: Final = 16
"""Open at once: two scrapers, a person and what they left open. More are closed, unread."""

MISSING: Final = Reply(HTTPStatus.NOT_FOUND, "/metrics, /sessions, /healthz, /readyz\n")
_BAD: Final = Reply(HTTPStatus.BAD_REQUEST, "This is no HTTP request that a relay understands.\n")


class Desk(ABC):
    """Listens, and has each request answered.

    Args:
        loop: runs it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.connections: set[AdminConnection] = set()
        self._server: asyncio.Server | None = None

    @property
    @abstractmethod
    def limits(self) -> "Limits":
        """What bounds a request: `request_size` and `opening_deadline`."""

    @abstractmethod
    def ask(self, request: Request, then: Callable[[Reply], None]) -> None:
        """Call `then` with the answer, now or later."""

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Listen; return the port. With `reuse_port` another relay of the same user may listen there as well.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._server = await self.loop.create_server(
            lambda: AdminConnection(self), host, port, backlog=16, reuse_port=reuse_port or None
        )
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no longer, and cut what is open."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()


class Admin(Desk):
    """Listens and answers for one relay in this process.

    Args:
        core: the relay.
    """

    def __init__(self, core: "Core") -> None:
        super().__init__(core.loop)
        self.core = core
        self.census = Census(core)
        self._exposition = Exposition(core)
        self._pages: Mapping[str, Page] = {METRICS_PATH: self._metrics}

    @property
    def limits(self) -> "Limits":
        """The relay's."""
        return self.core.limits

    def ask(self, request: Request, then: Callable[[Reply], None]) -> None:
        """Answer; `/sessions` takes its time."""
        if request.path != SESSIONS_PATH:
            then(self.answer(request))
        elif request.method not in ("GET", "HEAD"):
            then(not_allowed("GET, HEAD"))
        else:
            self.census.take(lambda report: then(json_reply(report, NO_STORE)))

    def answer(self, request: Request) -> Reply:
        """Answer all but `/sessions`."""
        pages = self.core.pages
        return answer(request, {**self._pages, HEALTH_PATH: pages.alive, READY_PATH: pages.ready}, MISSING)

    def _metrics(self, request: Request) -> Reply:
        text, content_type = self._exposition.text(request.headers.get("accept", ""))
        return Reply(HTTPStatus.OK, text, content_type, NO_STORE)


class AdminConnection(asyncio.Protocol):
    """One connection: one request, one answer."""

    def __init__(self, admin: Desk) -> None:
        self._admin = admin
        self._buffer = bytearray()
        self._answered = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, for as long as an opening may take; close at once what is too many."""
        self._transport = cast("asyncio.Transport", transport)
        admin = self._admin
        if len(admin.connections) >= MAX_CONNECTIONS:
            self._transport.abort()
            return
        admin.connections.add(self)
        # It stands until the connection is gone: whoever does not take the answer is cut off by it too.
        self._deadline = admin.loop.call_later(admin.limits.opening_deadline, self.abort)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the request."""
        if self._answered:
            return
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n") + 4
        if (end if end >= 4 else len(self._buffer)) > self._admin.limits.request_size:
            self._reply(TOO_LARGE.encode())
        elif end >= 4:
            self._request(bytes(self._buffer[:end]))

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget it."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._admin.connections.discard(self)
        self._transport = None

    def abort(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()

    def _request(self, head: bytes) -> None:
        request = parse(head)
        if request is None:
            self._reply(_BAD.encode())
        else:
            self._answered = True
            self._admin.ask(request, lambda reply: self._reply(reply.encode(with_body=request.wants_body)))

    def _reply(self, data: bytes) -> None:
        self._answered = True
        self._buffer.clear()
        if self._transport is not None:
            self._transport.write(data)
            self._transport.close()
