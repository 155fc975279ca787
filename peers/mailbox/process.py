"""The process: opening all that a mailbox needs, signals, and the way down."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from keys.errors import KeysError
from keys.identity import Identity
from keys.invite import MailboxCard, RelayCard
from keys.private_file import make_directories
from peers.client import ClientOptions, RelayClient, RelayRefused
from peers.mailbox.access import read_access
from peers.mailbox.core import Mailbox
from peers.mailbox.forwarded import Proxies
from peers.mailbox.keyfile import read_mailbox_identity
from peers.mailbox.meter import Metrics
from peers.mailbox.relay_face import RelayFace
from peers.mailbox.rules import AccessRule, Limits
from peers.mailbox.settings import Settings, database_of
from peers.mailbox.sqlite_store import SqliteStore
from peers.mailbox.store import Store, StoreError
from peers.mailbox.tending import read_clocks, tend
from peers.mailbox.trouble import Trouble
from peers.service.errors import ServiceError, ServiceFailed
from peers.service.listening import parse_listen
from peers.service.log import log_loop_error

if TYPE_CHECKING:
    from peers.mailbox.http_server import HttpServer

T = TypeVar("T")

_REFUSED_WAIT: Final = 600.0
"""Seconds until a relay is asked again that refused us for good."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def open_store(settings: Settings, limits: Limits, identity: Identity) -> Store:
    """Open what holds the items.

    Args:
        identity: the mailbox's own; a stream of NATS is sealed under a secret of it.

    Raises:
        StoreError: it cannot be used, or another mailbox uses it.
        ServiceError: the data directory cannot be made.
    """
    if settings.store == "jetstream":
        # Only here: those who keep a file need nothing of NATS.
        from peers.mailbox.jetstream_settings import stream_secret
        from peers.mailbox.jetstream_store import JetStreamStore

        return await JetStreamStore.open(settings.nats, limits, stream_secret(identity))
    make_data_directory(settings.data_dir)
    return await SqliteStore.open(database_of(settings), limits)


def make_data_directory(directory: Path) -> None:
    """Make the data directory, for nobody else to enter.

    Raises:
        ServiceError: it cannot be made.
    """
    try:
        make_directories(directory)
    except OSError as error:
        raise ServiceError(f"cannot make {directory}: {error.strerror}") from None


class Stopping:
    """The way down: the first signal ends the service, a second one waits for nothing any more."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.hurried = asyncio.Event()

    def signalled(self) -> None:
        """A signal came."""
        (self.hurried if self.begun.is_set() else self.begun).set()


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ServiceError, KeysError: something that the settings name cannot be used.
        StoreError: the store cannot be opened.
        RelayRefused: the relay does not serve us.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_error)
    stopping = Stopping()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopping.signalled)
    hangups = _Hangups(settings)
    loop.add_signal_handler(signal.SIGHUP, hangups.signalled)
    identity = read_mailbox_identity(settings.data_dir)
    cards = settings.cards(identity.public)
    access = read_access(settings)
    limits = settings.limits.rules()
    try:
        async with _opened(settings, limits, identity, access) as mailbox:
            hangups.serve(mailbox)
            await _Service(settings, identity, mailbox, cards, stopping).run()
    finally:
        for number in (*_SIGNALS, signal.SIGHUP):
            # All is done, and a further signal while Python shuts down must not change the exit status.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


@contextlib.asynccontextmanager
async def _opened(settings: Settings, limits: Limits, identity: Identity, access: AccessRule) -> AsyncIterator[Mailbox]:
    store = await open_store(settings, limits, identity)
    try:
        wall, tick = int(time.time() * 1000), time.monotonic()
        yield await Mailbox.open(store, identity.public, limits, access, wall, tick)
    finally:
        await store.close()


class _Hangups:
    """SIGHUP: who is served is read again, once there is a mailbox. Opening a large store takes a while."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mailbox: Mailbox | None = None
        self._missed = False

    def signalled(self) -> None:
        """A signal came."""
        if self._mailbox is None:
            self._missed = True
        else:
            _reload(self._settings, self._mailbox)

    def serve(self, mailbox: Mailbox) -> None:
        """Tell of the mailbox; one that was opened under a rule that is out of date by now gets the new one."""
        self._mailbox = mailbox
        if self._missed:
            _reload(self._settings, mailbox)


def _reload(settings: Settings, mailbox: Mailbox) -> None:
    """Read recipients and tokens again; what cannot be used is told, and the old ones stay."""
    log = structlog.get_logger()
    try:
        mailbox.access = read_access(settings)
    except (ServiceError, KeysError) as error:
        log.error("reload_failed", reason=str(error))  # noqa: TRY400 - for an operator, not for us
        return
    rule = mailbox.access
    log.info("reloaded", recipients=None if rule.recipients is None else len(rule.recipients), tokens=len(rule.tokens))


