"""The mailbox as a process of its own, for the tests over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from keys.invite import MailboxCard, RelayCard
from peers.mailbox.keyfile import mint, read_mailbox_identity
from tests.peers.mailbox.http_lab import Asker
from tests.support.clients import WAIT
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

_STOP: Final = 30.0
_UNBOUND: Final = ("depositor_items", "address_items", "asking", "price_most")
URL: Final = "http://mailbox.example"


class MailboxProcess:
    """A run of ``python -m peers.mailbox run``.

    Args:
        directory: its data directory; a second run with the same one has the same keys and items.
        relay: whose peer it is.
        http: whether it serves HTTP.
        arguments: further ones of the command line.
        file_size: most bytes that one of its files may have (RLIMIT_FSIZE).
        bounded: whether it keeps its rates and prices.
    """

    def __init__(
        self,
        directory: Path,
        relay: RelayProcess | None = None,
        *,
        http: bool = True,
        arguments: tuple[str, ...] = (),
        variables: Mapping[str, str] | None = None,
        file_size: int | None = None,
        bounded: bool = False,
    ) -> None:
        mint(directory)
        self.identity = read_mailbox_identity(directory)
        run = sum(1 for _ in directory.glob("output-*"))
        self._log = directory / f"output-{run}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BLINDRELAY_MAILBOX_")}
        environment |= {
            "BLINDRELAY_MAILBOX_DATA_DIR": str(directory),
            "BLINDRELAY_MAILBOX_ADMIN": "127.0.0.1:0",
            "BLINDRELAY_MAILBOX_LIMITS_DISK_RESERVE": "0",
        }
        if not bounded:
            environment |= {f"BLINDRELAY_MAILBOX_LIMITS_{name.upper()}": "0" for name in _UNBOUND}
        if relay is not None:
            environment["BLINDRELAY_MAILBOX_RELAY"] = RelayCard(relay.public, relay.url).text
        if http:
            environment |= {"BLINDRELAY_MAILBOX_HTTP": "127.0.0.1:0", "BLINDRELAY_MAILBOX_HTTP_URL": URL}
        environment |= variables or {}

        def bound() -> None:
            if file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "peers.mailbox", "run", *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=bound,
            )

    @property
    def card(self) -> MailboxCard:
        return MailboxCard(self.identity.public, URL)

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def records(self) -> list[dict[str, Any]]:
        """What was logged so far."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    async def logged(self, event: str) -> dict[str, Any]:
        """Return the first record of an event, once there is one."""
        async with asyncio.timeout(WAIT):
            while True:
                for record in self.records:
                    if record["event"] == event:
                        return record
                assert self.process.poll() is None, self.output
                await asyncio.sleep(0.01)

    async def asker(self) -> Asker:
        """Return a client over HTTP, once it listens."""
        at = (await self.logged("started"))["http"]
        return Asker(f"http://{at}", URL, self.identity.public)

    async def page(self, path: str) -> tuple[int, str]:
        """Return status and text of a page of its admin listener."""
        at = (await self.logged("started"))["admin"]

        def fetch() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://{at}{path}", timeout=10) as answer:
                    return answer.status, str(answer.read().decode())
            except urllib.error.HTTPError as error:
                return error.code, str(error.read().decode())

        return await asyncio.to_thread(fetch)

    async def figure(self, name: str, **labels: str) -> float:
        """Return a metric."""
        text = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        wanted = re.escape(f"blindrelay_mailbox_{name}{f'{{{text}}}' if text else ''}")
        found = re.search(rf"^{wanted} (\S+)$", (await self.page("/metrics"))[1], re.MULTILINE)
        assert found is not None, name
        return float(found[1])

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
