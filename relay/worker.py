"""`python -m relay.worker`: one process of several, started by a parent and by nobody else (`--workers`)."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import structlog
import uvloop

from keys.files import ServerKeys
from keys.identity import Identity
from relay import log
from relay.app import Relay, raise_file_limit, serve
from relay.backplane.options import ClusterError
from relay.channel import LINE_MAX, Lines, Orders, read_orders
from relay.heap import keep_heap
from relay.listen import CannotListenError, Place
from relay.settings import BadSettings, Settings, load
from relay.shares import share
from relay.tls import BadCertificate
from relay.usable import check_usable

if TYPE_CHECKING:
    from relay.census import Census

_LATE: Final = 2.0
"""Seconds beyond its own deadline after which a process whose parent is gone ends as it is."""


class Reporting:
    """Tells the parent what becomes of this process, and answers it.

    Args:
        reader: what the parent writes.
        writer: to it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines = Lines(reader, writer, self._heard)
        self._relay: Relay | None = None
        self._census: Census | None = None
        self._listening: asyncio.Task[None] | None = None
        self.status = 0
        """The exit status."""

    def failed(self, status: int, text: str) -> None:
        """It cannot start, for this reason."""
        self.status = status
        self._lines.tell(failed={"status": status, "text": text})

    async def close(self) -> None:
        """Write what was told, and end."""
        if self._listening is not None:
            self._listening.cancel()
        await self._lines.flush()
        self._lines.close()
        await self._lines.closed()

    def listens(self, relay: Relay) -> None:
        """It takes clients, and from now on questions."""
        self._relay = relay
        self._listening = asyncio.create_task(self._lines.listen())
        self._lines.tell(listens={"admission": relay.core.admission.summary})

    def stopping(self, relay: Relay) -> None:
        """It drains: the parent knows."""

    def stopped(self, totals: dict[str, Any]) -> None:
        """Tell the sums, which the parent adds up."""
        self._lines.tell(stopped=totals)

    def _heard(self, message: dict[str, Any]) -> None:
        relay = self._relay
        if relay is None:
            raise AssertionError("nothing is read before the relay listens")
        if "elsewhere" in message:
            relay.core.pages.sessions_elsewhere = message["elsewhere"]
            return
        reply = partial(self._reply, message["number"])
        match message["ask"]:
            case "count":
                reply(len(relay.core.sessions))
            case "ready":
                reply({"reasons": relay.core.ready.reasons, "degraded": relay.degraded})
            case "metrics":
                reply(_metrics(relay))
            case "sessions":
                if self._census is None:
                    # Only here, as in the admin listener.
                    from relay.census import Census

                    self._census = Census(relay.core)
                self._census.take(reply)

    def _reply(self, number: int, answer: object) -> None:
        self._lines.tell(number=number, answer=answer)


def _metrics(relay: Relay) -> list[Any]:
    # Only here: the metrics library takes some megabytes.
    from relay.metrics import RelayCollector

    return [
        [each.name, each.type, each.documentation, [[one.name, one.labels, one.value] for one in each.samples]]
        for each in RelayCollector(relay.core).collect()
    ]


def main() -> int:
    """Be a worker; returns the exit status. What is wrong is told to the parent, which knows whether it says so."""
    # Ctrl-C and a closed terminal are the parent's: it passes on what they mean.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stdin = sys.stdin.buffer.raw if hasattr(sys.stdin.buffer, "raw") else sys.stdin.buffer
    try:
        orders = read_orders(stdin)
    except EOFError:
        print("blindrelay: relay.worker is started by the relay itself: use --workers", file=sys.stderr)
        return 2
    log.name_process(worker=orders.index)
    log.configure(orders.settings.log_level)
    raise_file_limit()
    keep_heap()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_work(orders, stdin))


async def _work(orders: Orders, stdin: BinaryIO) -> int:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=orders.channel), limit=LINE_MAX)
    reporting = Reporting(reader, writer)
    workers = orders.settings.workers
    settings = share(orders.settings, workers)
    try:
        relay = Relay(
            settings,
            ServerKeys(Identity(*orders.seeds), orders.notifier_id),
            check_usable(settings),
            cluster=orders.cluster,
            place=Place(parent=True, sockets=tuple(socket.socket(fileno=number) for number in orders.sockets)),
        )
        stop = asyncio.Event()
        _watch_parent(stdin, asyncio.get_running_loop(), partial(_orphaned, relay, stop), settings)
        await serve(relay, settings, partial(_read_again, orders, workers), reporting, stop)
    except (BadSettings, BadCertificate) as error:
        reporting.failed(2, str(error))
    except (CannotListenError, ClusterError) as error:
        reporting.failed(1, str(error))
    await reporting.close()
    return reporting.status


def _read_again(orders: Orders, workers: int) -> Settings:
    """Read the settings at SIGHUP. What the parent decided for all of its time is not read again."""
    settings = load(orders.arguments, dict(os.environ))
    kept = {"port": orders.settings.port} if settings.port == 0 else {}
    return share(settings.model_copy(update=kept), workers)


def _watch_parent(
    stdin: BinaryIO, loop: asyncio.AbstractEventLoop, gone: Callable[[], None], settings: Settings
) -> None:
    """Call `gone` when the parent is no more, and end the process by force when that leads to nothing.

    It is a thread, for an event loop that is stuck has to end too.
    """

    def wait() -> None:
        while stdin.read(1):
            pass
        with contextlib.suppress(RuntimeError):  # the loop is closed: this process is at its end already
            loop.call_soon_threadsafe(gone)
        time.sleep(settings.limits.shutdown_deadline + _LATE)
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _orphaned(relay: Relay, stop: asyncio.Event) -> None:
    """End at once, but in order: whoever starts the relay again wants the port, and clients are to come back to it."""
    if not stop.is_set():
        structlog.get_logger().error("parent_gone")
    stop.set()
    relay.listener.close()
    if relay.started:
        relay.drain.hurry()


if __name__ == "__main__":
    sys.exit(main())
