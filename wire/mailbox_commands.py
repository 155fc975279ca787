"""What a client says to a mailbox, each command with its byte layout (docs/mailbox.md).

The answers stand in :mod:`wire.mailbox_answers`. All travel in packets between peers. Parsing any bytes gives a value
or :class:`BadBody`; a code that is not listed gives :class:`Unknown`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from keys.deposit import DROP_DIGEST_SIZE, DROP_SECRET_SIZE
from keys.primitives import KEY_SIZE
from keys.stamp import NO_STAMP, STAMP_SIZE
from wire.commands import Body, Unknown
from wire.errors import BadBody, LocalError
from wire.inner import Inner
from wire.mailbox_codes import (
    ACK_MAX,
    ENV_MIN,
    NUMBER_SIZE,
    REQUEST_SIZE,
    TOKEN_MAX,
    MailboxCommand,
    Reader,
    Word,
    at_least,
    sized,
    u32,
    uint,
)

# --- The web app's codes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Enveloped:
    """``recipient_x_pub(32) env``"""

    recipient: bytes = field(repr=False)
    env: bytes = field(repr=False)

    @property
    def sender(self) -> bytes:
        """The X25519 key that the envelope names (32 bytes)."""
        return self.env[:KEY_SIZE]

    def encode(self) -> bytes:
        if len(self.env) < ENV_MIN:
            raise LocalError(f"an envelope has {ENV_MIN} bytes or more")
        return sized(self.recipient, KEY_SIZE) + self.env

    @classmethod
    def parse(cls, body: bytes) -> Self:
        at_least(body, KEY_SIZE + ENV_MIN)
        return cls(body[:KEY_SIZE], body[KEY_SIZE:])


class Store(_Enveloped):
    """The web app leaves a packet for somebody. `env` names the session that sends it."""

    __slots__ = ()
    command: ClassVar[int] = MailboxCommand.STORE


class Delete(_Enveloped):
    """The web app would take one back. It cannot match anything, for the app seals another packet for it."""

    __slots__ = ()
    command: ClassVar[int] = MailboxCommand.DELETE


# --- Ours -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deposit:
    """Hold this for somebody.

    ``request(4) recipient_x_pub(32) ttl_s(u32) drop_digest(16) stamp(17) token_size(1) token deposit``

    Attributes:
        ttl: seconds, 0 for what the mailbox holds things without being told.
        drop_digest: of a secret (:func:`keys.deposit.drop_digest`), fresh for each deposit; a retry keeps it.
        stamp: :mod:`keys.stamp`, or NO_STAMP.
        token: at most 64 bytes; empty where none is asked for.
    """

    command: ClassVar[int] = MailboxCommand.DEPOSIT
    request: int
    recipient: bytes = field(repr=False)
    ttl: int
    drop_digest: bytes = field(repr=False)
    deposit: bytes = field(repr=False)
    stamp: bytes = field(default=NO_STAMP, repr=False)
    token: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        if len(self.token) > TOKEN_MAX:
            raise LocalError(f"a token has at most {TOKEN_MAX} bytes")
        head = u32(self.request) + sized(self.recipient, KEY_SIZE) + u32(self.ttl)
        proofs = sized(self.drop_digest, DROP_DIGEST_SIZE) + sized(self.stamp, STAMP_SIZE)
        return head + proofs + bytes((len(self.token),)) + self.token + self.deposit

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        request, recipient, ttl = read.u32(), read.take(KEY_SIZE), read.u32()
        digest, stamp, token_size = read.take(DROP_DIGEST_SIZE), read.take(STAMP_SIZE), read.number(1)
        if token_size > TOKEN_MAX:
            raise BadBody(f"a token has at most {TOKEN_MAX} bytes")
        token = read.take(token_size)
        return cls(request, recipient, ttl, digest, read.rest(), stamp, token)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Hand me up to `limit` items, the oldest first. ``request(4) limit(u16)``"""

    command: ClassVar[int] = MailboxCommand.FETCH
    request: int
    limit: int

    def encode(self) -> bytes:
        return u32(self.request) + uint(self.limit, 2)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        return read.end(cls(read.u32(), read.number(2)))


