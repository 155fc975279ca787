"""uvicorn within this process: our event loop, our signals, and no lines of its own."""

import asyncio
import math
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, cast

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_BACKLOG: Final = 1024


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # This process has one place for signals, which ends this server among others.
        yield


class HttpServer:
    """One listener.

    Args:
        app: what answers.
        protocol: of its connections.
        idle: seconds for which a connection is kept between requests.
        stop: seconds that :meth:`close` gives to what is under way.
    """

    def __init__(self, app: Starlette, protocol: type[HttpToolsProtocol], idle: float, stop: float) -> None:
        config = uvicorn.Config(
            cast("Any", app),  # the two have types of their own for ASGI
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=math.ceil(idle),
            timeout_graceful_shutdown=math.ceil(stop),
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self.socket: socket.socket
        """What it listens on, once it was started."""

    def start(self, host: str, port: int) -> int:
        """Listen from now on; return the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._task = asyncio.create_task(self._server.serve(sockets=[self.socket]))
        return int(self.socket.getsockname()[1])

    def stop(self) -> None:
        """Take no further requests; those under way are answered."""
        self._server.should_exit = True

    def hurry(self) -> None:
        """Wait for nothing."""
        self._server.force_exit = True
        self.stop()

    async def wait(self) -> None:
        """Return when it has ended; it does so by itself only by a fault, which is raised."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """End it, and wait for that."""
        self.stop()
        if self._task is not None:
            await asyncio.wait([self._task])
