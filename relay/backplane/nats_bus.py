"""The bus over NATS, by nats-py: it connects, authenticates, reconnects and parses; what it receives we dispatch.

nats-py keeps a queue and a task for each subscription, about 4 KiB, and a task switch for each message. A node has a
subscription for each session, so both are too much: :class:`NatsClient` takes messages where they are received
(:mod:`relay.backplane.nats_wire`), and keeps for each subscription a few words that are enough for nats-py to renew it
after a reconnection. With 50,000 ids (`python -m bench.cluster --ids 50000`) joining takes some
65 µs of processor time and 1.9 KiB for each, all that the node keeps of it and the check a second later included.
"""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import nats.errors
import structlog
from nats.protocol.command import pub_cmd

from keys.errors import KeyFileError
from keys.nats_credentials import read_credentials
from relay.backplane.bus import Answered, Outcome, Received
from relay.backplane.nats_client import NatsClient, Subscription, Subscriptions
from relay.backplane.options import ClusterError, ClusterOptions
from relay.backplane.permissions import forbidden

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_WITHIN: Final = 15.0
"""Seconds until a relay that starts gives up: a NATS cluster of the same machine may be starting too."""
_TRY_FOR: Final = 2
_AGAIN: Final = 0.5
_PING_EVERY: Final = 2
"""Seconds; two unanswered, and the server is as good as gone: another one is tried."""
_CLOSE_WITHIN: Final = 2.0


class NatsBus:
    """A connection to NATS.

    Args:
        options: where, and who we are there.
    """

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self.changed: Callable[[bool], None] = lambda _: None
        self._client: NatsClient | None = None
        self._sids: dict[str, int] = {}
        # Under the prefix, so that one permission is enough; drawn at random, so that nobody else can guess it.
        self._answers = f"{options.prefix}.answer.{token_hex(12)}."
        self._last_sid = 1
        self._subscriptions = Subscriptions({1: Subscription(f"{self._answers}*", _unused)})
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
        client = NatsClient(
            self._answer_came, self._answers, f"{options.prefix}.answer.", encrypted=context is not None
        )
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
            self._client.add(self._last_sid, Subscription(subject, received))

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
