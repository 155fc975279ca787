"""The client's side of RFC 6455, as much of it as a load generator needs, over bytes."""

import os
from collections.abc import Iterator
from typing import NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel for this platform
    from websockets.utils import apply_mask

BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA
_FIN = 0x80
_MASKED = 0x80


class BadStream(Exception):
    """What came is not what a relay of protocol v2 sends, or not what was sent through it."""


class Message(NamedTuple):
    """One frame from the relay."""

    opcode: int
    payload: bytes


def upgrade_request(host: str, path: str) -> bytes:
    """Return the HTTP request that opens a WebSocket, as plain as a browser's."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def masked(payload: bytes, opcode: int = BINARY, key: bytes | None = None) -> bytes:
    """Return a whole masked frame; the masking key is random unless given."""
    key = os.urandom(4) if key is None else key
    size = len(payload)
    if size < 126:
        head = bytes((_FIN | opcode, _MASKED | size))
    elif size < 65536:
        head = bytes((_FIN | opcode, _MASKED | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FIN | opcode, _MASKED | 127)) + size.to_bytes(8, "big")
    return head + key + apply_mask(payload, key)


def unmasked_head(size: int) -> bytes:
    """Return the head of a binary frame as a relay sends it: what a delivered frame begins with."""
    if size < 126:
        return bytes((_FIN | BINARY, size))
    if size < 65536:
        return bytes((_FIN | BINARY, 126)) + size.to_bytes(2, "big")
    return bytes((_FIN | BINARY, 127)) + size.to_bytes(8, "big")


def frame_size(data: bytes | bytearray, at: int = 0) -> int | None:
    """Return the bytes of the unmasked frame that begins at `at`, None while its head is incomplete.

    Raises:
        BadStream: a masked or fragmented frame, which no relay of ours sends.
    """
    have = len(data) - at
    if have < 2:
        return None
    if not data[at] & _FIN or data[at + 1] & _MASKED:
        raise BadStream("a relay's frame is whole and not masked")
    length = data[at + 1]
    if length < 126:
        return 2 + length
    width = 2 if length == 126 else 8
    if have < 2 + width:
        return None
    return 2 + width + int.from_bytes(data[at + 2 : at + 2 + width], "big")


def take_messages(buffer: bytearray) -> Iterator[Message]:
    """Remove whole frames from the front of `buffer`, one at a time."""
    while (size := frame_size(buffer)) is not None and size <= len(buffer):
        head = 2 if buffer[1] < 126 else 4 if buffer[1] == 126 else 10
        message = Message(buffer[0] & 0x0F, bytes(buffer[head:size]))
        del buffer[:size]
        yield message