class _Service:
    """What runs while the mailbox does."""

    def __init__(
        self, settings: Settings, identity: Identity, mailbox: Mailbox, cards: list[MailboxCard], stopping: Stopping
    ) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._mailbox = mailbox
        self._identity = identity
        self._cards = cards
        self._stopping = stopping
        self._metrics = Metrics(mailbox)
        self._metrics.watch_price(lambda: mailbox.bits(read_clocks(mailbox)))
        self._trouble = Trouble(self._metrics)
        self._ill = ""
        self._relay: RelayFace | None = None

    async def run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            # The servers end last but the store: what is answered on the way down still goes out by them.
            tending = await stack.enter_async_context(
                _task(tend(self._mailbox, self._store_failed, tended=self._store_works))
            )
            admin = await stack.enter_async_context(self._listening_admin())
            http, http_at = await stack.enter_async_context(self._listening_http())
            structlog.get_logger().info("started", admin=admin, http=http_at, relay=bool(self._settings.relay))
            ends: list[asyncio.Task[None]] = [tending]
            if http is not None:
                ends.append(await stack.enter_async_context(_task(http.wait())))
            if (card := self._settings.relay_card) is not None:
                token = self._settings.relay_token
                options = ClientOptions(token=None if token is None else token.get_secret_value())
                self._relay = RelayFace(self._mailbox, self._identity, self._limits, self._metrics, self._trouble)
                way = self._be_a_peer(self._relay, card, options, alone=http is None)
                ends.append(await stack.enter_async_context(_task(way)))
            begun = await stack.enter_async_context(_task(self._stopping.begun.wait()))
            waiting: list[asyncio.Task[Any]] = [*ends, begun]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await self._stop(http)
            for task in ends:
                if task.done():
                    task.result()  # what ended by itself did so by a fault, or the relay refused for good

    async def _be_a_peer(self, face: RelayFace, card: RelayCard, options: ClientOptions, *, alone: bool) -> None:
        """Serve a relay's clients until cancelled.

        Raises:
            RelayRefused: it does not serve us, and there is no other way in. Where there is one, a relay does not end
                it: it is asked again from time to time.
        """
        while True:
            async with RelayClient(self._identity, card, options) as client:
                try:
                    await face.run(client)
                except RelayRefused as refused:
                    if alone:
                        raise
                    structlog.get_logger().error("relay_refused", reason=str(refused))
            await asyncio.sleep(_REFUSED_WAIT)

    async def _stop(self, http: "HttpServer | None") -> None:
        log = structlog.get_logger()
        log.info("stopping")
        if http is not None:
            http.stop()
        ways: list[asyncio.Task[int]] = []
        if self._relay is not None:
            ways.append(asyncio.create_task(self._relay.finish(self._limits.stop)))
        if http is not None:
            ways.append(asyncio.create_task(self._finish_http(http)))
        hurried = asyncio.create_task(self._stopping.hurried.wait())
        finished = asyncio.ensure_future(asyncio.gather(*ways))
        either: list[asyncio.Future[Any]] = [finished, hurried]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if http is not None and hurried.done():
            http.hurry()
        hurried.cancel()
        given_up = sum(finished.result()) if finished.done() else None
        finished.cancel()
        log.info("stopped", given_up=given_up)

    async def _finish_http(self, http: "HttpServer") -> int:
        await http.close()
        return 0

    # --- What is told of the state -----------------------------------------------------------------------------------

    def _store_failed(self, error: StoreError) -> None:
        self._ill = "the store fails: see the log"
        self._trouble.tell(error)

    def _store_works(self) -> None:
        self._ill = ""

    def _not_ready(self) -> str:
        if self._ill:
            return self._ill
        if self._relay is not None and not self._relay.connected:
            return "no session with the relay"
        return ""

    # --- Listeners ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _listening_admin(self) -> AsyncIterator[str]:
        place = parse_listen(self._settings.admin)
        if place is None:
            yield "off"
            return
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        from peers.mailbox.admin import admin_app
        from peers.mailbox.http_server import HttpServer

        server = HttpServer(admin_app(self._metrics, self._not_ready), HttpToolsProtocol, 5.0, 1.0)
        port = _listen(server, place, self._settings.admin, "--admin off switches it off")
        try:
            yield f"{self._settings.admin.rpartition(':')[0]}:{port}"
        finally:
            server.hurry()
            await server.close()

    @contextlib.asynccontextmanager
    async def _listening_http(self) -> AsyncIterator[tuple["HttpServer | None", str]]:
        place = self._settings.http_place
        if place is None:
            yield None, "off"
            return
        from peers.mailbox.http_face import HttpFace
        from peers.mailbox.http_protocol import Doors, bounded
        from peers.mailbox.http_server import HttpServer

        limits, proxies = self._limits, Proxies.parse(self._settings.trusted_proxies)
        (card,) = [card for card in self._cards if not card.by_relay]
        face = HttpFace(self._mailbox, card, proxies, limits, self._metrics, self._trouble)
        turned_away: Callable[[str], None] = self._metrics.turned_away
        doors = Doors(limits.connections, limits.address_connections, limits.request, proxies, turned_away)
        server = HttpServer(face.app, bounded(doors), limits.idle, limits.stop)
        port = _listen(server, place, self._settings.http, "name another address by --http")
        async with _task(doors.sweep()):
            try:
                yield server, f"{self._settings.http.rpartition(':')[0]}:{port}"
            finally:
                server.hurry()
                await server.close()


def _listen(server: "HttpServer", place: tuple[str, int], named: str, advice: str) -> int:
    try:
        return server.start(*place)
    except OSError as error:
        raise ServiceFailed(f"cannot listen on {named}: {error.strerror}; {advice}") from None


@contextlib.asynccontextmanager
async def _task(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Have a coroutine run until the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
