"""The process: listening, signals, and the way down."""

import asyncio
import contextlib
import resource
import signal

import structlog

from keys.files import ServerKeys
from keys.invite import RelayCard
from relay import __version__
from relay.core import Core
from relay.drain import Drain
from relay.heap import quiet_collector
from relay.log import log_loop_error
from relay.own_keys import FoundKeys
from relay.pulse import Pulse
from relay.session import Session
from relay.settings import Settings, bracketed

_BACKLOG = 4096


class CannotListenError(Exception):
    """The address cannot be listened on; the text says which and why."""


class Relay:
    """A relay that listens.

    Args:
        settings: where to listen, and the limits.
        keys: the relay's own keys and whom it lets push.
    """

    def __init__(self, settings: Settings, keys: ServerKeys) -> None:
        self._settings = settings
        self._keys = keys
        self._core: Core | None = None
        self._server: asyncio.Server | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_loop_error)
        core = Core(loop, self._keys.identity, self._settings.limits, self._keys.notifier_id)
        self._server = await loop.create_server(
            lambda: Session(core), self._settings.host, self._settings.port, backlog=_BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._core = core
        self.drain = Drain(core, self._settings.drain)
        self._pulse = Pulse(core)
        self._pulse.start()

    @property
    def core(self) -> Core:
        """The relay proper, once it listens."""
        if self._core is None:
            raise AssertionError("the relay was not started")
        return self._core

    async def stop(self) -> None:
        """Drain, and stop; see :class:`relay.drain.Drain`.

        While sessions are closed one after another the port is still listened on: pages tell that the relay is not
        ready, and openings are refused with 503.
        """
        await self.drain.spread()
        if self._server is not None:
            self._server.close()
        await self.drain.finish()
        self._pulse.stop()


def raise_file_limit() -> None:
    """Allow as many sockets as the system lets us have: the soft limit of 1,024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def run(settings: Settings, found: FoundKeys) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        CannotListenError: the address cannot be listened on.
    """
    log = structlog.get_logger()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    relay = Relay(settings, found.keys)
    try:
        await relay.start()
    except OSError as error:
        raise CannotListenError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from error
    quiet_collector()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    public = found.keys.identity.public
    if found.minted is not None:
        card = RelayCard(public, settings.url_at(relay.port))
        print(f"blindrelay: minted keys into {found.minted}; keep a copy, for clients pin them")
        print(f'relay_card = "{card.text}"')
    print(
        f"blindrelay {__version__} listens on ws://{bracketed(settings.host)}:{relay.port}/ws"
        f' x25519_public="{public.x_pub.hex()}" ed25519_public="{public.ed_pub.hex()}"',
        flush=True,
    )
    await stop.wait()
    counters = relay.core.counters
    log.info("stopping", sessions=counters.sessions, drain=settings.drain)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Once more means: now.
        loop.add_signal_handler(number, relay.drain.hurry)
    await relay.stop()
    log.info(
        "stopped",
        frames=counters.frames_in,
        bytes_in=counters.bytes_in,
        refusals={str(reason): count for reason, count in counters.refusals.items() if count},
        endings={str(reason): count for reason, count in counters.endings.items() if count},
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # All is done, and a second signal while Python shuts down must not change the exit status.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
