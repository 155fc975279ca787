"""The process: listening, signals, and the way down."""

import asyncio
import contextlib
import resource
import signal
from collections.abc import Callable

import structlog
from websockets.frames import CloseCode

from keys.files import ServerKeys
from keys.invite import RelayCard
from relay import __version__
from relay.core import Core
from relay.listen import Listener
from relay.log import log_loop_error
from relay.metered import HOLD_SHUTDOWN
from relay.own_keys import FoundKeys
from relay.pulse import Pulse
from relay.reasons import Ending, Refusal
from relay.settings import Settings
from relay.websocket import Phase
from wire import commands as c

_RECONNECT_MS = (500, 5000)
"""Clients are told to come back at a random time between these, so that they do not all come at once."""


class Relay:
    """A relay that listens.

    Args:
        settings: where to listen, and the limits.
        keys: the relay's own keys and whom it lets push.

    Raises:
        BadCertificate: the files for TLS cannot be used.
    """

    def __init__(self, settings: Settings, keys: ServerKeys) -> None:
        self._settings = settings
        self._keys = keys
        self._core: Core | None = None
        self.listener = Listener(settings)

    async def start(self) -> None:
        """Listen.

        Raises:
            CannotListenError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_loop_error)
        settings = self._settings
        core = Core(loop, self._keys.identity, settings.limits, self._keys.notifier_id, front=settings.front)
        await self.listener.open(core)
        self._core = core
        self._pulse = Pulse(core)
        self._pulse.start()

    @property
    def core(self) -> Core:
        """The relay proper, once it listens."""
        if self._core is None:
            raise AssertionError("the relay was not started")
        return self._core

    async def stop(self) -> None:
        """Stop accepting, write or answer what was read, close every session with 1001, within the deadline.

        Reads stop first, so that from then on nothing is read that could not be forwarded. Queues that their readers
        still take get half of the time; what is left then is answered to its senders with 0x03.
        """
        core = self.core
        core.stopping = True
        self.listener.close()
        deadline = core.clock() + core.limits.shutdown_deadline
        core.turns.postpone_no_more()
        sessions = list(core.sessions.values())
        for session in sessions:
            session.hold(HOLD_SHUTDOWN)
            session.parse_held()
        core.turns.run()
        await self._until(lambda: not core.budget.stalled and core.turns.idle, core.limits.shutdown_deadline / 2)
        for outbox in list(core.budget.stalled):
            core.refuse_all(outbox.owner, outbox.drop_peer_frames(), Refusal.RECIPIENT_GONE)
        await self._until(lambda: core.turns.idle, core.limits.shutdown_deadline / 4)
        least, most = _RECONNECT_MS
        for session in sessions:
            if session.phase is Phase.OPEN and not session.outbox.stalled:
                spread = int.from_bytes(core.random(4), "little") % (most - least)
                session.send(c.Restarting(least + spread))
        for connection in list(core.connections):
            connection.end(Ending.SHUTDOWN, CloseCode.GOING_AWAY, "the relay goes away")
        await self._until(lambda: not core.connections, deadline - core.clock())
        for connection in list(core.connections):
            connection.transport.abort()
        await self._until(lambda: not core.connections, 0.2)
        self._pulse.stop()

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait for something that happens in callbacks, for so long at most."""
        clock = self.core.clock
        until = clock() + seconds
        # Asked again and again, for a few seconds at the end of the process: an event for each of these conditions
        # would put a test on the path of every frame.
        while not done() and clock() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def raise_file_limit() -> None:
    """Allow as many sockets as the system lets us have: the soft limit of 1,024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def run(settings: Settings, found: FoundKeys) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        BadCertificate: the files for TLS cannot be used.
        CannotListenError: the address cannot be listened on.
    """
    log = structlog.get_logger()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    relay = Relay(settings, found.keys)
    await relay.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    public = found.keys.identity.public
    if found.minted is not None:
        card = RelayCard(public, settings.url_at(relay.listener.port))
        print(f"blindrelay: minted keys into {found.minted}; keep a copy, for clients pin them")
        print(f'relay_card = "{card.text}"')
    print(
        f"blindrelay {__version__} listens on {relay.listener.address}"
        f' x25519_public="{public.x_pub.hex()}" ed25519_public="{public.ed_pub.hex()}"',
        flush=True,
    )
    await stop.wait()
    counters = relay.core.counters
    log.info("stopping", sessions=counters.sessions)
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
