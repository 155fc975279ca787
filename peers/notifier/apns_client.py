"""aioapns, held so that a push ends in bounded time whatever Apple's end does.

aioapns connects, signs and sends. What comes back is read here, for its version 4 waits for ever for an answer without
a body or for a stream that is reset, breaks on an answer without an ``apns-id``, never gives back the window of what it
received (after 64 KiB of errors nothing more comes), and remembers each push that succeeded. It also signs a token for
each connection, where Apple refuses more than one in 20 minutes.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from aioapns.common import NotificationRequest, NotificationResult, PushType
from aioapns.connection import (
    APNsBaseClientProtocol,
    APNsKeyConnectionPool,
    APNsProductionClientProtocol,
    AuthorizationHeaderProvider,
    JWTAuthorizationHeaderProvider,
)
from aioapns.exceptions import MaxAttemptsExceeded
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error

from peers.notifier.apns import Answer, ApnsKey, ApnsServer

_BODY_MAX: Final = 4096
_CONNECT_TIMEOUT: Final = 10.0
_TIMEOUT: Final = 15.0
_IDLE: Final = 15 * 60
"""Seconds. Apple takes many short connections for an attack, and asks to leave them open."""
_UPDATE_MIN: Final = 20 * 60.0


class ApnsClient:
    """Sends to one of Apple's servers, for one app.

    Args:
        key: signs for us.
        topic: the app's bundle id.
        server: Apple's.
        clock: seconds that only grow.
        tls: who is trusted; by default whom the system trusts.
        timeout: seconds for one push.

    Raises:
        ValueError: the key signs nothing.
    """

    def __init__(
        self,
        key: ApnsKey,
        topic: str,
        server: ApnsServer,
        clock: Callable[[], float] = time.monotonic,
        *,
        tls: ssl.SSLContext | None = None,
        timeout: float = _TIMEOUT,
    ) -> None:
        self._authorization = _Authorization(key, clock)
        if tls is None:
            tls = ssl.create_default_context()
            tls.set_alpn_protocols(["h2"])
        self._make_pool = partial(_Pool, key, topic, server, tls, self._authorization)
        self._pool: _Pool | None = None  # needs the event loop
        self._timeout = timeout
        self._sending: set[asyncio.Task[Answer]] = set()

    async def send(
        self,
        token: str,
        message: dict[str, Any],
        *,
        kind: str,
        topic: str,
        priority: int,
        ttl: int,
        collapse: str | None = None,
    ) -> Answer:
        """Send one push.

        Args:
            token: hexadecimal digits.
            message: the payload.
            kind: ``alert``, ``background`` or ``voip``.
            topic: the bundle id, or what Apple derives of it for `kind`.
            priority: 5 or 10.
            ttl: seconds that Apple keeps it.
            collapse: it replaces an older push with the same text here.
        """
        if self._pool is None:
            self._pool = self._make_pool()
        request = NotificationRequest(
            token,
            message,
            time_to_live=ttl,
            priority=priority,
            collapse_key=collapse,
            push_type=PushType(kind),
            apns_topic=topic,
        )
        # Never cancelled: aioapns would stumble over the answer when it comes.
        task = asyncio.create_task(self._send(self._pool, request))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        await asyncio.wait({task}, timeout=self._timeout)
        if not task.done():
            self._pool.abort()
            return Answer(0)
        answer = task.result()
        if answer.reason == "ExpiredProviderToken":
            self._authorization.renew()
        return answer

    async def close(self) -> None:
        """Close the connections; pushes that still wait end without an answer."""
        while self._sending:
            if self._pool is not None:
                self._pool.abort()
            await asyncio.wait(self._sending, timeout=_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if self._pool is not None:
            self._pool.abort()

    @staticmethod
    async def _send(pool: "_Pool", request: NotificationRequest) -> Answer:
        try:
            result = await pool.send_notification(request)
        except Exception:  # noqa: BLE001 - of aioapns, h2, ssl and the system: each says that there was no answer
            return Answer(0)
        return Answer(int(result.status), result.description or "")


class _Authorization(AuthorizationHeaderProvider):
    """One signed token for all connections. aioapns renews it every 30 minutes."""

    def __init__(self, key: ApnsKey, clock: Callable[[], float]) -> None:
        self._make = partial(JWTAuthorizationHeaderProvider, key=key.pem, key_id=key.key_id, team_id=key.team_id)
        self._clock = clock
        self._provider = self._make()
        try:
            self._provider.get_header()  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - PyJWT and cryptography each have their own; any text may hold the key
            raise ValueError("the APNs key is no P-256 key in PEM, as the .p8 file has it") from None
        self._since = clock()

    def get_header(self) -> str:
        return str(self._provider.get_header())  # type: ignore[no-untyped-call]

    def renew(self) -> None:
        """Sign another, unless Apple would refuse that as too soon."""
        now = self._clock()
        if now - self._since >= _UPDATE_MIN:
            self._since = now
            self._provider = self._make()


class _Protocol(APNsProductionClientProtocol):
    """A connection to Apple, with the receiving half done by the rules."""

    INACTIVITY_TIME = _IDLE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self._answers: dict[int, tuple[int, bytearray]] = {}

    def data_received(self, data: bytes) -> None:
        try:
            events = self.conn.receive_data(data)
        except H2Error:
            self.abort()
            return
        for event in events:
            if isinstance(event, ResponseReceived):
                status = dict(event.headers).get(b":status", b"")
                self._answers[event.stream_id] = (int(status) if status.isdigit() else 0, bytearray())
            elif isinstance(event, DataReceived):
                self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                _, body = self._answers.get(event.stream_id, (0, bytearray()))
                body += event.data[: _BODY_MAX - len(body)]
            elif isinstance(event, StreamEnded):
                self._finish(event.stream_id)
            elif isinstance(event, StreamReset):
                self._answers.pop(event.stream_id, None)
                self._finish(event.stream_id)
            elif isinstance(event, RemoteSettingsChanged):
                self.on_remote_settings_changed(event.changed_settings)  # type: ignore[arg-type]
                if not self.ready.done():
                    self.ready.set_result(None)
            elif isinstance(event, ConnectionTerminated):
                self.close()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionResetError("the connection was lost before it was ready"))
            self.ready.exception()  # whoever waited may have gone
        super().connection_lost(exc)

    @property
    def is_open(self) -> bool:
        """Whether pushes can be sent on it."""
        return self.transport is not None and not self.transport.is_closing()

    def abort(self) -> None:
        """Close without waiting for the other end."""
        if self.transport is not None:
            self.transport.abort()

    def _finish(self, stream_id: int) -> None:
        """Give the answer to who waits for it."""
        self.free_channels.release()
        status, body = self._answers.pop(stream_id, (0, bytearray()))
        request_id = self.request_streams.pop(stream_id, "")
        waiting = self.requests.pop(request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(NotificationResult(request_id, str(status), description=_reason(bytes(body))))


class _Pool(APNsKeyConnectionPool):
    """One connection to one server: Apple takes a thousand pushes at once on each.

    A push is tried once; trying again is for the service. aioapns' own pool asks a hundred times a second for a free
    connection while there is none, and each waiting push connects anew when Apple is not there.
    """

    def __init__(
        self, key: ApnsKey, topic: str, server: ApnsServer, tls: ssl.SSLContext, authorization: _Authorization
    ) -> None:
        super().__init__(
            key=key.pem,
            key_id=key.key_id,
            team_id=key.team_id,
            topic=topic,
            max_connection_attempts=1,
            ssl_context=tls,
        )
        self._topic = topic
        self._authorization = authorization
        self._connection: _Protocol | None = None
        self._connecting: asyncio.Task[_Protocol] | None = None
        self.protocol_class = type(
            "_ServerProtocol", (_Protocol,), {"APNS_SERVER": server.host, "APNS_PORT": server.port}
        )

    async def acquire(self) -> APNsBaseClientProtocol:
        """Return the connection, opened if need be. Whoever waits, waits for one and the same attempt."""
        if self._connection is not None and self._connection.is_open:
            return self._connection
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        try:
            return await asyncio.shield(self._connecting)
        except (OSError, H2Error, asyncio.CancelledError):
            # Cancelled is the attempt, by `abort`: pushes themselves never are.
            raise MaxAttemptsExceeded from None

    def abort(self) -> None:
        """Drop the connection: it does not answer."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    async def _connect(self) -> _Protocol:
        factory = partial(self.protocol_class, self._topic, self.loop, None, self._authorization)
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            connection = cast("_Protocol", await self._create_connection(factory))
            try:
                # Apple starts with one stream at a time. More of them before we know are refused.
                await connection.ready
            except BaseException:
                connection.abort()
                raise
        self._connection = connection
        return connection

    def _connected(self, task: asyncio.Task[_Protocol]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # whoever waited may have gone


def _reason(body: bytes) -> str:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    reason = told.get("reason") if isinstance(told, dict) else None
    return reason if isinstance(reason, str) else ""
