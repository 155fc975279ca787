"""Frames as any client might write them, right or wrong, byte by byte; and ways to cut a stream into chunks."""

import random
from collections.abc import Iterable, Iterator
from typing import Final

CONT: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

KEY: Final = b"\xa5\x17\x3c\xe9"
"""Four different bytes: a mask that is shifted, repeated or cut short gives a wrong payload."""

_PATTERN: Final = random.Random(6455).randbytes(200_000)


def payload(size: int, salt: int = 0) -> bytes:
    """Return `size` bytes of which no two stretches are alike; another `salt`, other bytes."""
    return _PATTERN[salt : salt + size]


def apply_key(data: bytes, key: bytes) -> bytes:
    """Mask as RFC 6455 §5.3 words it; neither side of the comparison is asked."""
    stream = key * (len(data) // 4 + 1)
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream[: len(data)], "big")).to_bytes(len(data), "big")


def raw(
    opcode: int,
    data: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = KEY,
    form: int = 7,
    claim: int | None = None,
) -> bytes:
    """Return one frame (RFC 6455 §5.2).

    `key` None: not masked. `form`: bits for the length, 7, 16 or 64; more are taken where that is too few. `claim`: the
    length to state, instead of that of `data`.
    """
    first = fin << 7 | rsv << 4 | opcode
    masked = 0 if key is None else 0x80
    length = len(data) if claim is None else claim
    if form == 7 and length < 126:
        head = bytes((first, masked | length))
    elif form <= 16 and length < 1 << 16:
        head = bytes((first, masked | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, masked | 127)) + length.to_bytes(8, "big")
    return head + data if key is None else head + key + apply_key(data, key)


def pieces(stream: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """Cut a stream at these positions; positions out of it are left out, and no piece is empty."""
    start = 0
    for cut in sorted({cut for cut in cuts if 0 < cut < len(stream)}):
        yield stream[start:cut]
        start = cut
    if stream:
        yield stream[start:]


def steps(stream: bytes, size: int) -> Iterator[bytes]:
    """Cut a stream into pieces of `size` bytes."""
    for start in range(0, len(stream), size):
        yield stream[start : start + size]
