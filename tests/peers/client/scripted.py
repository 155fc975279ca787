"""A relay that does what a test says, for what no honest relay does: one script for each connection, the last again.

It speaks by `wire.session.ServerSession` on the server of `websockets`, on a free port of 127.0.0.1.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from keys.identity import SERVER_ID, Identity
from keys.invite import RelayCard
from peers.client import ClientOptions, RelayClient
from wire import commands as c
from wire import frames
from wire.limits import MAX_FRAME
from wire.session import ServerSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from websockets.http11 import Request, Response

    from peers.client import Event

WAIT: Final = 60.0
"""Seconds for anything that is bound to happen: only a failing test waits so long."""

FAST: Final = {"backoff_min": 0.005, "backoff_max": 0.02}

T = TypeVar("T")


class Connection:
    """The relay's end of one connection."""

    def __init__(self, ws: ServerConnection, identity: Identity) -> None:
        self.ws = ws
        self.session = ServerSession(identity)

    async def frame(self) -> bytes:
        async with asyncio.timeout(WAIT):
            message = await self.ws.recv()
        assert isinstance(message, bytes)
        return message

    async def hello(self) -> None:
        self.session.receive_hello(await self.frame())

    async def welcome(self) -> Self:
        """Let the client in."""
        await self.hello()
        await self.ws.send(self.session.accept())
        return self

    async def say(self, *bodies: c.Body) -> None:
        for body in bodies:
            await self.ws.send(self.session.seal(body))

    async def deliver(self, sender_id: bytes, packet: bytes) -> None:
        await self.ws.send(frames.build_frame(self.session.mask_out, sender_id, packet))

    async def heard(self) -> c.ClientBody | tuple[bytes, bytes]:
        """Return the next command, or (recipient, packet)."""
        party_id, packet = frames.parse_frame(self.session.mask_in, await self.frame())
        return self.session.open_command(packet) if party_id == SERVER_ID else (party_id, packet)

    async def stay(self) -> None:
        """Read until the client goes."""
        with suppress(ConnectionClosed):
            while True:
                await self.ws.recv()


class ScriptedRelay:
    """See above. `answers` are (status, headers) that the first openings get instead of a WebSocket."""

    def __init__(
        self,
        *scripts: Callable[[Connection], Awaitable[None]],
        answers: list[tuple[int, Mapping[str, str]]] | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.identity = identity or Identity.generate()
        self.scripts = list(scripts)
        self.answers = list(answers or [])
        self.requests: list[Request] = []
        self.connections = 0
        self.failed: list[BaseException] = []
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._handle,
            "127.0.0.1",
            0,
            process_request=self._answer,
            compression=None,
            max_size=MAX_FRAME,
            ping_interval=None,
            close_timeout=1,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for ws in list(self._server.connections):
            ws.transport.abort()
        await self._server.wait_closed()
        assert self.failed == []

    def _answer(self, ws: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if not self.answers:
            return None
        status, headers = self.answers.pop(0)
        response = ws.respond(HTTPStatus(status), "no\n")
        for name, value in headers.items():
            response.headers[name] = value
        return response

    async def _handle(self, ws: ServerConnection) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        try:
            await script(Connection(ws, self.identity))
        except ConnectionClosed:
            return  # the client went
        except BaseException as error:
            self.failed.append(error)
            raise

    @property
    def card(self) -> RelayCard:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return RelayCard(self.identity.public, f"ws://127.0.0.1:{port}/ws")

    def client(self, identity: Identity | None = None, **options: object) -> RelayClient:
        chosen = {**FAST, **options}
        return RelayClient(identity or Identity.generate(), self.card, ClientOptions(**chosen))  # type: ignore[arg-type]


async def next_event(client: RelayClient) -> Event:
    async with asyncio.timeout(WAIT):
        return await anext(aiter(client))


async def expect(client: RelayClient, kind: type[T]) -> T:
    """Return what comes next, which must be of this kind."""
    event = await next_event(client)
    assert isinstance(event, kind), f"{event!r} instead of {kind.__name__}"
    return event


async def until(client: RelayClient, kind: type[T]) -> T:
    """Return the next event of this kind, whatever comes before."""
    while True:
        event = await next_event(client)
        if isinstance(event, kind):
            return event


async def eventually(true: Callable[[], bool], what: str) -> None:
    """Wait until something that cannot be awaited is so."""
    async with asyncio.timeout(WAIT):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert true(), what
