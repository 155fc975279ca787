"""A service beside a relay as a process of its own, for the tests over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from tests.support.clients import WAIT
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_STOP: Final = 30.0


class ServiceProcess:
    """A run of ``python -m MODULE run``.

    Args:
        module: which service.
        directory: its data directory, with its keys; the output goes to files in it.
        prefix: of its variables; those of the tests' own environment are not passed on.
        variables: those that it gets.
        arguments: further ones of the command line.
        metrics: what the names of its metrics begin with.
        prepare: run in the process before the program.
    """

    def __init__(
        self,
        module: str,
        directory: Path,
        prefix: str,
        variables: Mapping[str, str],
        arguments: Sequence[str],
        metrics: str,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._metrics = metrics
        run = sum(1 for _ in directory.glob("output-*"))
        self._log = directory / f"output-{run}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "run", *arguments],
                cwd=ROOT,
                env=environment | dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=prepare,
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
        wanted = re.escape(f"{self._metrics}{name}{f'{{{text}}}' if text else ''}")
        found = re.search(rf"^{wanted} (\S+)$", (await self.page("/metrics"))[1], re.MULTILINE)
        assert found is not None, name
        return float(found[1])

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
            self.process.terminate()
        assert await self.wait() == 0, self.output
        assert "Traceback" not in self.output
        assert "internal_error" not in self.output

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()
