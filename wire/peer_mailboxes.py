"""What peers tell each other for the sake of mailboxes (PROTOCOL.md §13.6): where post for one may be left, and several
acknowledgements in one packet. Parsing any bytes gives a value or :class:`BadBody`."""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from keys.errors import BadInvite
from keys.invite import MailboxCard, encode_nickname
from keys.primitives import NONCE_SIZE
from wire.errors import BadBody, LocalError
from wire.mailbox_codes import TOKEN_MAX

CARDS_MAX: Final = 8
"""Most mailboxes that somebody names: a message is left in three at most, and the others are for when those fail."""
ACKS_MAX: Final = 1024
"""Most acknowledgements in one packet: with 25 bytes at most each, they fit a deposit of 64 KiB."""
_SERIAL_SIZE: Final = 8
_SIZE_SIZE: Final = 2
_TOKEN_SIZE_SIZE: Final = 1
_CARD_MAX: Final = 2048
"""Most bytes of a card's text: an address of 1,024 bytes takes some 1,450."""
_DELIVERED: Final = 0x27
_READ: Final = 0x2A
_CHANGED: Final = 0x60
_ID_SIZES: Final = {_DELIVERED: 16, _READ: 16, _CHANGED: NONCE_SIZE}


def is_token(token: bytes) -> bool:
    """Tell whether a mailbox may ask for this: 1 to 64 bytes of printable ASCII, no spaces."""
    return 1 <= len(token) <= TOKEN_MAX and all(0x21 <= each <= 0x7E for each in token)


@dataclass(frozen=True, slots=True)
class Listed:
    """A mailbox in a list.

    Attributes:
        card: where it is, and its keys.
        token: what it asks depositors for (:func:`is_token`); empty if nothing.
    """

    card: MailboxCard = field(repr=False)
    token: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Mailboxes:
    """Where post for the sender may be left, in place of what they said before; none: nowhere any more.

    ``serial(u64 LE) size(u16 LE) nickname(utf-8) n × ( size(u16 LE) card(utf-8) size(1) token )``, n at most 8

    Attributes:
        serial: higher for each newer list. An older one is not to be believed: a relay, or a mailbox, can hand an old
            packet over again.
        listed: in the order in which the sender would have them used. What a reader cannot read, such as a card of a
            later version, is not among them.
        nickname: what the sender calls themselves, for who met them by a mailbox and not by an introduction.
    """

    command: ClassVar[int] = 0x63
    serial: int
    listed: tuple[Listed, ...] = field(repr=False)
    nickname: str = field(default="", repr=False)

    def encode(self) -> bytes:
        if not 0 <= self.serial < 1 << 64 or len(self.listed) > CARDS_MAX:
            raise LocalError(f"a list of mailboxes has a serial of 64 bits and {CARDS_MAX} cards at most")
        if any(each.token and not is_token(each.token) for each in self.listed):
            raise LocalError(f"a token has at most {TOKEN_MAX} bytes of printable ASCII")
        try:
            nickname = encode_nickname(self.nickname)
        except BadInvite as error:
            raise LocalError(str(error)) from None
        parts = [self.serial.to_bytes(_SERIAL_SIZE, "little"), _sized(nickname, _SIZE_SIZE)]
        for each in self.listed:
            parts += (_sized(each.card.text.encode(), _SIZE_SIZE), _sized(each.token, _TOKEN_SIZE_SIZE))
        return b"".join(parts)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        if len(body) < _SERIAL_SIZE + _SIZE_SIZE:
            raise BadBody("a list of mailboxes has 10 bytes or more")
        serial = int.from_bytes(body[:_SERIAL_SIZE], "little")
        raw, at = _take(body, _SERIAL_SIZE, _SIZE_SIZE)
        try:
            nickname = raw.decode()
            encode_nickname(nickname)
        except (UnicodeDecodeError, BadInvite):
            raise BadBody("a nickname is UTF-8 of 256 bytes at most") from None
        listed: dict[MailboxCard, Listed] = {}
        count = 0
        while at < len(body):
            count += 1
            if count > CARDS_MAX:
                raise BadBody(f"a list of mailboxes has {CARDS_MAX} cards at most")
            text, at = _take(body, at, _SIZE_SIZE)
            token, at = _take(body, at, _TOKEN_SIZE_SIZE)
            card = _card(text)
            # A token that no DEPOSIT can bear is a later version's: without it the mailbox would refuse.
            if card is not None and (not token or is_token(token)):
                listed.setdefault(card, Listed(card, token))
        return cls(serial, tuple(listed.values()), nickname)

    @property
    def cards(self) -> tuple[MailboxCard, ...]:
        """The cards alone."""
        return tuple(each.card for each in self.listed)


@dataclass(frozen=True, slots=True)
class Acks:
    """Several acknowledgements. ``n × ( command(1) id )``, n from 1 to 1,024; each as if it had come alone:

    ``0x27 uuid(16)`` as DELIVERY_ACK, ``0x2A uuid(16)`` as READ_ACK, ``0x60 nonce(24)`` as CHANGE_ACK.
    """

    command: ClassVar[int] = 0x64
    delivered: tuple[bytes, ...] = ()
    read: tuple[bytes, ...] = ()
    changed: tuple[bytes, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.delivered) + len(self.read) + len(self.changed)

    def encode(self) -> bytes:
        if not 1 <= len(self) <= ACKS_MAX:
            raise LocalError(f"from 1 to {ACKS_MAX} acknowledgements go together")
        parts = []
        for command, ids in ((_DELIVERED, self.delivered), (_READ, self.read), (_CHANGED, self.changed)):
            for each in ids:
                if len(each) != _ID_SIZES[command]:
                    raise LocalError(f"this acknowledgement names {_ID_SIZES[command]} bytes, not {len(each)}")
                parts.append(bytes((command,)) + each)
        return b"".join(parts)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        found: dict[int, list[bytes]] = {command: [] for command in _ID_SIZES}
        at = count = 0
        while at < len(body):
            size = _ID_SIZES.get(body[at])
            count += 1
            if size is None or at + 1 + size > len(body) or count > ACKS_MAX:
                raise BadBody(f"acknowledgements are of three kinds, whole, and {ACKS_MAX} at most")
            found[body[at]].append(body[at + 1 : at + 1 + size])
            at += 1 + size
        if not count:
            raise BadBody("an acknowledgement names something")
        return cls(tuple(found[_DELIVERED]), tuple(found[_READ]), tuple(found[_CHANGED]))


def _sized(part: bytes, size_size: int) -> bytes:
    return len(part).to_bytes(size_size, "little") + part


def _take(body: bytes, at: int, size_size: int) -> tuple[bytes, int]:
    """Return a part that begins with its size, and where the next one does."""
    start = at + size_size
    end = start + int.from_bytes(body[at:start], "little")
    if end > len(body) or start > len(body):
        raise BadBody("a list of mailboxes holds whole texts")
    return body[start:end], end


def _card(raw: bytes) -> MailboxCard | None:
    if len(raw) > _CARD_MAX:
        return None
    try:
        return MailboxCard.parse(raw.decode())
    except (UnicodeDecodeError, BadInvite):
        return None
