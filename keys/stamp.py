"""Stamps: proof of work that a mailbox may ask for a deposit (docs/mailbox.md).

    stamp  = minted_ms(u64 LE) bits(u8) count(u64 LE)                            17 bytes
    head   = BLAKE3 derive_key( "blindrelay stamp 1",
                 mailbox_x_pub(32) recipient_x_pub(32) body_digest(32) minted_ms(u64 LE) bits(u8) )
    digest = BLAKE3 keyed( head, count(u64 LE) ), of which the first `bits` bits are zero

A stamp is worth its `bits` for one deposit, to one recipient, in one mailbox, for some minutes. The bits aimed at are
part of what is hashed: whoever works for few of them and finds more by luck cannot sell the stamp as a dear one. The
body is bound, so that a stamp cannot be taken from one deposit for another; that the same deposit comes again with it
is for the mailbox to see. The time lets it forget stamps.

A price, no proof of honesty: it makes the deposits of a flood cost as much as they cause, and those of a person
nothing that they notice. Twenty bits are a million digests: about a second of one core in Python, and no more than
thousandths of one on a graphics card.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from keys import primitives as p

STAMP_SIZE: Final = 17
NO_STAMP: Final = bytes(STAMP_SIZE)
"""What is sent where none is asked for."""
BITS_MAX: Final = 30
"""Most bits that anybody mints or may ask for: some quarter of an hour of one core."""
WINDOW: Final = 10 * 60 * 1000
"""Milliseconds by which a stamp's time may differ from the mailbox's, either way."""

_CONTEXT: Final = "blindrelay stamp 1"
_BODY_CONTEXT: Final = "blindrelay stamp body 1"
_DIGEST: Final = 8
_BITS: Final = 8 * _DIGEST


class StampFault(StrEnum):
    """Why a stamp is not taken."""

    CHEAP = "cheap"
    """It commits to fewer bits than are asked for, or there is none."""
    TIME = "time"
    """Its time is too far from the mailbox's."""
    WRONG = "wrong"
    """Its digest has not the zeros that it commits to: it is for something else, or was never worked for."""


def mint_stamp(
    mailbox_x_pub: bytes,
    recipient_x_pub: bytes,
    body: bytes,
    now: int,
    bits: int,
    random_bytes: Callable[[int], bytes] = p.random_bytes,
) -> bytes:
    """Return a stamp (17 bytes) worth `bits` for one deposit. Takes about 2**bits digests: not for an event loop.

    Args:
        body: the deposit.
        now: milliseconds since 1970 by the mailbox's clock, which it tells beside its price.
        bits: 0 to 30. A mailbox that asks for more is not to be used.

    Raises:
        ValueError: `bits` out of bounds.
    """
    if not 0 <= bits <= BITS_MAX:
        raise ValueError(f"a stamp has 0 to {BITS_MAX} bits, not {bits}")
    head = _head(mailbox_x_pub, recipient_x_pub, body, now, bits)
    # From anywhere: two who mint for the same do not find the same stamp.
    count = int.from_bytes(random_bytes(8), "little")
    while _zeros(head, count) < bits:
        count = (count + 1) % (1 << 64)
    return now.to_bytes(8, "little") + bytes((bits,)) + count.to_bytes(8, "little")


def check_stamp(
    stamp: bytes, mailbox_x_pub: bytes, recipient_x_pub: bytes, body: bytes, now: int, bits: int
) -> StampFault | None:
    """Tell what is wrong with a stamp for which `bits` are asked; None if nothing is. It is not known to be a first.

    Args:
        stamp: 17 bytes; any others are CHEAP.
        now: milliseconds since 1970.
    """
    if bits <= 0:
        return None
    if len(stamp) != STAMP_SIZE or stamp[8] < bits:
        return StampFault.CHEAP
    minted = stamp_time(stamp)
    if abs(now - minted) > WINDOW:
        return StampFault.TIME
    head = _head(mailbox_x_pub, recipient_x_pub, body, minted, stamp[8])
    if stamp[8] > BITS_MAX or _zeros(head, int.from_bytes(stamp[9:], "little")) < stamp[8]:
        return StampFault.WRONG
    return None


def stamp_time(stamp: bytes) -> int:
    """Return when a stamp says that it was minted, in milliseconds since 1970."""
    return int.from_bytes(stamp[:8], "little")


def _head(mailbox_x_pub: bytes, recipient_x_pub: bytes, body: bytes, minted: int, bits: int) -> bytes:
    digest = p.derive_key(_BODY_CONTEXT, body)
    bound = mailbox_x_pub + recipient_x_pub + digest + minted.to_bytes(8, "little") + bytes((bits,))
    return p.derive_key(_CONTEXT, bound)


def _zeros(head: bytes, count: int) -> int:
    digest = p.keyed_digest(head, count.to_bytes(8, "little"), _DIGEST)
    return _BITS - int.from_bytes(digest, "big").bit_length()
