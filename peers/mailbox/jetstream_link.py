"""What is asked of NATS, and how its failures look: the connection, and the handful of requests that the store makes.

A request fails at once while no server is connected, and is not kept for later: whoever asked is told, and asks again.
The connection comes back by itself.
"""

import asyncio
import base64
import json
import ssl
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from keys.errors import KeyFileError
from keys.nats_credentials import read_credentials
from keys.primitives import random_bytes
from keys.private_file import read_private
from peers.mailbox.jetstream_settings import JetStreamSettings
from peers.mailbox.store import StoreError, StoreFull

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

T = TypeVar("T")

BATCH_MAX: Final = 1000
"""Messages in one atomic batch, as servers are configured unless told otherwise (`jetstream.limits.batch.max_msgs`)."""
_CHANGED: Final = frozenset({10071, 10164})
_FULL: Final = frozenset({10002, 10023, 10047, 10077})
_NOT_FOUND: Final = frozenset({10037, 10057, 10043})
"""No message found, as MSG.GET and as MSG.DELETE have it, and that a number was deleted before."""
NO_STREAM: Final = 10059


class Changed(Exception):
    """Somebody else has written since: nothing was committed."""


class ApiError(StoreError):
    """NATS refused a request. Attributes: code, the number of its error."""

    def __init__(self, what: str, code: int, description: str) -> None:
        super().__init__(f"NATS refuses {what}: {description} ({code})")
        self.code = code


class Stored(NamedTuple):
    """A message as it stands in the stream."""

    subject: str
    seq: int
    body: bytes


class Put(NamedTuple):
    """A message to be written. `ttl`: seconds after which NATS itself deletes it; `last`: the number in the stream
    of the one that it replaces, 0 if there must be none, None if that does not matter."""

    subject: str
    body: bytes
    ttl: int | None = None
    last: int | None = None


