"""From a relay's address to an open WebSocket, and what each failure on the way means."""

import asyncio
import ipaddress
import logging
import os
import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidProxy, InvalidStatus, ProxyError, WebSocketException

from peers.client.errors import NotAdmitted
from peers.client.events import Reason
from peers.client.lost import Lost
from peers.client.options import ClientOptions
from peers.client.texts import plain, shown_url
from wire.limits import MAX_FRAME

CLOSE_TIMEOUT: Final = 2.0
"""Seconds for the relay's part of the closing handshake; there is nothing left to lose by then."""
UNREAD_MOST: Final = 8 * 1024 * 1024
"""Bytes that may wait for a relay that does not read. Sends wait long before; answers to its pings and challenges do
not wait, and would grow without end under a relay that asks and never reads."""
_HAPPY_EYEBALLS: Final = 0.25
"""Seconds until the next address of a name is tried as well (RFC 8305 §5): a dead IPv6 route costs no more."""

# At debug level websockets logs headers, among them the token, and frames. Nothing of this client is logged.
_silent: Final = logging.getLogger("peers.client.websockets")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)


class Socket(ClientConnection):
    """A WebSocket that notes when bytes came."""

    heard = 0.0
    """The event loop's time at which the last bytes came, of whatever kind: pings and parts of frames are life too."""

    def data_received(self, data: bytes) -> None:
        self.heard = self.loop.time()
        super().data_received(data)
        if self.transport.get_write_buffer_size() > UNREAD_MOST:
            self.transport.abort()


class _Connect(connect):
    """An opening that follows no redirect: the card names the address, and whoever sends us elsewhere is not asked."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def open_socket(url: str, options: ClientOptions) -> Socket:
    """Open a WebSocket to a relay.

    Raises:
        Lost: it cannot be reached now, or what answers is no relay.
        NotAdmitted: refused for the token or the address (401, 403).
    """
    where = shown_url(url)
    try:
        opened = await _Connect(url, **_how(url, options))
    except InvalidStatus as error:
        raise _refused(error, options, where) from None
    except (InvalidProxy, ProxyError, ImportError) as error:
        # Their own texts have the proxy's address, with its password.
        missing = ": a SOCKS proxy needs the package python-socks" if isinstance(error, ImportError) else ""
        raise Lost(Reason.PROXY, f"the proxy of this environment does not lead to {where}{missing}") from None
    except WebSocketException:
        raise Lost(Reason.NOT_A_RELAY, f"what answers at {where} opens no WebSocket: is the address right?") from None
    except ssl.SSLError as error:
        told = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason or "no TLS"
        raise Lost(Reason.TLS, f"no trusted TLS with {where}: {plain(told)}") from None
    except (OSError, ValueError) as error:  # a ValueError: a host name that cannot be looked up
        told = _told(error) if isinstance(error, OSError) else "no such host name"
        raise Lost(Reason.UNREACHABLE, f"cannot reach {where}: {plain(told, 200)}") from None
    if not isinstance(opened, Socket):
        raise TypeError("websockets made another connection than the one it was told to make")
    return opened


def _told(error: OSError) -> str:
    # asyncio puts addresses into the texts of failed connects; those of look-ups have numbers below 0.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _how(url: str, options: ClientOptions) -> dict[str, Any]:
    how: dict[str, Any] = {
        "compression": None,  # ciphertext does not compress
        "ping_interval": None,  # the liveness of the relay's own pings is enough
        "open_timeout": None,  # the caller's holds for the handshake too
        "close_timeout": CLOSE_TIMEOUT,
        "max_size": MAX_FRAME,
        "logger": _silent,
        "create_connection": Socket,
        "user_agent_header": None,  # nobody needs to know what we run
        "proxy": None if is_loopback(url) else True,
    }
    if options.token is not None:
        how["additional_headers"] = {"Authorization": f"Bearer {options.token}"}
    if options.ssl is not None and url.startswith("wss:"):
        how["ssl"] = options.ssl
    if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):  # uvloop has no such argument
        how["happy_eyeballs_delay"] = _HAPPY_EYEBALLS
    return how


def is_loopback(url: str) -> bool:
    """Tell whether an address is this machine's own, which no proxy may be asked for: it has a loopback of its own."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1 and its like
        except (OSError, UnicodeError):
            return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _refused(error: InvalidStatus, options: ClientOptions, where: str) -> Lost | NotAdmitted:
    status = error.response.status_code
    if status == HTTPStatus.UNAUTHORIZED:
        if options.token is None:
            return NotAdmitted("it asks for an admission token, and none is set: ask its operator for one")
        return NotAdmitted("the admission token is not valid, or no longer: ask its operator for the present one")
    if status == HTTPStatus.FORBIDDEN:
        return NotAdmitted("it is not open to the network address from which we come (HTTP 403): ask its operator")
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        values = error.response.headers.get_all("Retry-After")
        asked = retry_after(values[0], datetime.now(UTC)) if values else None
        return Lost(Reason.BUSY, f"{where} takes nobody at the moment (HTTP {status})", asked)
    return Lost(
        Reason.NOT_A_RELAY,
        f"{where} answers HTTP {status} and opens no WebSocket: is the address right, path included?",
    )


def retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110 §10.2.3), or None for one that cannot be read."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())
