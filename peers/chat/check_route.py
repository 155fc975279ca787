"""Checks of the way to a relay: its name, its port, its certificate, its pages, its clock."""

import asyncio
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from keys.invite import RelayCard
from peers.chat.exits import Exit
from peers.chat.findings import Finding, fail, ok, warn
from peers.chat.text import clean_line
from peers.client.opening import is_loopback
from wire.limits import PROTOCOL_VERSION

_ADDRESSES: Final = 8
_INFO_MAX: Final = 65536
_EXPIRES_SOON: Final = 14
"""Days: programs that renew certificates do so a month before they end."""
_SKEW_MOST: Final = 60.0
"""Seconds. Certificates and the times of messages go by the clock; the protocol itself has none."""
_SHOWN: Final = 300


@dataclass(slots=True)
class Route:
    """Where a relay is.

    Attributes:
        card: its card.
        timeout: seconds for each step.
        trust: certificates that are trusted, in place of the system's trust.
        limits: what `/info` says of its limits.
    """

    card: RelayCard
    timeout: float
    trust: ssl.SSLContext | None
    limits: dict[str, Any] | None = None

    @property
    def secure(self) -> bool:
        return self.card.url.startswith("wss:")

    @property
    def host(self) -> str:
        return urlsplit(self.card.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.card.url).port or (443 if self.secure else 80)

    @property
    def info_url(self) -> str:
        """Where `/info` is: beside the WebSocket, also below a prefix of a proxy. Without the query of the card's
        address, which may hold a token."""
        parts = urlsplit(self.card.url)
        path = parts.path.rpartition("/")[0]
        return f"{'https' if self.secure else 'http'}://{parts.netloc}{path}/info"

    @property
    def proxied(self) -> bool:
        """Whether this environment has connections to it go by a proxy."""
        if is_loopback(self.card.url):
            return False
        with suppress(Exception):  # what it makes of odd variables shows when the client connects
            return get_proxy(parse_uri(self.card.url)) is not None
        return True

    def context(self) -> ssl.SSLContext:
        return self.trust or ssl.create_default_context()


async def check_route(route: Route) -> AsyncIterator[Finding]:
    """Look at name, port and certificate, as long as one step makes sense after the other."""
    if route.proxied:
        yield warn("route", "connections to the relay go by a proxy: name, port and certificate were not looked at")
        return
    addresses: list[tuple[str, int]] = []
    async for finding in _dns(route, addresses):
        yield finding
    if not addresses:
        return
    reached = await _tcp(route, addresses)
    yield reached
    if reached.exit_status is Exit.DONE:
        yield (
            await asyncio.to_thread(_tls, route)
            if route.secure
            else ok("tls", "none, by the card: the relay's own encryption stands alone", used=False)
        )


