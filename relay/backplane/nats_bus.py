"""The bus over NATS, by nats-py: it connects, authenticates, reconnects and parses; what it receives we dispatch.

nats-py keeps a queue and a task for each subscription, about 4 KiB, and a task switch for each message. A node has a
subscription for each session, so both are too much: :class:`_Client` takes messages where they are received
(:mod:`relay.backplane.nats_wire`), and keeps for each subscription a few words that are enough for nats-py to renew it
after a reconnection. That relies on names that begin with an underscore; `constraints.txt` pins what was tested, and
the tests of the bus go through all of them. With 50,000 ids (`python -m bench.cluster --ids 50000`) joining takes some
65 µs of processor time and 1.9 KiB for each, all that the node keeps of it and the check a second later included.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, ClassVar, Final

import nats.errors
import structlog
from nats.aio.client import Client
from nats.protocol.command import pub_cmd, sub_cmd, unsub_cmd

from keys.errors import KeyFileError
from keys.nats_credentials import read_credentials
from relay.backplane.bus import Answered, Outcome, Received
from relay.backplane.nats_wire import Wire
from relay.backplane.options import ClusterError, ClusterOptions
from relay.backplane.permissions import forbidden

CONNECT_WITHIN: Final = 15.0
"""Seconds until a relay that starts gives up: a NATS cluster of the same machine may be starting too."""
_TRY_FOR: Final = 2
_AGAIN: Final = 0.5
_PING_EVERY: Final = 2
"""Seconds; two unanswered, and the server is as good as gone: another one is tried."""
_CLOSE_WITHIN: Final = 2.0


class _Subscription:
    """As much of nats-py's as it looks at when it renews or ends subscriptions."""

    __slots__ = ("_subject", "received")

    _queue: ClassVar[str] = ""
    _max_msgs: ClassVar[int] = 0
    _received: ClassVar[int] = 0
    _wait_for_msgs_task: ClassVar[None] = None
    _message_iterator: ClassVar[None] = None
    _pending_next_msgs_calls: ClassVar[None] = None

    def __init__(self, subject: str, received: Received) -> None:
        self._subject = subject
        self.received = received

    @property
    def subject(self) -> str:
        return self._subject


class _Subscriptions(dict[int, Any]):
    """The subscriptions of one client after another."""

    def clear(self) -> None:
        """Keep them: nats-py drops them when it gives up, and we do not give up."""


