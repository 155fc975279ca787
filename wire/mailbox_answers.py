"""What a mailbox says, each answer with its byte layout (docs/mailbox.md); see :mod:`wire.mailbox_commands`."""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from wire.commands import Unknown
from wire.errors import BadBody, LocalError
from wire.mailbox_codes import (
    BODY_MAX,
    ENV_MIN,
    ITEM_HEAD,
    NUMBER_SIZE,
    MailboxCommand,
    Reader,
    Word,
    at_least,
    u32,
    uint,
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The next envelope. ``sender_x_pub(32) packet``"""

    command: ClassVar[int] = MailboxCommand.DELIVERY
    env: bytes = field(repr=False)

    def encode(self) -> bytes:
        if len(self.env) < ENV_MIN:
            raise LocalError(f"an envelope has {ENV_MIN} bytes or more")
        return self.env

    @classmethod
    def parse(cls, body: bytes) -> Self:
        at_least(body, ENV_MIN)
        return cls(body)


@dataclass(frozen=True, slots=True)
class Kept:
    """It is held, on disk. ``request(4) expires_in_s(u32)``: a longer ttl than the mailbox's longest is cut."""

    command: ClassVar[int] = MailboxCommand.KEPT
    request: int
    expires_in: int

    def encode(self) -> bytes:
        return u32(self.request) + u32(self.expires_in)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        return read.end(cls(read.u32(), read.u32()))


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a LEASE. ``uint(u64) kind(1) expires_in_s(u32) size(u32) bytes``

    Attributes:
        number: what an ACK names it by.
        kind: :class:`ItemKind`; what is of another kind is for a newer client.
        expires_in: seconds.
    """

    number: int
    kind: int
    expires_in: int
    content: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes that it takes in a LEASE."""
        return ITEM_HEAD + len(self.content)

    def encode(self) -> bytes:
        head = uint(self.number, NUMBER_SIZE) + uint(self.kind, 1) + u32(self.expires_in)
        return head + u32(len(self.content)) + self.content


@dataclass(frozen=True, slots=True)
class Lease:
    """Items that are yours for `lease` seconds: acknowledge them, or they are handed out again.

    ``request(4) lease_s(u16) left(u32) refusals(u32) since_ms(u64) items``

    Attributes:
        left: how many more there are that are not handed out.
        refusals: how many deposits for you were refused for want of room, and that no ACK has named.
        since: when the first of these was, milliseconds since 1970; 0 if there are none.
    """

    command: ClassVar[int] = MailboxCommand.LEASE
    request: int
    lease: int
    left: int
    items: tuple[Item, ...]
    refusals: int = 0
    since: int = 0

    def encode(self) -> bytes:
        head = u32(self.request) + uint(self.lease, 2) + u32(self.left)
        body = head + u32(self.refusals) + uint(self.since, 8) + b"".join(item.encode() for item in self.items)
        if len(body) > BODY_MAX:
            raise LocalError(f"these items take {len(body)} bytes; {BODY_MAX} fit a frame")
        return body

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        request, lease, left, refusals, since = read.u32(), read.number(2), read.u32(), read.u32(), read.number(8)
        items = []
        while read.left:
            number, kind, expires_in = read.number(NUMBER_SIZE), read.number(1), read.u32()
            items.append(Item(number, kind, expires_in, read.take(read.u32())))
        return cls(request, lease, left, tuple(items), refusals, since)


@dataclass(frozen=True, slots=True)
class _Count:
    """``request(4) count(u32)``"""

    request: int
    count: int

    def encode(self) -> bytes:
        return u32(self.request) + u32(self.count)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        return read.end(cls(read.u32(), read.u32()))


class Acked(_Count):
    """So many were deleted; the others were gone already."""

    __slots__ = ()
    command: ClassVar[int] = MailboxCommand.ACKED


class Restored(_Count):
    """So many will be handed out again."""

    __slots__ = ()
    command: ClassVar[int] = MailboxCommand.RESTORED


@dataclass(frozen=True, slots=True)
class Counts:
    """How much is held for you.

    ``request(4) items(u32) bytes(u64) leased(u32) restorable(u32) refusals(u32) since_ms(u64)``

    Attributes:
        items: all that are not acknowledged, those handed out included.
        size: their bytes.
        leased: how many of them are handed out now.
        restorable: how many that FETCH_NEXT acknowledged can still be restored.
        refusals, since: as in :class:`Lease`.
    """

    command: ClassVar[int] = MailboxCommand.COUNTS
    request: int
    items: int
    size: int
    leased: int
    restorable: int
    refusals: int
    since: int

    def encode(self) -> bytes:
        held = u32(self.items) + uint(self.size, 8) + u32(self.leased) + u32(self.restorable)
        return u32(self.request) + held + u32(self.refusals) + uint(self.since, 8)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        request, items, size, leased = read.u32(), read.u32(), read.number(8), read.u32()
        return read.end(cls(request, items, size, leased, read.u32(), read.u32(), read.number(8)))


@dataclass(frozen=True, slots=True)
class Dropped:
    """Whether there was such an item. ``request(4) found(1)``"""

    command: ClassVar[int] = MailboxCommand.DROPPED
    request: int
    found: bool

    def encode(self) -> bytes:
        return u32(self.request) + bytes((self.found,))

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        request, found = read.u32(), read.number(1)
        if found > 1:
            raise BadBody("found is 0 or 1")
        return read.end(cls(request, bool(found)))


@dataclass(frozen=True, slots=True)
class About:
    """What a mailbox takes.

    ``request(4) now_ms(u64) bits(1) access(1) ttl_s(u32) ttl_max_s(u32) item(u32) items(u32) bytes(u64)``, and what a
    later version appends.

    Attributes:
        now: the mailbox's clock, milliseconds since 1970: the time for a stamp.
        bits: price of a deposit now, in bits of a stamp.
        access: :class:`Access`.
        ttl, ttl_max: seconds that it holds things without being told, and at most.
        item: most bytes of one.
        items, size: most items and bytes for one recipient.
    """

    command: ClassVar[int] = MailboxCommand.ABOUT
    request: int
    now: int
    bits: int
    access: int
    ttl: int
    ttl_max: int
    item: int
    items: int
    size: int

    def encode(self) -> bytes:
        head = u32(self.request) + uint(self.now, 8) + uint(self.bits, 1) + uint(self.access, 1)
        return head + b"".join(map(u32, (self.ttl, self.ttl_max, self.item, self.items))) + uint(self.size, 8)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        head = read.u32(), read.number(8), read.number(1), read.number(1)
        return cls(*head, read.u32(), read.u32(), read.u32(), read.u32(), read.number(8))


@dataclass(frozen=True, slots=True)
class Refused:
    """It was not done. ``request(4) reason(1) bits(1)``

    Attributes:
        reason: :class:`Reason`.
        bits: price of a deposit now.
    """

    command: ClassVar[int] = MailboxCommand.REFUSED
    request: int
    reason: int
    bits: int = 0

    def encode(self) -> bytes:
        return u32(self.request) + uint(self.reason, 1) + uint(self.bits, 1)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        return read.end(cls(read.u32(), read.number(1), read.number(1)))


FromMailbox = Delivery | Kept | Lease | Acked | Counts | Dropped | About | Refused | Restored | Word | Unknown
"""What a mailbox says."""

_FROM_MAILBOX: Final = {
    kind.command: kind.parse for kind in (Delivery, Kept, Lease, Acked, Counts, Dropped, About, Refused, Restored)
}
_WORDS: Final = frozenset(
    {
        MailboxCommand.EMPTY,
        MailboxCommand.TOO_BIG,
        MailboxCommand.FULL,
        MailboxCommand.STORED,
        MailboxCommand.DELETED,
        MailboxCommand.NOT_FOUND,
    }
)


def parse_from_mailbox(command: int, body: bytes) -> FromMailbox:
    """Give the typed body of a command that came from a mailbox.

    Raises:
        BadBody: it does not fit its layout.
    """
    parse = _FROM_MAILBOX.get(command)
    if parse is not None:
        return parse(body)
    return Word(command) if command in _WORDS else Unknown(command, body)
