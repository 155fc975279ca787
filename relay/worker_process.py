"""One worker as its parent sees it: a process, what it said, and a line to ask it on."""

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from relay.channel import LINE_MAX, Lines, Orders

_PACKAGE: Final = str(Path(__file__).resolve().parents[1])
_NOT_PASSED_ON: Final = frozenset(("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"))
"""Of systemd's, what is for the main process alone."""
ASK: Final = 5.0
"""Seconds for an answer; a worker whose loop is held for so long is in trouble anyway."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker does not start."""

    status: int
    """The exit status that a relay of one process would have."""
    text: str


class WorkerProcess:
    """A run of one worker.

    Args:
        orders: what it has to know; the number of its channel is filled in.
        command: starts it.
    """

    def __init__(self, orders: Orders, command: tuple[str, ...]) -> None:
        self._orders = orders
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._lines: Lines | None = None
        self._listening: asyncio.Task[None] | None = None
        self.listens = asyncio.Event()
        """Set once it takes clients, and not before."""
        self.admission: dict[str, Any] | str = ""
        self.failure: Failure | None = None
        self.totals: dict[str, Any] | None = None
        """Its sums, once it stopped in order."""

    async def start(self) -> None:
        """Start it.

        Raises:
            OSError: the system has no room for it.
        """
        ours, theirs = socket.socketpair()
        orders = replace(self._orders, channel=theirs.fileno())
        environ = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        # It has to find this package and no directory of the same name where we happen to run.
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_PACKAGE, environ.get("PYTHONPATH"))))
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    pass_fds=(theirs.fileno(), *orders.sockets),
                    # Ctrl-C reaches a whole group, and twice means: now. The parent passes it on, once.
                    start_new_session=True,
                    env=environ,
                )
            except BaseException:
                ours.close()
                raise
        self._process = process
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_MAX)
        self._lines = Lines(reader, writer, self._heard)
        self._listening = asyncio.create_task(self._lines.listen())
        if process.stdin is None:
            raise AssertionError("its standard input is a pipe")
        process.stdin.write(orders.encode())
        with contextlib.suppress(OSError):  # it ended already, and its status is what counts
            await process.stdin.drain()

    @property
    def pid(self) -> int:
        """Its number."""
        return 0 if self._process is None else self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    async def ended(self) -> int:
        """Wait for its end and return the status, once all that it said was heard; negative for a signal."""
        if self._process is None:
            raise AssertionError("it was not started")
        status = await self._process.wait()
        if self._listening is not None:
            await self._listening
        if self._lines is not None:
            self._lines.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.listens.clear()
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ask(self, what: str) -> Any:
        """Return its answer; None when it has none, or not in time."""
        if self._lines is None or not self.listens.is_set():
            return None
        return await self._lines.ask(what, ASK)

    def tell(self, **message: Any) -> None:
        """Tell it something, if it listens."""
        if self._lines is not None and self.listens.is_set():
            self._lines.tell(**message)

    def _heard(self, message: dict[str, Any]) -> None:
        if "listens" in message:
            self.admission = message["listens"]["admission"]
            self.listens.set()
        elif "failed" in message:
            self.failure = Failure(message["failed"]["status"], message["failed"]["text"])
        elif "stopped" in message:
            self.totals = message["stopped"]