class _Client(Client):
    """nats-py without queues and tasks between the connection and us."""

    def __init__(
        self,
        answered: Callable[[str, bytes, bytes | None], None],
        answers: str,
        answers_of_all: str,
        *,
        encrypted: bool = False,
    ) -> None:
        super().__init__()
        self._encrypted = encrypted
        self._answered = answered
        self._answers = answers.encode()
        self._answers_of_all = answers_of_all.encode()
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None
        self._wire = Wire(self.take)
        # nats-py makes a transport where there is none.
        self._transport = self._wire

    def take(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Hand a message to whoever subscribed."""
        found: Any = self._subs.get(sid)
        if found is None:
            return
        try:
            if subject.startswith(self._answers):
                self._answered(subject.decode(), data, headers)
            else:
                # Whoever can publish here chooses the subject of the answer: none but one for answers is used.
                answer_to = reply.decode() if reply.startswith(self._answers_of_all) else ""
                found.received(data, answer_to, found.subject)
        except Exception as error:  # noqa: BLE001 - it would end the connection, and all others wait for theirs
            self._loop.call_exception_handler({"message": "an error while a message was taken", "exception": error})

    async def _attempt_reconnect(self) -> None:
        # nats-py closes the old connection and waits for that. Closing waits until what lies unsent has left, and a
        # server that is stopped or behind a broken line does not take it before TCP itself gives up, in a quarter of an
        # hour: until then nobody would be told that the connection is lost, and no other server be tried.
        self._wire.abort()
        try:
            await super()._attempt_reconnect()
        except Exception as error:  # noqa: BLE001 - what a server says can bring about any, and would end all tries
            await self._error_cb(error)
            # As nats-py gives up of itself: in a task, for it ends this one.
            self._ending = self._loop.create_task(self._close(Client.CLOSED))

    async def _process_connect_init(self) -> None:
        # A try may fail after these began, and they would read and ping beside those of the next.
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        await super()._process_connect_init()

    def _connect_command(self) -> bytes:
        # nats-py goes on without TLS, and with our password, if the greeting does not ask for it: anybody on the way
        # can take that out.
        if self._encrypted and not self._wire.encrypted:
            raise nats.errors.Error("nats: TLS is asked for, and the server does not offer it")
        return super()._connect_command()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # nats-py writes what it has first, and waits until that has left: a server that reads nothing would keep us
        # from ever hearing that it is over.
        self._pending, self._pending_data_size = [], 0
        late = self._loop.call_later(_CLOSE_WITHIN / 2, self._wire.abort)
        try:
            await super()._close(status, do_cbs)
        finally:
            late.cancel()

    @property
    def backlog(self) -> int:
        """Bytes that have not left."""
        return self._wire.backlog

    def put(self, *parts: bytes) -> None:
        """Send a command, in the order of calls, with all that is sent in this turn."""
        if self.is_connected:
            self._wire.put(parts)

    def add(self, sid: int, subscription: _Subscription) -> None:
        """Subscribe now, or with the reconnection."""
        subs: Any = self._subs
        subs[sid] = subscription
        self.put(sub_cmd(subscription.subject, "", sid))

    def remove(self, sid: int) -> None:
        """Take a subscription back."""
        self._subs.pop(sid, None)
        self.put(unsub_cmd(sid, 0))

    def take_over(self, subscriptions: _Subscriptions) -> None:
        """Use these from now on, and subscribe to all of them."""
        self._subs = subscriptions
        for sid, subscription in subscriptions.items():
            self.put(sub_cmd(subscription.subject, "", sid))


class NatsBus:
    """A connection to NATS.

    Args:
        options: where, and who we are there.
    """

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self.changed: Callable[[bool], None] = lambda _: None
        self._client: _Client | None = None
        self._sids: dict[str, int] = {}
        # Under the prefix, so that one permission is enough; drawn at random, so that nobody else can guess it.
        self._answers = f"{options.prefix}.answer.{token_hex(12)}."
        self._last_sid = 1
        self._subscriptions = _Subscriptions({1: _Subscription(f"{self._answers}*", _unused)})
        self._asked: dict[str, tuple[Answered, asyncio.TimerHandle]] = {}
        self._count = 0
        self._up = False
        self._closing = False
        self._revival: asyncio.Task[None] | None = None
        self._error = self._said = ""
        self.forbidden: set[str] = set()
        """What NATS said that it does not let us do."""

    # --- Connecting --------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect.

        Raises:
            ClusterError: no server could be reached, or none lets us in.
        """
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await self._connect()
        except TimeoutError:
            why = self._said or self._error or "no answer"
            raise ClusterError(
                f"no NATS server could be reached within {CONNECT_WITHIN:.0f} s ({why}): "
                "is one running, and are the addresses, the credentials and the TLS files right?"
            ) from None
        except KeyFileError as error:
            raise ClusterError(str(error)) from None
        except (OSError, ValueError, nats.errors.Error) as error:
            raise ClusterError(f"cannot connect to NATS: {self._text(error)}") from error
        self._up = True

    async def _connect(self) -> None:
        options = self._options
        how: dict[str, Any] = {}
        context = _tls(options)
        client = _Client(self._answer_came, self._answers, f"{options.prefix}.answer.", encrypted=context is not None)
        if context is not None:
            how["tls"] = context
        if options.credentials is not None:
            credentials = read_credentials(options.credentials)
            how |= {
                "user_jwt_cb": lambda: credentials.jwt,
                "signature_cb": lambda nonce: credentials.sign(nonce.encode()),
            }
        if options.user is not None:
            how |= {"user": options.user, "password": options.password or ""}
        try:
            await client.connect(
                servers=list(options.servers),
                name=f"blindrelay {options.node or ''}".strip(),
                error_cb=self._failed,
                disconnected_cb=self._disconnected,
                reconnected_cb=self._reconnected,
                closed_cb=self._ended,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_AGAIN,  # type: ignore[arg-type]
                connect_timeout=_TRY_FOR,
                ping_interval=_PING_EVERY,
                max_outstanding_pings=2,
                no_echo=True,
                **how,
            )
        except BaseException:
            with suppress(Exception):
                await client.close()
            raise
        self._client = client
        client.take_over(self._subscriptions)

    async def _failed(self, error: Exception) -> None:
        self._error = self._text(error)
        forbids = forbidden(self._error, self._options.prefix)
        if forbids is not None:
            if forbids not in self.forbidden:
                self.forbidden.add(forbids)
                structlog.get_logger().error(
                    "nats_forbids",
                    what=forbids,
                    advice=f"let the user of this relay publish and subscribe to {self._options.prefix}.> in NATS",
                )
            return
        if isinstance(error, nats.errors.Error):
            # A server that refuses us hangs up, which may be noticed again, and would not tell why.
            self._said = self._error
        structlog.get_logger().debug("nats", error=self._error)

    def _text(self, error: BaseException) -> str:
        # The text of a URL with a password in it must not get into a log.
        text = str(error) or type(error).__name__
        for server in self._options.servers:
            _, at, _ = server.rpartition("@")
            if at:
                text = text.replace(server, "(a NATS server)")
        return text

    async def _disconnected(self) -> None:
        self._lost()

    async def _reconnected(self) -> None:
        self._found()

    async def _ended(self) -> None:
        """nats-py gave up: the server refused something for good, as it says. It may be another one tomorrow."""
        self._lost()
        # Without a client there was no connection yet: whoever wanted one is told, and decides.
        if self._client is not None and not self._closing and (self._revival is None or self._revival.done()):
            self._revival = asyncio.get_running_loop().create_task(self._revive())

    async def _revive(self) -> None:
        while not self._closing:
            await asyncio.sleep(_AGAIN)
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever it is: who stops trying here stays alone for good
                await self._failed(error)
            else:
                self._found()
                return

    def _lost(self) -> None:
        if self._up:
            self._up = False
            asked, self._asked = self._asked, {}
            for answered, timer in asked.values():
                timer.cancel()
                try:
                    answered(Outcome.LOST, b"")
                except Exception as error:  # noqa: BLE001 - the others wait too, and the node for the word itself
                    self._loop.call_exception_handler(
                        {"message": "an error while a question was given up", "exception": error}
                    )
            if not self._closing:
                self.changed(False)

    def _found(self) -> None:
        if not self._up and not self._closing:
            self._up = True
            self.changed(True)

    # --- The bus -----------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._up and self._client is not None and self._client.is_connected

    @property
    def max_payload(self) -> int:
        return 0 if self._client is None else self._client.max_payload

    @property
    def backlog(self) -> int:
        return 0 if self._client is None else self._client.backlog

    def publish(self, subject: str, *parts: bytes) -> None:
        if self._client is not None and self.connected:
            # In parts: put together, a large message would be copied once more.
            self._client.put(f"PUB {subject} {sum(map(len, parts))}\r\n".encode(), *parts, b"\r\n")

    def request(self, subject: str, data: bytes, timeout: float, answered: Answered) -> None:
        if self._client is None or not self.connected:
            self._loop.call_soon(answered, Outcome.LOST, b"")
            return
        self._count += 1
        reply = f"{self._answers}{self._count:x}"
        self._asked[reply] = (answered, self._loop.call_later(timeout, self._overdue, reply))
        self._client.put(pub_cmd(subject, reply, data))

    def _overdue(self, reply: str) -> None:
        asked = self._asked.pop(reply, None)
        if asked is not None:
            asked[0](Outcome.TIMEOUT, b"")

    def _answer_came(self, subject: str, data: bytes, headers: bytes | None) -> None:
        asked = self._asked.get(subject)
        if asked is None:
            return
        answered, timer = asked
        # The status line of the server's own answer; no node sends headers.
        nobody = headers is not None and b" 503" in headers[:16]
        if not answered(Outcome.NO_RESPONDERS if nobody else Outcome.ANSWER, data):
            timer.cancel()
            self._asked.pop(subject, None)

    def subscribe(self, subject: str, received: Received) -> None:
        self._last_sid += 1
        self._sids[subject] = self._last_sid
        if self._client is not None:
            self._client.add(self._last_sid, _Subscription(subject, received))

    def unsubscribe(self, subject: str) -> None:
        sid = self._sids.pop(subject, None)
        if sid is not None and self._client is not None:
            self._client.remove(sid)

    async def close(self) -> None:
        self._closing = True
        if self._revival is not None:
            self._revival.cancel()
        if self._client is not None:
            with suppress(TimeoutError, OSError, nats.errors.Error):
                async with asyncio.timeout(_CLOSE_WITHIN):
                    if self._client.is_connected:
                        await self._client.flush(1)
                    await self._client.close()
        self._lost()


def _unused(_data: bytes, _reply: str, _subject: str) -> None:
    """Answers are told by their subject."""


def _tls(options: ClusterOptions) -> ssl.SSLContext | None:
    """Return what the connection is to be checked by.

    Raises:
        ClusterError: a file cannot be used.
    """
    encrypted = any(server.startswith("tls://") for server in options.servers)
    if not encrypted and options.ca is None and options.certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=_name(options.ca))
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as error:
        raise ClusterError(f"the files for TLS to NATS cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _name(path: Path | None) -> str | None:
    return None if path is None else str(path)
