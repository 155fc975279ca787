"""The PROXY protocol: what is a header, what is none, and when that shows."""

from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.proxy_header import LOCAL, MAX_HEADER, SIGNATURE, BadProxyHeader, ProxyHeader, read_header

SOURCE: Final = bytes((203, 0, 113, 9))
SOURCE6: Final = bytes.fromhex("20010db8000100aa0000000000000007")
LINE: Final = b"PROXY TCP4 203.0.113.9 198.51.100.1 51234 443\r\n"
REQUEST: Final = b"GET /ws HTTP/1.1\r\n\r\n"


def version_2(kind: int, addresses: bytes, *, command: int = 0x21, tlvs: bytes = b"") -> bytes:
    size = len(addresses) + len(tlvs)
    return SIGNATURE + bytes((command, kind)) + size.to_bytes(2, "big") + addresses + tlvs


IPV4: Final = SOURCE + bytes((198, 51, 100, 1)) + b"\xc8\x22\x01\xbb"
IPV6: Final = SOURCE6 + bytes(16) + b"\xc8\x22\x01\xbb"

GOOD: Final = [
    (LINE, SOURCE),
    (b"PROXY TCP6 2001:db8:1:aa::7 2001:db8::1 51234 443\r\n", SOURCE6),
    (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 0 65535\r\n", SOURCE),
    (b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n", b"\xff" * 16),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (version_2(0x11, IPV4), SOURCE),
    (version_2(0x11, IPV4, tlvs=b"\x04\x00\x03abc"), SOURCE),
    (version_2(0x11, IPV4, tlvs=b"\x04" + REQUEST), SOURCE),
    (version_2(0x11, IPV4, tlvs=bytes(MAX_HEADER - 28)), SOURCE),
    (version_2(0x21, IPV6), SOURCE6),
    (version_2(0x21, bytes(10) + b"\xff\xff" + SOURCE + bytes(20)), SOURCE),
    (version_2(0x31, bytes(216)), None),
    (version_2(0x00, b""), None),
    (version_2(0x00, b"", tlvs=b"\x04\x00\x03abc"), None),
    (version_2(0x11, IPV4, command=0x20), None),
    (version_2(0xFF, b"anything", command=0x20), None),
    (LOCAL, None),
]

BAD: Final = [
    b"GET /ws HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00",
    b"PROXYTCP4",
    b"proxy TCP4 203.0.113.9 198.51.100.1 51234 443\r\n",
    b"PROXY TCP5 203.0.113.9 198.51.100.1 51234 443\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.1 51234\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.1 51234 443 \r\n",
    b"PROXY TCP4  203.0.113.9 198.51.100.1 51234 443\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.1 51234 65536\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.1 051234 443\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.1 -1 443\r\n",
    b"PROXY TCP4 203.0.113.256 198.51.100.1 51234 443\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100 51234 443\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 51234 443\r\n",
    b"PROXY TCP6 203.0.113.9 198.51.100.1 51234 443\r\n",
    b"PROXY TCP6 2001:db8::7 203.0.113.9 51234 443\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN \x00\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 " + b"1" * 96,
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    version_2(0x11, IPV4[:-1]),
    version_2(0x21, IPV4),
    version_2(0x31, IPV4),
    version_2(0x12, IPV4),  # a datagram
    version_2(0x41, bytes(36)),
    version_2(0x01, bytes(36)),
    version_2(0x11, IPV4, command=0x11),
    version_2(0x11, IPV4, command=0x22),
    version_2(0x11, IPV4, tlvs=bytes(MAX_HEADER - 27)),
    SIGNATURE[:-1] + b"\r\x21\x11\x00\x0c",
]


@pytest.mark.parametrize(("header", "source"), GOOD)
def test_a_header_in_any_pieces(header: bytes, source: bytes | None) -> None:
    for size in range(len(header)):
        assert read_header(header[:size]) is None
    assert read_header(header) == ProxyHeader(len(header), source)
    assert read_header(bytearray(header + REQUEST)) == ProxyHeader(len(header), source)


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        read_header(data)
    with pytest.raises(BadProxyHeader):
        read_header(data + REQUEST)


@pytest.mark.parametrize("data", BAD)
def test_a_verdict_stays(data: bytes) -> None:
    """What was refused at some byte is not a header with more of them, and what waits is not over yet."""
    refused = False
    for size in range(len(data) + 1):
        try:
            assert read_header(data[:size]) is None
            assert not refused
        except BadProxyHeader:
            refused = True
    assert refused


def test_an_http_request_is_refused_at_its_first_byte() -> None:
    with pytest.raises(BadProxyHeader):
        read_header(b"G")


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda data: SIGNATURE + data))
@example(b"")
def test_any_bytes_are_a_header_or_none(data: bytes) -> None:
    try:
        header = read_header(data)
    except BadProxyHeader:
        return
    if header is None:
        assert len(data) < MAX_HEADER
    else:
        assert 0 < header.size <= len(data)
        assert header.source is None or len(header.source) in (4, 16)
