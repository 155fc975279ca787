"""The listener for the operator: `/healthz`, `/readyz`, `/status` and `/metrics`, on loopback unless told otherwise.

Nothing here tells of one client: figures, and whether there is a session with the relay.
"""

import time
from typing import Final

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from peers.notifier.metrics import Metrics
from peers.notifier.service import Service

_NO_STORE: Final = {"Cache-Control": "no-store"}


class Admin:
    """Listens and answers.

    Args:
        service: is asked whether it is connected, and how much is registered.
        metrics: are shown.
        channels: the names of the channels.
    """

    def __init__(self, service: Service, metrics: Metrics, channels: list[str]) -> None:
        self._service = service
        self._metrics = metrics
        self._channels = channels
        self._began = time.monotonic()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._show)
        # No access log: who looks at these pages is nobody's business either.
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError:
            await self.close()
            raise
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Listen no longer."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n", headers=_NO_STORE)

    async def _ready(self, _request: web.Request) -> web.Response:
        if self._service.connected:
            return web.Response(text="ready\n", headers=_NO_STORE)
        return web.Response(status=503, text="no session with the relay\n", headers=_NO_STORE)

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "uptime_sec": int(time.monotonic() - self._began),
                "relay_connected": self._service.connected,
                "channels": self._channels,
                "status": "ok" if self._service.connected else "not ready",
            },
            headers=_NO_STORE,
        )

    async def _show(self, _request: web.Request) -> web.Response:
        await self._service.count()
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, **_NO_STORE})
