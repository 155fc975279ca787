"""Every HTTP request of the notifier: one POST to a checked endpoint, on a checked connection, in bounded time.

What is checked, in this order: the URL (`peers.notifier.endpoints`), what its name resolves to, the address that a
socket is about to be connected to, and the peer of the connection before the first byte of the request. So a name may
resolve to something else each time (DNS rebinding) and gains nothing. Redirects are not followed, proxies and
credentials of the environment (`HTTPS_PROXY`, ~/.netrc) are not used, no cookies are kept.
"""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from ipaddress import IPv6Network
from typing import TYPE_CHECKING, Any, ClassVar, Final

import aiohttp

from peers.notifier.addresses import is_public
from peers.notifier.endpoints import AllowedHost, Endpoint, check_endpoint
from peers.notifier.resolving import ForbiddenAddress, Lookup, Resolver, system_lookup

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType
    from aiohttp.connector import Connection

BODY_MAX: Final = 16 * 1024
"""Bytes that are read of an answer's body. FCM's have some hundreds; the rest of a longer one is not waited for."""
RETRY_AFTER_MAX: Final = 24 * 3600.0
"""Most seconds for which we let a server send us away."""
_HEADER_MAX: Final = 8190
_INFORMATIONAL_MAX: Final = 8
"""Interim answers (1xx) before the one that counts. Servers send one or two, if any."""
_CONNECTIONS: Final = 200
_CONNECTIONS_PER_HOST: Final = 50
_KEEPALIVE: Final = 60.0
_DNS_KEPT: Final = 60
"""Seconds for which checked addresses are connected to again without asking."""
_BODY_WAIT: Final = 3.0
"""Seconds that a body may take. The status says nearly all; a server that dribbles must not hold a worker."""
_SECONDS: Final = re.compile(r"[0-9]{1,12}")


class OutboundError(Exception):
    """No answer. The text holds nothing of the endpoint and nothing that the other side sent."""


class Unreachable(OutboundError):
    """A passing fault: no address, no connection, no TLS, no answer in time, no HTTP."""


class Forbidden(OutboundError):
    """The host is not one of the public internet."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `connect`: for TCP; `answer`: between two packets of it; `total`: for everything, names and TLS too."""

    connect: float = 5.0
    answer: float = 10.0
    total: float = 15.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    retry_after: float | None = None
    """Seconds it wants to be left alone, from 0 to `RETRY_AFTER_MAX`."""
    body: bytes = field(default=b"", repr=False)
    """At most `BODY_MAX` bytes; less than was sent when it came too slowly."""