async def _dns(route: Route, addresses: list[tuple[str, int]]) -> AsyncIterator[Finding]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(route.timeout):
            found = await loop.getaddrinfo(route.host, route.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        yield fail("dns", f"{route.host}: no answer from the name server", "is this machine online?", Exit.NOT_IN_TIME)
        return
    except (OSError, UnicodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "not a host name"
        fix = "is this machine online, and the relay's address right?"
        yield fail("dns", f"{route.host}: {told}", fix, Exit.NOT_IN_TIME)
        return
    addresses += list(dict.fromkeys((str(each[4][0]), int(each[4][1])) for each in found))[:_ADDRESSES]
    shown = ", ".join(address for address, _ in addresses)
    text = "no name, but an address" if shown == route.host else f"{route.host} is {shown}"
    yield ok("dns", text, addresses=[address for address, _ in addresses])


async def _tcp(route: Route, addresses: list[tuple[str, int]]) -> Finding:
    took, failed = [], []
    for address, port in addresses:
        before = time.perf_counter()
        try:
            async with asyncio.timeout(route.timeout):
                _, writer = await asyncio.open_connection(address, port)
        except OSError as error:  # TimeoutError is one
            failed.append(f"{address}: {_reason(error)}")
            continue
        took.append((time.perf_counter() - before) * 1000)
        writer.transport.abort()
    if not took:
        fix = "is the relay running, and no firewall between?"
        return fail("tcp", f"port {route.port}: {'; '.join(failed)}", fix, Exit.NOT_IN_TIME, port=route.port)
    text = f"port {route.port} answers within {min(took):.0f} ms"
    data = {"port": route.port, "milliseconds": round(min(took), 1)}
    if failed:
        fix = "tell its operator, or look at your IPv6: each connection may lose time there"
        return warn("tcp", f"{text}, but not at {'; '.join(failed)}", fix, **data)
    return ok("tcp", text, **data)


def _tls(route: Route) -> Finding:
    try:
        with (
            socket.create_connection((route.host, route.port), route.timeout) as connection,
            route.context().wrap_socket(connection, server_hostname=route.host) as tls,
        ):
            certificate, version = tls.getpeercert() or {}, tls.version()
    except ssl.SSLCertVerificationError as error:
        told = clean_line(error.verify_message, _SHOWN)
        fix = "an expired one its operator renews; look at this machine's clock too; one of their own they give to you"
        return fail("tls", f"the certificate is not trusted: {told}", fix, Exit.NOT_IN_TIME)
    except (OSError, ValueError) as error:
        told = clean_line((error.reason or "") if isinstance(error, ssl.SSLError) else _reason(error), _SHOWN)
        fix = "is it wss:// and not ws://, and the port right?"
        return fail("tls", f"no TLS there: {told}", fix, Exit.NOT_IN_TIME)
    ends = str(certificate.get("notAfter", ""))
    if not ends:
        return warn("tls", f"{version}; what is trusted here says nothing of the certificate's end", used=True)
    left = ssl.cert_time_to_seconds(ends) - time.time()
    days = int(left // 86400)
    data = {"used": True, "version": version, "days_left": days}
    text = f"{version}, the certificate is good for {days} days"
    if days < _EXPIRES_SOON:
        return warn("tls", text, "tell its operator that it was not renewed", **data)
    return ok("tls", text, **data)


# --- Pages ------------------------------------------------------------------------------------------------------------


async def check_pages(route: Route) -> AsyncIterator[Finding]:
    """Compare `/info` with the card, and the clocks."""
    page = await asyncio.to_thread(_fetch, route)
    for finding in _info(route, page):
        yield finding
    yield _clock(page)


@dataclass(frozen=True, slots=True)
class _Page:
    """What came of a request: a body, or why there is none; `skew` is how far the clock there is ahead, in seconds."""

    body: bytes | None
    trouble: str = ""
    skew: float | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nowhere: the card names the address, and whoever sends us elsewhere is not asked."""


def _fetch(route: Route) -> _Page:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_loopback(route.card.url):
        handlers.append(urllib.request.ProxyHandler({}))
    if route.secure:
        handlers.append(urllib.request.HTTPSHandler(context=route.context()))
    opener = urllib.request.build_opener(*handlers)
    # The scheme is one of two, and made by us.
    request = urllib.request.Request(route.info_url, headers={"Accept": "application/json", "User-Agent": ""})  # noqa: S310
    before = time.time()
    try:
        with opener.open(request, timeout=route.timeout) as response:
            skew = _skew(response.headers, before, time.time())
            body = response.read(_INFO_MAX + 1)
    except urllib.error.HTTPError as error:
        with error:
            return _Page(None, f"HTTP {error.code}", _skew(error.headers, before, time.time()))
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return _Page(None, clean_line(_reason(reason) if isinstance(reason, OSError) else type(error).__name__, _SHOWN))
    return _Page(body, "", skew)


def _skew(headers: Message, before: float, after: float) -> float | None:
    try:
        when = parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    there = when.timestamp()  # whole seconds: cut, so on average half a second ago
    # Some time between: the answer was made after the question was sent and before it came.
    return 0.0 if before - 1 <= there <= after else there + 0.5 - (before + after) / 2


def _info(route: Route, page: _Page) -> list[Finding]:
    if page.body is None:
        fix = "a relay of other software has no such page; all else may work"
        return [warn("info", f"the relay has no /info: {page.trouble}", fix)]
    try:
        fields = json.loads(page.body) if len(page.body) <= _INFO_MAX else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return [warn("info", "/info is not what relays of ours say of themselves", "a relay of other software")]
    limits = fields.get("limits")
    route.limits = limits if isinstance(limits, dict) else None
    public = route.card.public
    told = [fields.get("x25519_public"), fields.get("ed25519_public")]
    if told not in ([public.x_pub.hex(), public.ed_pub.hex()], [None, None]):
        fix = "ask its operator for the present card by a way that you trust; do not just take the one that it shows"
        return [
            fail("info", "the relay says that it has other keys than its card", fix, Exit.REFUSED, keys_equal=False)
        ]
    versions = fields.get("protocol_versions")
    if isinstance(versions, list) and versions and PROTOCOL_VERSION not in versions:
        newer = all(isinstance(each, int) and each > PROTOCOL_VERSION for each in versions)
        fix = "update this program" if newer else "ask its operator to update it"
        return [fail("info", "the relay speaks other versions of the protocol than we do", fix, Exit.REFUSED)]
    name = clean_line(f"{fields.get('software') or 'unknown software'} {fields.get('version') or ''}", 100)
    keys = "with the keys of the card" if told[0] is not None else "which does not tell its keys"
    found = [ok("info", f"{name}, {keys}", software=name, keys_equal=told[0] is not None or None)]
    notice = fields.get("notice")
    if isinstance(notice, str) and notice:
        text = clean_line(notice, _SHOWN)
        found.append(warn("notice", f"its operator says: {text}", "read it: it may be about the end of the relay"))
    return found


def _clock(page: _Page) -> Finding:
    if page.skew is None:
        return warn("clock", "it could not be compared: the relay does not say what time it is")
    skew = round(page.skew, 1)
    if abs(skew) > _SKEW_MOST:
        here = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        side = "behind" if skew > 0 else "ahead of"
        text = f"this machine's ({here}) is {abs(skew):.0f} s {side} the relay's"
        return warn("clock", text, "set it (timedatectl): certificates and times of messages go by it", skew=skew)
    return ok("clock", f"within {max(1.0, abs(skew)):.0f} s of the relay's", skew=skew)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
