"""The PROXY protocol, versions 1 and 2: who connected to the proxy, said before all else (HAProxy's specification).

Version 1 is a line of text of at most 107 bytes::

    PROXY TCP4 203.0.113.9 198.51.100.1 51234 443 CR LF

Version 2 is binary; what follows its addresses, and all of what it says of connections that have none, is skipped::

    signature 12 | version, command 1 | family, transport 1 | length 2 | addresses, TLVs

Nothing is guessed: where a header must be, anything else is an error, as soon as its bytes show it. Pure.
"""

import re
from typing import Final, NamedTuple

from relay.proxies import parse_address

MAX_HEADER: Final = 4096
"""Bytes of a whole version 2 header. Its length could say 64 KiB; certificates and names in TLVs take under 2."""
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
LOCAL: Final = SIGNATURE + b"\x20\x00\x00\x00"
"""A whole header that says: this is the proxy itself, which asks for its own sake (a health check)."""
PROXY_HEADER: Final = "proxy_header"
"""Under this name a transport gives, as extra info, the header that it has taken off itself."""

_V1_START: Final = b"PROXY "
_V1_MAX: Final = 107
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [ -~]*)?")
_PORT: Final = rb"(0|[1-9][0-9]{0,4})"
_V6: Final = rb"(?=[0-9A-Fa-f]*:)([0-9A-Fa-f:.]{2,45})"
_V1_TCP: Final = re.compile(
    rb"PROXY TCP(?:4 ([0-9.]{7,15}) ([0-9.]{7,15})|6 " + _V6 + b" " + _V6 + b") " + _PORT + b" " + _PORT
)
_HEAD: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED: Final = 0x00
# Family and transport, with the bytes of addresses and ports: TCP over IPv4 and IPv6, and a Unix stream.
_ADDRESSES: Final = {0x11: 12, 0x21: 36, 0x31: 216}
_UNIX_STREAM: Final = 0x31


class BadProxyHeader(Exception):
    """The bytes are no PROXY header, and no more bytes can make them one."""


class ProxyHeader(NamedTuple):
    """A complete header: how many bytes it takes, and the source that it names; None if it names none."""

    size: int
    source: bytes | None


def read_header(data: bytes | bytearray) -> ProxyHeader | None:
    """Read the header that `data` begins with; None while it is incomplete.

    Raises:
        BadProxyHeader: there is none, or one of more than 107 (version 1) or 4,096 bytes (version 2).
    """
    if data[:12] == SIGNATURE[: len(data)]:
        return _version_2(data) if len(data) >= _HEAD else None
    if data[:6] == _V1_START[: len(data)]:
        return _version_1(data)
    raise BadProxyHeader


def _version_1(data: bytes | bytearray) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(data) >= _V1_MAX:
            raise BadProxyHeader
        return None
    line = bytes(data[:end])
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader(end + 2, None)
    found = _V1_TCP.fullmatch(line)
    if found is None or max(int(found[5]), int(found[6])) > 65535:
        raise BadProxyHeader
    source, destination = (parse_address(text.decode("ascii")) for text in found.groups()[:4] if text is not None)
    if source is None or destination is None:
        raise BadProxyHeader
    return ProxyHeader(end + 2, source)


def _version_2(data: bytes | bytearray) -> ProxyHeader | None:
    command, kind = data[12], data[13]
    size = _HEAD + int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY) or size > MAX_HEADER:
        raise BadProxyHeader
    if command == _PROXY and kind != _UNSPECIFIED and (kind not in _ADDRESSES or size < _HEAD + _ADDRESSES[kind]):
        raise BadProxyHeader
    if len(data) < size:
        return None
    if command == _LOCAL or kind in (_UNSPECIFIED, _UNIX_STREAM):
        return ProxyHeader(size, None)
    if kind == 0x11:
        return ProxyHeader(size, bytes(data[_HEAD : _HEAD + 4]))
    source = bytes(data[_HEAD : _HEAD + 16])
    return ProxyHeader(size, source[12:] if source.startswith(bytes(10) + b"\xff\xff") else source)
