"""The notifier as a process of its own, and a push server for it, for the tests over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import web

from keys.invite import RelayCard
from peers.notifier.keyfile import mint, read_notifier_identity
from tests.support.clients import WAIT
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

_STOP: Final = 30.0


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


class NotifierProcess:
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
        run = sum(1 for _ in directory.glob("output-*"))
        self._log = directory / f"output-{run}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
        environment |= {
            "NOTIFIER_DATA_DIR": str(directory),
            "NOTIFIER_ADMIN": "127.0.0.1:0",
            "NOTIFIER_CONTACT": "mailto:ops@relay.example",
            "NOTIFIER_ALLOW_HOST": server.url,
        }
        if relay is not None and card:
            environment["NOTIFIER_RELAY_CARD"] = RelayCard(relay.public, relay.url).text
        environment |= variables or {}
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "peers.notifier", "run", *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def records(self) -> list[dict[str, Any]]:
        """What was logged so far."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    def events(self) -> list[str]:
        return [str(record["event"]) for record in self.records]

    async def logged(self, event: str) -> dict[str, Any]:
        """Return the first record of an event, once there is one."""
        async with asyncio.timeout(WAIT):
            while True:
                for record in self.records:
                    if record["event"] == event:
                        return record
                assert self.process.poll() is None, self.output
                await asyncio.sleep(0.01)

    async def connected(self) -> Self:
        """Return once it has a session with the relay."""
        await self.logged("connected")
        return self

    async def get(self, path: str) -> str:
        """Return a page of its admin listener."""
        at = (await self.logged("started"))["admin"]

        def fetch() -> str:
            with urllib.request.urlopen(f"http://{at}{path}", timeout=10) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(fetch)

    async def figure(self, name: str, **labels: str) -> int:
        """Return a metric."""
        text = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        wanted = re.escape(f"blindrelay_notifier_{name}{f'{{{text}}}' if text else ''}")
        found = re.search(rf"^{wanted} (\S+)$", await self.get("/metrics"), re.MULTILINE)
        assert found is not None, name
        return int(float(found[1]))

    async def reaches(self, count: int, name: str, **labels: str) -> None:
        """Return once a metric is so high."""
        async with asyncio.timeout(WAIT):
            while await self.figure(name, **labels) < count:  # noqa: ASYNC110 - of a metric there is no event
                await asyncio.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        """Return the exit status."""
        return await asyncio.to_thread(self.process.wait, _STOP)

    async def stop(self) -> None:
        """End it, and find that nothing went wrong inside."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        assert await self.wait() == 0, self.output
        assert "Traceback" not in self.output
        assert "internal_error" not in self.output

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()