class Link:
    """A connection to the servers. Made by :meth:`open`; all methods raise :class:`StoreError`.

    Attributes:
        up: set while a server is connected.
    """

    def __init__(self, settings: JetStreamSettings) -> None:
        self.settings = settings
        self._stream = settings.stream
        self.up = asyncio.Event()
        self._down = asyncio.Event()
        self._heard = ""
        self._client: Client

    @classmethod
    async def open(cls, settings: JetStreamSettings) -> Self:
        """Connect.

        Raises:
            StoreError: the extra is missing, or no server lets us in.
        """
        try:
            from nats import errors
            from nats.aio.client import Client
        except ModuleNotFoundError as error:
            raise StoreError(
                "a mailbox on JetStream needs the extra: pip install 'blindrelay[mailbox-nats]'"
            ) from error
        shown = _credentials(settings)
        link = cls(settings)
        link._client = Client()
        try:
            async with asyncio.timeout(settings.timeout):
                await link._client.connect(
                    servers=list(settings.server_urls),
                    name="blindrelay mailbox",
                    error_cb=link._hear,
                    disconnected_cb=link._lost,
                    reconnected_cb=link._found,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=max(1, int(settings.timeout)),
                    pending_size=64 << 20,
                    skip_subject_validation=True,
                    **shown,
                )
        except (TimeoutError, OSError, errors.Error, ValueError) as error:
            with suppress(Exception):
                await link._client.close()
            hosts, reason = ", ".join(settings.server_urls), link._heard or str(error) or "none answers"
            raise StoreError(
                f"cannot connect to NATS at {hosts}: {reason}; is it running, and does it let this mailbox in?"
            ) from error
        link.up.set()
        return link

    @property
    def max_payload(self) -> int:
        """Most bytes of one message."""
        return self._client.max_payload

    async def close(self) -> None:
        """Close the connection."""
        with suppress(Exception):
            async with asyncio.timeout(self.settings.timeout):
                await self._client.close()

    # --- Requests -------------------------------------------------------------------------------------------------

    async def api(self, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's interface.

        Raises:
            ApiError: it refuses.
        """
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self._ask(self._client.request(f"$JS.API.{subject}", data, timeout=self.settings.timeout))
        return _checked(subject, _parsed(answer))

    async def commit(self, puts: Sequence[Put], last: int) -> int:
        """Write messages, all or none, if the last one in the stream has the number `last`; return that of the last.

        They get the numbers from `last + 1` on.

        Raises:
            Changed: it has another number by now, or a message is not the one that was to be replaced.
            StoreFull: there is no room.
            StoreError: nobody knows whether they were written.
        """
        answer = await self._ask(self._commit(puts, last))
        error = answer.get("error")
        if error is None:
            if answer.get("count") != len(puts) or answer.get("seq") != last + len(puts):
                raise StoreError("NATS wrote something else than it was given; is its version 2.12 or later?")
            return int(answer["seq"])
        if error["err_code"] in _CHANGED:
            raise Changed
        if error["err_code"] in _FULL:
            raise StoreFull(f"NATS has no room: {error['description']}")
        raise ApiError("a commit", error["err_code"], error["description"])

    async def _commit(self, puts: Sequence[Put], last: int) -> dict[str, Any]:
        batch = random_bytes(8).hex()
        for at, put in enumerate(puts, 1):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(at)}
            if at == 1:
                headers["Nats-Expected-Last-Sequence"] = str(last)
            if put.last is not None:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(put.last)
            if put.ttl is not None:
                headers["Nats-TTL"] = str(put.ttl)
            if at < len(puts):
                await self._client.publish(put.subject, put.body, headers=headers)
        headers["Nats-Batch-Commit"] = "1"
        return _parsed(
            await self._client.request(put.subject, put.body, headers=headers, timeout=self.settings.timeout)
        )

    async def last_of(self, subject: str) -> Stored | None:
        """Return the message of a subject, as the stream's leader has it."""
        return await self._get({"last_by_subj": subject})

    async def at(self, seq: int) -> Stored | None:
        """Return the message of that number."""
        # A replica may not have it yet; the leader is asked before it is said not to be there.
        request = json.dumps({"seq": seq}).encode()
        subject = f"$JS.API.DIRECT.GET.{self._stream}"
        answer = await self._ask(self._client.request(subject, request, timeout=self.settings.timeout))
        headers = answer.headers or {}
        if headers.get("Nats-Sequence") == str(seq):
            return Stored(headers["Nats-Subject"], seq, answer.data)
        return await self._get({"seq": seq})

    async def next_of(self, pattern: str, seq: int) -> Stored | None:
        """Return the first message from that number on whose subject fits the pattern."""
        return await self._get({"seq": seq, "next_by_subj": pattern})

    async def _get(self, request: Mapping[str, Any]) -> Stored | None:
        try:
            message = (await self.api(f"STREAM.MSG.GET.{self._stream}", request))["message"]
        except ApiError as error:
            if error.code in _NOT_FOUND:
                return None
            raise
        return Stored(message["subject"], message["seq"], base64.b64decode(message.get("data", "")))

    async def erase(self, seq: int) -> None:
        """Delete a message and overwrite it where it stood, if it is there."""
        try:
            await self.api(f"STREAM.MSG.DELETE.{self._stream}", {"seq": seq, "no_erase": False})
        except ApiError as error:
            if error.code not in _NOT_FOUND:
                raise

    async def info(self) -> dict[str, Any] | None:
        """Return the stream's configuration and state; None if there is none."""
        try:
            return await self.api(f"STREAM.INFO.{self._stream}")
        except ApiError as error:
            if error.code == NO_STREAM:
                return None
            raise

    # --- Failures -------------------------------------------------------------------------------------------------

    async def _ask(self, request: Coroutine[Any, Any, T]) -> T:
        from nats import errors

        if self._down.is_set() or not self._client.is_connected:
            request.close()
            raise StoreError("no NATS server is connected; start one that this mailbox knows")
        asking = asyncio.ensure_future(request)
        losing = asyncio.ensure_future(self._down.wait())
        try:
            await asyncio.wait((asking, losing), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise StoreError("the NATS server went away")
            return asking.result()
        except errors.NoRespondersError as error:
            raise StoreError("NATS runs without JetStream, or its stream has no leader") from error
        except errors.TimeoutError as error:
            raise StoreError("NATS does not answer in time") from error
        except errors.Error as error:
            raise StoreError(f"NATS cannot be asked: {error}") from error
        finally:
            for task in (asking, losing):
                task.cancel()

    async def _hear(self, error: Exception) -> None:
        # Told when connecting fails. Later whoever asks is told; what NATS' client would print says what was asked.
        self._heard = str(error)

    async def _lost(self) -> None:
        self.up.clear()
        self._down.set()

    async def _found(self) -> None:
        self._down.clear()
        self.up.set()


def _credentials(settings: JetStreamSettings) -> dict[str, Any]:
    """Return what the client shows to the servers.

    Raises:
        StoreError: a file cannot be read, is open to others, or is none of its kind.
    """
    options: dict[str, Any] = {}
    try:
        if settings.credentials is not None:
            credentials = read_credentials(settings.credentials)
            options["user_jwt_cb"] = lambda: credentials.jwt
            options["signature_cb"] = lambda nonce: credentials.sign(nonce.encode())
        if settings.user:
            options["user"] = settings.user
        if settings.password_file is not None:
            options["password"] = read_private(settings.password_file).decode().partition("\n")[0]
        if settings.ca or settings.certificate or any(url.startswith("tls:") for url in settings.server_urls):
            context = ssl.create_default_context(cafile=settings.ca)
            if settings.certificate is not None and settings.key is not None:
                context.load_cert_chain(settings.certificate, settings.key)
            options["tls"] = context
    except KeyFileError as error:
        raise StoreError(str(error)) from None
    except UnicodeDecodeError:
        raise StoreError(f"{settings.password_file} is no text") from None
    except OSError as error:
        reason = error.strerror or "they are no certificates of this kind"
        raise StoreError(f"cannot use the TLS files for NATS: {reason}") from None
    return options


def _parsed(message: "Msg") -> dict[str, Any]:
    try:
        answer = json.loads(message.data)
    except ValueError as error:
        raise StoreError("NATS answers what is no JSON") from error
    if not isinstance(answer, dict):
        raise StoreError("NATS answers what is no object")
    return answer


def _checked(subject: str, answer: dict[str, Any]) -> dict[str, Any]:
    error = answer.get("error")
    if error is not None:
        raise ApiError(subject.rpartition(".")[0] or subject, error.get("err_code", 0), error.get("description", ""))
    return answer
