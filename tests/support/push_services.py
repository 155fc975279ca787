"""A push service as browsers have it, on 127.0.0.1, and the browser behind it: real keys, real decryption."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import http_ece
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02
from py_vapid.jwt import decode

from peers.notifier.endpoints import AllowedHost
from peers.notifier.outbound import Outbound, Timeouts

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

WAIT = 30.0
PATIENT = Timeouts(connect=WAIT, answer=WAIT, total=WAIT)


def allow(*urls: str, timeouts: Timeouts = PATIENT, tls: ssl.SSLContext | None = None) -> Outbound:
    """The HTTP client of the channels, that may go to these services of 127.0.0.1."""
    return Outbound([AllowedHost.parse(url) for url in urls], timeouts=timeouts, tls=tls)


class Browser:
    """What a browser keeps of a subscription (RFC 8291 §2.1, §3): its own key pair and the authentication secret."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._auth = os.urandom(16)

    def token(self) -> bytes:
        """The JSON of PushSubscription.toJSON(), which a client registers."""
        public = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": _encode(public), "auth": _encode(self._auth)}
        return json.dumps({"endpoint": self.endpoint, "expirationTime": None, "keys": keys}).encode()

    def decrypt(self, body: bytes) -> bytes:
        content: bytes = http_ece.decrypt(body, private_key=self._private, auth_secret=self._auth, version="aes128gcm")
        return content


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def vapid(self) -> tuple[dict[str, Any], str]:
        """Check the Authorization header as a push service does; return the claims and the key that signed them."""
        header = self.headers["Authorization"]
        assert Vapid02.verify(header)
        token, _, key = header.removeprefix("vapid t=").partition(",k=")
        claims: dict[str, Any] = decode(token, key)
        return claims, key


class PushService:
    """An HTTP server that keeps what it gets and answers as it is told, 201 by default."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: asyncio.Queue[Received] = asyncio.Queue()
        self.answers: list[Answer] = []
        """Taken from the front, one for each request; the last stays."""
        self.count = 0
        self.url = ""
        self._tls = tls

    def answer(self, status: int = 201, body: bytes = b"", **headers: str) -> Self:
        """Answer like this from now on. Underscores in the names of headers are hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def reply(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=body, headers=named)

        self.answers = [reply]
        return self

    def origin(self) -> str:
        return self.url

    async def next(self) -> Received:
        return await asyncio.wait_for(self.received.get(), WAIT)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.count += 1
        await self.received.put(
            Received(request.method, request.raw_path, request.headers.copy(), await request.read())
        )
        if not self.answers:
            return web.Response(status=201)
        return await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(request)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
