"""Codes, sizes and reasons of the mailbox, and what its bodies are read and written with (docs/mailbox.md).

Codes below 0x70 are those of the web app's mailbox: they carry no request id, so one request is under way at a time.
Those from 0x70 on are ours, and each answer bears the request id of what it answers. The numbers overlap with those of
other peers' commands, for nobody is both.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

from keys.deposit import SIZE_CLASSES
from keys.packet import OVERHEAD
from keys.primitives import KEY_SIZE
from wire.errors import BadBody, LocalError
from wire.limits import INNER_HEAD, MAX_FRAME, MIN_FRAME

T = TypeVar("T")

BODY_MAX: Final = MAX_FRAME - MIN_FRAME - INNER_HEAD
"""Most bytes of a body that one frame can carry (1,048,461)."""
TOKEN_MAX: Final = 64
"""Most bytes of an access token in a DEPOSIT."""
ACK_MAX: Final = 1024
"""Most numbers in one ACK."""
ENV_MIN: Final = KEY_SIZE + OVERHEAD
"""Bytes of the shortest envelope of the web app: the sender's key and a packet with nothing in it (136)."""
ITEM_MAX: Final = SIZE_CLASSES[-1]
"""Most bytes of one held item, ours or the app's (256 KiB): three of them fit one LEASE."""

REQUEST_SIZE: Final = 4
"""Bytes of a request id: the client's own count."""
NUMBER_SIZE: Final = 8
"""Bytes of an item's number. It means something for one recipient only, and begins anywhere."""
ITEM_HEAD: Final = NUMBER_SIZE + 1 + 4 + 4
_LEASE_HEAD: Final = REQUEST_SIZE + 2 + 4 + 4 + 8
LEASE_ROOM: Final = BODY_MAX - _LEASE_HEAD
"""Bytes of one LEASE for its items; each takes 17 and its own."""


class MailboxCommand(IntEnum):
    """Codes between a mailbox and its clients; the arrows tell who sends them. `request` is a u32 LE."""

    STORE = 0x01  # c→m  recipient_x_pub(32) env, env = sender_x_pub(32) packet
    FETCH_NEXT = 0x02  # c→m  empty
    DELETE = 0x03  # c→m  recipient_x_pub(32) env
    DELIVERY = 0x10  # m→c  env
    EMPTY = 0x11  # m→c  empty
    TOO_BIG = 0x12  # m→c  empty
    FULL = 0x13  # m→c  empty
    STORED = 0x14  # m→c  empty
    DELETED = 0x15  # m→c  empty
    NOT_FOUND = 0x16  # m→c  empty
    DEPOSIT = 0x70  # c→m  request recipient_x_pub(32) ttl_s(u32) drop_digest(16) stamp(17) token_size(1) token deposit
    FETCH = 0x71  # c→m  request limit(u16)
    ACK = 0x72  # c→m  request refusals(u32) n × uint(u64)
    LIST = 0x73  # c→m  request
    DROP = 0x74  # c→m  request recipient_x_pub(32) secret(32)
    INFO = 0x75  # c→m  request
    RESTORE = 0x76  # c→m  request
    KEPT = 0x78  # m→c  request expires_in_s(u32)
    LEASE = 0x79  # m→c  request lease_s(u16) left(u32) refusals(u32) since_ms(u64) items
    ACKED = 0x7A  # m→c  request count(u32)
    COUNTS = 0x7B  # m→c  request items(u32) bytes(u64) leased(u32) restorable(u32) refusals(u32) since_ms(u64)
    DROPPED = 0x7C  # m→c  request found(1)
    ABOUT = 0x7D  # m→c  request now_ms(u64) bits(1) access(1) ttl_s(u32) ttl_max_s(u32) item(u32) items(u32) bytes(u64)
    REFUSED = 0x7E  # m→c  request reason(1) bits(1)
    RESTORED = 0x7F  # m→c  request count(u32)


class Reason(IntEnum):
    """Why a request was refused: a byte of REFUSED. A reason that is not known is as good as FAILED."""

    FAILED = 0  # the mailbox could not: try again later
    FULL = 1  # it holds as much as it may, for this recipient or in all
    TOO_BIG = 2  # the deposit has more bytes than it takes
    BAD_DEPOSIT = 3  # no size class, a key that nobody can have, a secret's digest that serves for something else
    TOO_FAST = 4  # this depositor or address has to wait
    STAMP_CHEAP = 5  # `bits` are asked for
    STAMP_WRONG = 6  # it is for something else
    STAMP_TIME = 7  # its time is too far from the mailbox's, or it is from before what the mailbox remembers
    STAMP_USED = 8  # the deposit that it was for had come already, and is held no more
    NOT_SERVED = 9  # this recipient is none of those that the mailbox serves
    TOKEN = 10  # the mailbox wants a token, and this is none of its own
    BAD_REQUEST = 11  # it does not fit its layout


class Access(IntEnum):
    """A byte of ABOUT: for whom or by whom deposits are taken."""

    OPEN = 0  # for everybody, by everybody
    RECIPIENTS = 1  # for some recipients
    TOKEN = 2  # by those who show a token


class ItemKind(IntEnum):
    """A byte of each item: what its bytes are."""

    DEPOSIT = 0  # keys.deposit
    ENVELOPE = 1  # sender_x_pub(32) packet, as the web app stores it


@dataclass(frozen=True, slots=True)
class Word:
    """A command without a body: FETCH_NEXT, or one of the app's answers but DELIVERY."""

    command: int

    def encode(self) -> bytes:
        return b""


class Reader:
    """Takes a body apart from its beginning; numbers are little endian."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes.

        Raises:
            BadBody: there are fewer, here and in all that follow.
        """
        if size > self.left:
            raise BadBody("the body is too short")
        self._at += size
        return self._body[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def u32(self) -> int:
        return self.number(4)

    def rest(self) -> bytes:
        return self.take(self.left)

    def end(self, value: T) -> T:
        """Return `value`, now that nothing is left."""
        if self.left:
            raise BadBody("the body is too long")
        return value


def uint(value: int, size: int) -> bytes:
    """Return a number in `size` bytes, little endian.

    Raises:
        LocalError: it does not fit.
    """
    if not 0 <= value < 1 << 8 * size:
        raise LocalError(f"this field is a u{8 * size}")
    return value.to_bytes(size, "little")


def u32(value: int) -> bytes:
    return uint(value, 4)


def sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise LocalError(f"this field has {size} bytes, not {len(value)}")
    return value


def at_least(body: bytes, size: int) -> None:
    if len(body) < size:
        raise BadBody(f"the body has {size} bytes or more")
