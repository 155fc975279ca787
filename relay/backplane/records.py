"""What the streams between nodes carry. Pure.

A *parcel* is something for an id, wherever that is: the node that has it takes it, any other sends it back. All parcels
begin alike: ``tries(1) target(8) sender(8)``. Ids inside of a cluster travel in clear within sealed streams: the nodes
are one relay, and a relay routes by them.
"""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from keys.identity import ID_SIZE
from keys.primitives import KEY_SIZE, NONCE_SIZE
from relay.backplane.outgoing import FRAME, RECORD

PARCEL: Final = Struct(f">B{ID_SIZE}s{ID_SIZE}s")


class Kind(IntEnum):
    """The first byte of a record. A node counts what it does not know, acknowledges it, and goes on behind it."""

    FRAME = FRAME  # parcel: a client's packet
    INTRODUCE = 2  # parcel: x_pub(32) ed_pub(32) nickname
    WAKE = 3  # parcel for the one to be woken, to be passed to the notifier unless they are awake: [type(1)]
    TO_NOTIFIER = 4  # parcel for the notifier: command(1) body
    BOUNCED = 5  # a parcel that came back: kind(1) and all of it
    REFUSED = 6  # a frame that came and was not delivered: sender(8) target(8) nonce(24) reason(1)
    RECOVERED = 7  # a recipient that refused frames takes them again: sender(8) x_pub(32)
    CLAIM = 8  # number(4) age(8, microseconds) x_pub(32) ed_pub(32)
    CLAIM_ANSWER = 9  # number(4) verdict(1)
    CLAIM_OFF = 10  # number(4): the newcomer left, or is decided after it was told that the id is free
    CAME = 11  # x_pub(32) of a new session
    WENT = 12  # x_pub(32) of a session that ended
    WHO = 13  # number(4) x_pub(32)…: which of these are with you?
    HERE = 14  # number(4) x_pub(32)…
    HOLDS = 15  # (id(8) serial(4) age(8, microseconds))…
    DROP = 16  # id(8) serial(4): this session is the one of two that goes
    SPENT = 17  # rate(1) (address digest(16) tokens(4))…
    PLACES = 18  # (address digest(16) connections(4))…
    SEEN = 19  # serial(8) memory(1) key digest(16) nonce digest(8)
    LEAVE = 20  # this node goes; it ended its sessions
    SYNC = 21  # number(4) id(8): all that was for this id came before; what follows knows what came back of that
    SYNCED = 22  # number(4): all before that SYNC was taken, and what came of it was said
    MEET = 23  # serial(8) have(8) whole(1): nonces that we took, how many of yours we have, whether we have the past
    MISSED = 24  # serial of the first(8) (memory(1) key digest(16) nonce digest(8))…
    PAST_ASKED = 25  # parts(1) of the memory: 1 for the next one, more to begin
    PAST = 26  # memory(1) (key digest(16) count(2) nonce digest(8)…)…
    PAST_ENDED = 27  # (node(8) nonces of it(8))…
    LACKS = 28  # rate(1) (digest(16) missing tokens(4, thousandths))…
    RETRY = 29  # (sender(8) target(8))…: refused on the way, which is free now; RECOVERED when it is to be sent again


class Parcel(NamedTuple):
    """Something for an id."""

    kind: int
    tries: int
    target: bytes
    sender: bytes
    payload: bytes
    origin: object
    """Whom to tell if it cannot be delivered: the sender's session, or None for what is not told."""

    def encode(self) -> bytes:
        """Return the record."""
        body = PARCEL.pack(self.tries, self.target, self.sender) + self.payload
        return RECORD.pack(self.kind, len(body)) + body

    @property
    def size(self) -> int:
        """Bytes that it holds while it waits, about."""
        return len(self.payload) + 160


def parse_parcel(kind: int, body: bytes, origin: object = None) -> Parcel | None:
    """Return a parcel, or None if it is none."""
    if len(body) < PARCEL.size:
        return None
    tries, target, sender = PARCEL.unpack_from(body)
    return Parcel(kind, tries, target, sender, body[PARCEL.size :], origin)


_REFUSED: Final = Struct(f">{ID_SIZE}s{ID_SIZE}s{NONCE_SIZE}sB")


def encode_refused(sender: bytes, target: bytes, nonce: bytes, reason: int) -> bytes:
    """Return the body of REFUSED."""
    return _REFUSED.pack(sender, target, nonce, reason)


def parse_refused(body: bytes) -> tuple[bytes, bytes, bytes, int] | None:
    """Return sender, target, nonce and reason; None if it is something else."""
    return _REFUSED.unpack(body) if len(body) == _REFUSED.size else None


def split(body: bytes, size: int) -> Iterator[bytes]:
    """Yield the parts of `size` bytes that a body consists of; an incomplete last one is left out."""
    for start in range(0, len(body) - size + 1, size):
        yield body[start : start + size]


CLAIM: Final = Struct(f">IQ{KEY_SIZE}s{KEY_SIZE}s")
HOLD: Final = Struct(f">{ID_SIZE}sIQ")
DROP: Final = Struct(f">{ID_SIZE}sI")
PAIR: Final = Struct(f">{ID_SIZE}s{ID_SIZE}s")
SPENT: Final = Struct(">16sI")
LACK: Final = Struct(">16sI")
SERIAL: Final = Struct(">Q")
NONCE: Final = Struct(">B16s8s")
SEEN: Final = Struct(">QB16s8s")
MEET: Final = Struct(">QQ?")
NEVER: Final = 2**64 - 1
"""How many of a node's nonces somebody has who never met it."""
RING: Final = Struct(">16sH")
HAVE: Final = Struct(">8sQ")
KEYS_PER_RECORD: Final = 1024