@dataclass(frozen=True, slots=True)
class Ack:
    """I have these: delete them. ``request(4) refusals(u32) n × uint(u64)``, n at most 1,024.

    Attributes:
        refusals: of those that LEASE or COUNTS told, how many the user has been told of.
        numbers: as LEASE told them.
    """

    command: ClassVar[int] = MailboxCommand.ACK
    request: int
    numbers: tuple[int, ...]
    refusals: int = 0

    def encode(self) -> bytes:
        if len(self.numbers) > ACK_MAX:
            raise LocalError(f"an ACK holds at most {ACK_MAX} numbers")
        numbers = b"".join(uint(number, NUMBER_SIZE) for number in self.numbers)
        return u32(self.request) + u32(self.refusals) + numbers

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        request, refusals = read.u32(), read.u32()
        rest = read.rest()
        if len(rest) % NUMBER_SIZE or len(rest) > ACK_MAX * NUMBER_SIZE:
            raise BadBody(f"an ACK holds whole numbers, {ACK_MAX} at most")
        numbers = tuple(
            int.from_bytes(rest[at : at + NUMBER_SIZE], "little") for at in range(0, len(rest), NUMBER_SIZE)
        )
        return cls(request, numbers, refusals)


@dataclass(frozen=True, slots=True)
class _Request:
    """``request(4)``"""

    request: int

    def encode(self) -> bytes:
        return u32(self.request)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        return read.end(cls(read.u32()))


class List(_Request):
    """How much is held for me?"""

    __slots__ = ()
    command: ClassVar[int] = MailboxCommand.LIST


class Info(_Request):
    """What do you take, and at which price?"""

    __slots__ = ()
    command: ClassVar[int] = MailboxCommand.INFO


class Restore(_Request):
    """Hand out again what FETCH_NEXT acknowledged and is not erased yet."""

    __slots__ = ()
    command: ClassVar[int] = MailboxCommand.RESTORE


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete what I left for somebody. ``request(4) recipient_x_pub(32) secret(32)``"""

    command: ClassVar[int] = MailboxCommand.DROP
    request: int
    recipient: bytes = field(repr=False)
    secret: bytes = field(repr=False)

    def encode(self) -> bytes:
        return u32(self.request) + sized(self.recipient, KEY_SIZE) + sized(self.secret, DROP_SECRET_SIZE)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        read = Reader(body)
        return read.end(cls(read.u32(), read.take(KEY_SIZE), read.take(DROP_SECRET_SIZE)))


# --- All --------------------------------------------------------------------------------------------------------------


ForMailbox = Store | Delete | Deposit | Fetch | Ack | List | Drop | Info | Restore | Word | Unknown
"""What a client says to a mailbox."""
_FOR_MAILBOX: Final = {
    kind.command: kind.parse for kind in (Store, Delete, Deposit, Fetch, Ack, List, Drop, Info, Restore)
}


def parse_for_mailbox(command: int, body: bytes) -> ForMailbox:
    """Give the typed body of a command that came to a mailbox.

    Raises:
        BadBody: it does not fit its layout.
    """
    parse = _FOR_MAILBOX.get(command)
    if parse is not None:
        return parse(body)
    return Word(command) if command == MailboxCommand.FETCH_NEXT else Unknown(command, body)


def request_of(body: bytes) -> int | None:
    """Return the request id of a request of ours that may not parse, so that it can be refused; None if it has none."""
    return int.from_bytes(body[:REQUEST_SIZE], "little") if len(body) >= REQUEST_SIZE else None


def encode_for_mailbox(body: Body, message_id: int = 0) -> bytes:
    """Return the plaintext of a packet that carries `body`, to a mailbox or from one."""
    return Inner(message_id, body.command, body.encode()).encode()