class Outbound:
    """The HTTP client of all channels. Made in any thread, used in one event loop.

    Args:
        allowed: hosts that may be anywhere.
        timeouts: of each request.
        tls: who is trusted; by default whom the system trusts.
        lookup: what resolves names.
        nat64: prefixes of this network's translators: addresses there are taken for the IPv4 ones within them.
    """

    def __init__(
        self,
        allowed: Collection[AllowedHost] = (),
        *,
        timeouts: Timeouts | None = None,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup = system_lookup,
        nat64: Collection[IPv6Network] = (),
    ) -> None:
        self._nat64 = tuple(nat64)
        self._allowed = frozenset(allowed)
        self._timeouts = timeouts or Timeouts()
        self._tls = tls or ssl.create_default_context()
        self._lookup = lookup
        # By whether the host was allowed, so that it cannot be taken for another, and by whether it is the operator's
        # choice: what strangers let hang, names or connections, must hold up none of those.
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}

    def check(self, url: str, *, ours: bool = False) -> Endpoint:
        """Check a URL by its text alone.

        Args:
            url: where to send.
            ours: whether it comes from the operator's settings, and not from a token.

        Raises:
            ValueError: nothing may be sent to it; the text does not repeat it.
        """
        endpoint = check_endpoint(url, self._allowed)
        return replace(endpoint, ours=True) if ours else endpoint

    async def post(self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send a request and read its answer.

        Raises:
            Unreachable: there was none.
            Forbidden: it was not sent, for the host is not a public one.
        """
        try:
            async with self._session(endpoint.allowed, endpoint.ours).post(
                endpoint.url, headers=headers, data=body, allow_redirects=False
            ) as response:
                retry_after = read_retry_after(response.headers.get("Retry-After"), time.time())
                return Reply(response.status, retry_after, await _read(response))
        # TimeoutError is an OSError; a session that is closed meanwhile raises RuntimeError.
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            if isinstance(error.__cause__, ForbiddenAddress):
                raise Forbidden(str(error.__cause__)) from None
            raise Unreachable(_describe(error)) from None

    async def close(self) -> None:
        """Close every connection."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()

    def _session(self, allowed: bool, ours: bool) -> aiohttp.ClientSession:
        session = self._sessions.get((allowed, ours))
        if session is None:
            session = self._sessions[allowed, ours] = self._make(allowed)
        return session

    def _make(self, allowed: bool) -> aiohttp.ClientSession:
        class CheckedRequest(_CheckedRequest):
            nat64 = self._nat64

        connector = aiohttp.TCPConnector(
            resolver=Resolver(self._lookup, checked=not allowed, nat64=self._nat64),
            socket_factory=None if allowed else lambda address: _checked_socket(address, self._nat64),
            ssl=self._tls,
            limit=_CONNECTIONS,
            limit_per_host=_CONNECTIONS_PER_HOST,
            ttl_dns_cache=_DNS_KEPT,
            keepalive_timeout=_KEEPALIVE,
        )
        return aiohttp.ClientSession(
            connector=connector,
            request_class=aiohttp.ClientRequest if allowed else CheckedRequest,
            response_class=_BoundedResponse,
            timeout=aiohttp.ClientTimeout(
                total=self._timeouts.total, sock_connect=self._timeouts.connect, sock_read=self._timeouts.answer
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            # What is compressed may be a thousand times larger once it is not.
            auto_decompress=False,
            headers={"User-Agent": "blindrelay-notifier", "Accept-Encoding": "identity"},
            max_line_size=_HEADER_MAX,
            max_field_size=_HEADER_MAX,
        )


class _CheckedRequest(aiohttp.ClientRequest):
    """A request that is written to no connection but one whose other end is a public address."""

    nat64: ClassVar[Collection[IPv6Network]] = ()

    async def send(self, conn: "Connection") -> aiohttp.ClientResponse:
        peer = conn.transport.get_extra_info("peername") if conn.transport is not None else None
        if not peer or not is_public(str(peer[0]), self.nat64):
            raise ForbiddenAddress("the connection leads to no public address")
        return await super().send(conn)


class _BoundedResponse(aiohttp.ClientResponse):
    """An answer with few interim ones before it.

    aiohttp reads over as many as come. Each costs us a hundred times what it costs the server, in the loop that all
    pushes share: one connection full of them would hold up everybody's until its time is out.
    """

    async def start(self, connection: "Connection") -> aiohttp.ClientResponse:
        protocol = connection.protocol
        if protocol is None:
            raise aiohttp.ServerDisconnectedError
        read = protocol.read
        left = _INFORMATIONAL_MAX + 1

        async def read_few() -> Any:
            nonlocal left
            if left == 0:
                raise aiohttp.ClientPayloadError
            left -= 1
            return await read()

        # aiohttp has no limit of its own to set, and no hook but this read.
        protocol.read = read_few  # type: ignore[method-assign]
        try:
            return await super().start(connection)
        finally:
            del protocol.read


def _checked_socket(address: "AddrInfoType", nat64: Collection[IPv6Network] = ()) -> socket.socket:
    """Make the socket that is about to be connected to this address: the last look before a packet leaves."""
    family, kind, protocol, _, target = address
    if not is_public(str(target[0]), nat64):
        raise ForbiddenAddress("the host has no public address")
    return socket.socket(family, kind, protocol)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read what comes of a body in time. Less than all of it is not an error: the status has been read."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_WAIT):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > BODY_MAX:
                    response.close()
                    break
    except (aiohttp.ClientError, OSError):
        response.close()
    return bytes(body[:BODY_MAX])


def read_retry_after(text: str | None, now: float) -> float | None:
    """Read a Retry-After (RFC 9110 §10.2.3), seconds or a date, as seconds from 0 to `RETRY_AFTER_MAX`.

    Args:
        text: the header's value, if it is there.
        now: seconds since 1970.

    Returns:
        None where it says nothing that can be read.
    """
    if text is None:
        return None
    bare = text.strip(" \t")
    if _SECONDS.fullmatch(bare):
        wanted = float(bare)
    else:
        try:
            date = parsedate_to_datetime(text)
            wanted = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return min(max(wanted, 0.0), RETRY_AFTER_MAX)


def _describe(error: Exception) -> str:
    """Say what failed. aiohttp's own texts hold the host, and some the URL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the certificate is not valid"
    if isinstance(error, aiohttp.ClientSSLError):
        return "no TLS connection"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name does not resolve"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before an answer"
    if isinstance(error, aiohttp.ClientConnectionError | OSError | RuntimeError):
        return "no connection"
    return "the answer is not HTTP"
