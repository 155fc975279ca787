"""The URLs that push tokens hold, checked before anything is sent to them. No I/O.

A token comes from a stranger. What passes here is https, on a usual port, to a name that can be one of the public
internet; what the name resolves to is checked when we connect (`peers.notifier.outbound`). A host that the operator
allows, say an ntfy server in the same network, is exempt from both checks. One parser, yarl's, reads the host here and
for the connection, so that no two readings of it differ.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Self

from yarl import URL

URL_MAX: Final = 2048
"""Most characters of an endpoint. Those of browsers have some hundreds; UnifiedPush allows 1,000 bytes."""
PORTS: Final = frozenset((443, 8443))
"""Ports of hosts that nobody allowed. More would make the notifier a scanner of other people's ports."""
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# Controls, spaces and what RFC 3986 has no place for. A backslash is a slash to some readers of URLs, none to others.
_BAD_CHARACTERS: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\<>\"^`{|}]")
_SCHEME: Final = re.compile(r"https?://[^/?#]", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"^[^:]*://[^/?#]*")
# Of a name that is not read as a number: resolvers take 2130706433, 0x7f.1 and 0177.0.0.1 for 127.0.0.1.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# Names that are never public (RFC 6761, 6762, 7686, 8375, 9476; `internal` is reserved by ICANN). Asking for them would
# tell our resolver about somebody's network.
_NEVER_PUBLIC: Final = frozenset(
    ("alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test")
)


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """A host, its port and its scheme, that the operator allows although it may be anywhere."""

    host: str
    port: int
    scheme: str = "https"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``[http://|https://]HOST[:PORT]``. Without a scheme it is https, without a port the scheme's own.

        http has to be said: whoever registers must not be able to take TLS off a host that was allowed for its address.

        Raises:
            ValueError: it is nothing of that; the text says what is wrong.
        """
        shape = "an allowed host is [http://]HOST[:PORT], as in ntfy.example.org or http://10.0.0.5:8080"
        if _BAD_CHARACTERS.search(text):
            raise ValueError(shape)
        try:
            url = URL(text if "://" in text else f"https://{text}")
            host, port = url.raw_host, url.port
        except ValueError:
            raise ValueError(shape) from None
        if url.scheme not in _DEFAULT_PORTS or not host or not port or url.raw_path_qs != "/" or url.raw_fragment:
            raise ValueError(shape)
        if url.raw_user is not None or url.raw_password is not None:
            raise ValueError(shape)
        return cls(host.lower(), port, url.scheme)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL that passed. Neither it nor its origin is shown: the path is the secret that lets one push to a device."""

    url: URL = field(repr=False)
    origin: str = field(repr=False)
    """Scheme, host and, unless it is the scheme's own, port (RFC 6454 §6.2)."""
    allowed: bool
    """Whether it is on a host that the operator allowed: addresses are not checked then."""
    ours: bool = False
    """Whether the operator's settings name it, and no token: it shares no resolver and no connections with others."""


def check_endpoint(text: str, allowed: Collection[AllowedHost] = ()) -> Endpoint:
    """Check a URL.

    Raises:
        ValueError: nothing may be sent to it; the text says why and does not repeat it.
    """
    if len(text) > URL_MAX:
        raise ValueError(f"an endpoint has {URL_MAX} characters at most")
    if _BAD_CHARACTERS.search(text) or not _SCHEME.match(text):
        raise ValueError("an endpoint is an https:// URL")
    try:
        url = URL(text)
        host, port = url.raw_host, url.port
    except ValueError:
        raise ValueError("an endpoint is an https:// URL") from None
    if not host or not port:
        raise ValueError("an endpoint is an https:// URL")
    if url.raw_user is not None or url.raw_password is not None or "@" in url.raw_authority:
        raise ValueError("an endpoint has no user name")
    if url.raw_fragment:
        raise ValueError("an endpoint has no fragment")
    host = host.lower()
    by_operator = AllowedHost(host, port, url.scheme) in allowed
    if not by_operator:
        if url.scheme != "https":
            raise ValueError("an endpoint is an https:// URL")
        if port not in PORTS:
            raise ValueError("the endpoint's port is not " + " or ".join(map(str, sorted(PORTS))))
        _check_host(host)
    shown = f"[{host}]" if ":" in host else host
    suffix = "" if port == _DEFAULT_PORTS[url.scheme] else f":{port}"
    origin = f"{url.scheme}://{shown}{suffix}"
    rest = _AUTHORITY.sub("", text).removesuffix("#")
    if rest.isascii():
        # Path and query as they were written: yarl spells some escapes another way, which breaks signatures of URLs.
        url = URL(origin + (rest if rest.startswith("/") else f"/{rest}"), encoded=True)
    return Endpoint(url, origin, by_operator)


def _check_host(host: str) -> None:
    """Check the host as it is resolved, so after IDNA: that maps digits of other scripts to ours."""
    labels = host.split(".")
    if len(host) > 253 or len(labels) < 2 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("the endpoint's host is no public name")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError("the endpoint's host is a number, not a name")
    if labels[-1] in _NEVER_PUBLIC:
        raise ValueError("the endpoint's host is no public name")
