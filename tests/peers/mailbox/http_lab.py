"""The HTTP face of a mailbox on a free port, and a client for it that knows the framing."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from keys.invite import MailboxCard
from keys.pickup import answer_challenge
from peers.mailbox.forwarded import Proxies
from peers.mailbox.http_face import HttpFace
from peers.mailbox.http_protocol import Doors, bounded
from peers.mailbox.http_server import HttpServer
from peers.mailbox.meter import Metrics
from peers.mailbox.settings_limits import LimitSettings
from peers.mailbox.trouble import Trouble
from tests.peers.mailbox.lab import BOX
from wire import mailbox_http as framing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from keys.identity import Identity, PublicIdentity
    from peers.mailbox.core import Mailbox
    from tests.peers.mailbox.lab import Box

URL: Final = "https://mailbox.example/box"


class Asker:
    """A client over HTTP.

    Args:
        base: where the mailbox is dialled.
        url: its address as its card has it.
    """

    def __init__(self, base: str, url: str = URL, box: PublicIdentity = BOX) -> None:
        self.base = base
        self.url = url
        self.box = box
        self.headers: dict[str, str] = {}
        self.session = aiohttp.ClientSession()

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.session.close()

    async def post(self, path: str, body: Any) -> tuple[int, bytes]:
        async with self.session.post(self.base + path, data=body, headers=self.headers) as answer:
            return answer.status, await answer.read()

    async def says(self, request: framing.OurRequest, who: Identity | None = None) -> Any:
        """Ask, with a proof if it is for somebody; return the answer."""
        proof = b""
        if who is not None:
            challenge = await self.challenge(who)
            arguments = framing.arguments_of(request)
            proof = answer_challenge(who, self.box, self.url, request.command, arguments, challenge)
        body = framing.encode_request(request, b"" if who is None else who.public.x_pub, proof)
        status, told = await self.post(framing.path_of(request), body)
        answer = framing.parse_answer(told)
        assert framing.status_of(answer) == status
        return answer

    async def challenge(self, who: Identity) -> bytes:
        status, challenge = await self.post(framing.CHALLENGE_PATH, who.public.x_pub)
        assert status == 200
        return challenge


class Served:
    """A mailbox that is served over HTTP."""

    def __init__(self, port: int, asker: Asker, metrics: Metrics, server: HttpServer, doors: Doors) -> None:
        self.port = port
        self.asker = asker
        self.metrics = metrics
        self.server = server
        self.doors = doors

    def figure(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"blindrelay_mailbox_{name}", labels) or 0.0

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@asynccontextmanager
async def served(
    mailbox: Mailbox, box: Box | None = None, proxies: str = "", send_buffer: int | None = None, **limits: Any
) -> AsyncIterator[Served]:
    """Serve a mailbox on a free port; the time is that of `box`, if there is one."""
    settings = LimitSettings(**limits)
    metrics = Metrics(mailbox)
    trusted = Proxies.parse(proxies)
    moment = {} if box is None else {"moment": lambda _: box.at}
    card = MailboxCard(BOX, URL)
    face = HttpFace(mailbox, card, trusted, settings, metrics, Trouble(metrics), **moment)
    doors = Doors(settings.connections, settings.address_connections, settings.request, trusted, metrics.turned_away)
    server = HttpServer(face.app, bounded(doors), settings.idle, settings.stop)
    port = server.start("127.0.0.1", 0)
    if send_buffer is not None:
        # Connections have that of the socket that they came by: with a small one the kernel takes little of an answer.
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    sweeping = asyncio.create_task(doors.sweep())
    try:
        async with Asker(f"http://127.0.0.1:{port}") as asker:
            yield Served(port, asker, metrics, server, doors)
    finally:
        sweeping.cancel()
        server.hurry()
        await server.close()
