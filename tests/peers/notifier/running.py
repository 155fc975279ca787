"""The notifier as a process of its own, and a push server for it, for the tests over real sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from aiohttp import web

from keys.invite import RelayCard
from peers.notifier.keyfile import mint, read_notifier_identity
from tests.support.clients import WAIT
from tests.support.service_process import ServiceProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.relay_process import RelayProcess


class PushServer:
    """An ntfy of sorts: takes what is posted to any path, once it is let."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, Mapping[str, str], bytes]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.status = 200
        self.headers: dict[str, str] = {}
        self.url = ""
        self._more = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._runner is not None
        self.open.set()
        await self._runner.cleanup()

    def endpoint(self, name: str) -> bytes:
        """Return a token for a path of this server."""
        return f"{self.url}/{name}".encode()

    @property
    def names(self) -> list[str]:
        """The paths that were posted to."""
        return [path for path, _, _ in self.posts]

    async def has(self, count: int) -> None:
        """Return once so many came."""
        async with asyncio.timeout(WAIT):
            while len(self.posts) < count:
                self._more.clear()
                await self._more.wait()

    async def _take(self, request: web.Request) -> web.Response:
        self.posts.append((request.match_info["path"], dict(request.headers), await request.read()))
        self._more.set()
        await self.open.wait()
        return web.Response(status=self.status, headers=self.headers)


class NotifierProcess(ServiceProcess):
    """A run of ``python -m peers.notifier run``.

    Args:
        directory: its data directory; a second run with the same one has the same keys and registry.
        relay: whose.
        server: the push server that is allowed.
        variables: further ones of its environment.
        arguments: further ones of the command line.
        card: whether it is told of the relay by its card.
    """

    def __init__(
        self,
        directory: Path,
        relay: RelayProcess | None,
        server: PushServer,
        *,
        variables: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        card: bool = True,
    ) -> None:
        mint(directory)
        self.identity = read_notifier_identity(directory)
        environment = {
            "NOTIFIER_DATA_DIR": str(directory),
            "NOTIFIER_ADMIN": "127.0.0.1:0",
            "NOTIFIER_CONTACT": "mailto:ops@relay.example",
            "NOTIFIER_ALLOW_HOST": server.url,
        }
        if relay is not None and card:
            environment["NOTIFIER_RELAY_CARD"] = RelayCard(relay.public, relay.url).text
        environment |= variables or {}
        super().__init__("peers.notifier", directory, "NOTIFIER_", environment, arguments, "blindrelay_notifier_")

    async def connected(self) -> Self:
        """Return once it has a session with the relay."""
        await self.logged("connected")
        return self
