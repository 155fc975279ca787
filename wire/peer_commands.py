"""The commands that peers send each other, opaque to the relay, each with its byte layout (PROTOCOL.md §13).

Codes below 0x60 are those of telefon v2; from 0x60 on they are ours, and other clients ignore what they do not know.
Parsing any bytes gives a value or :class:`BadBody`; a code that is not listed gives :class:`Unknown`.
"""

import json
import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Final, Self
from uuid import UUID

from keys.primitives import KEY_SIZE, NONCE_SIZE
from wire.commands import Body, Unknown
from wire.errors import BadBody, LocalError
from wire.inner import Inner
from wire.limits import INNER_HEAD, MAX_FRAME, MIN_FRAME
from wire.peer_mailboxes import Acks, Mailboxes

UUID_SIZE: Final = 16
CHUNK_SIZE: Final = 32 * 1024
"""Bytes of a file in one FILE_CHUNK of ours; the last one of a file may have fewer."""
CHUNK_MAX: Final = MAX_FRAME - MIN_FRAME - INNER_HEAD - UUID_SIZE - 4
"""Most bytes of a file that one frame can carry."""
TEXT_MAX: Final = 64 * 1024
"""Most bytes of a text in UTF-8 that ours send: longer ones are files. Others may send what fits a frame."""
FILE_MAX: Final = 1 << 40
"""Most bytes of a file (1 TiB): with 32 KiB a chunk, the index stays far below the 2³² that it can count."""
NAME_MAX: Final = 1024
"""Most characters of a file's name in an offer. It is data for the screen, never a path."""


class PeerCommand(IntEnum):
    """Codes between peers."""

    TEXT = 0x20  # uuid(16) utf-8
    SOUND_START = 0x21  # sound(1)
    SOUND_STOP = 0x22  # sound(1)
    SOUND_STOP_ALL = 0x23  # empty
    FILE_OFFER = 0x24  # JSON
    FILE_CHUNK = 0x25  # file_id(16) index(u32 LE) bytes
    FILE_END = 0x26  # file_id(16) message_uuid(16)
    DELIVERY_ACK = 0x27  # uuid(16)
    MSG_DELETE = 0x28  # uuid(16)
    MSG_EDIT = 0x29  # uuid(16) utf-8
    READ_ACK = 0x2A  # uuid(16)
    CALL_REQUEST = 0x30  # empty
    CALL_ACCEPT = 0x31  # empty
    CALL_REJECT = 0x32  # empty
    CALL_HANGUP = 0x33  # empty
    CALL_MISSED = 0x37  # empty
    CHANGE_ACK = 0x60  # nonce(24)
    FILE_WANT = 0x61  # file_id(16) first(u32 LE) count(u32 LE)
    FILE_CANCEL = 0x62  # file_id(16) reason(1)
    MAILBOXES = 0x63  # serial(u64 LE) size(u16 LE) nickname n × ( size(u16 LE) card size(1) token )
    ACKS = 0x64  # n × ( command(1) id )


class CancelReason(IntEnum):
    """Last byte of a FILE_CANCEL: why a file will not come."""

    GIVEN_UP = 0  # somebody stopped it, or nothing came any more
    SOURCE_CHANGED = 1  # the sender's file is gone, or is another one now
    CORRUPT = 2  # all bytes came, and their digest is not the one offered
    NO_ROOM = 3  # the receiver's disk is full
    REFUSED = 4  # the receiver does not want it
    UNKNOWN_FILE = 5  # the sender knows no such offer


@dataclass(frozen=True, slots=True)
class _Message:
    """``uuid(16)``"""

    uuid: bytes

    def encode(self) -> bytes:
        return _exactly(self.uuid, UUID_SIZE)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(_exact(body, UUID_SIZE))


class DeliveryAck(_Message):
    """The message was stored by its recipient."""

    __slots__ = ()
    command: ClassVar[int] = PeerCommand.DELIVERY_ACK


class ReadAck(_Message):
    """The message was seen by its recipient."""

    __slots__ = ()
    command: ClassVar[int] = PeerCommand.READ_ACK


class Delete(_Message):
    """The author takes the message back."""

    __slots__ = ()
    command: ClassVar[int] = PeerCommand.MSG_DELETE


@dataclass(frozen=True, slots=True)
class _MessageText:
    """``uuid(16) utf-8``"""

    uuid: bytes
    text: str = field(repr=False)

    def encode(self) -> bytes:
        try:
            return _exactly(self.uuid, UUID_SIZE) + self.text.encode()
        except UnicodeEncodeError:
            raise LocalError("a text with lone surrogates is no UTF-8") from None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        if len(body) < UUID_SIZE:
            raise BadBody(f"a message has {UUID_SIZE} bytes or more")
        try:
            return cls(body[:UUID_SIZE], body[UUID_SIZE:].decode())
        except UnicodeDecodeError:
            raise BadBody("a text is UTF-8") from None


class Text(_MessageText):
    """A message."""

    __slots__ = ()
    command: ClassVar[int] = PeerCommand.TEXT


class Edit(_MessageText):
    """The author's new text of a message."""

    __slots__ = ()
    command: ClassVar[int] = PeerCommand.MSG_EDIT


@dataclass(frozen=True, slots=True)
class ChangeAck:
    """An edit or a deletion was stored; the nonce is that of the packet that brought it. ``nonce(24)``

    Telefon has no such answer, and a DELIVERY_ACK would not tell which of several edits arrived.
    """

    command: ClassVar[int] = PeerCommand.CHANGE_ACK
    nonce: bytes = field(repr=False)

    def encode(self) -> bytes:
        return _exactly(self.nonce, NONCE_SIZE)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(_exact(body, NONCE_SIZE))


@dataclass(frozen=True, slots=True)
class FileOffer:
    """A file that the author would send. JSON ``{id, name, mime, size}``; what stands beyond that is not looked at.

    Ours adds ``uuid`` (hex, the message that the file is), ``chunk`` (bytes in a chunk) and ``blake3`` (hex, of the
    whole file): their presence says that the sender answers FILE_WANT. Without them the chunks follow unasked.

    Attributes:
        file_id: 16 bytes.
        size: bytes, 0 to 2⁴⁰.
        pull: the three fields of ours, or None.
    """

    command: ClassVar[int] = PeerCommand.FILE_OFFER
    file_id: bytes
    name: str = field(repr=False)
    mime: str = field(repr=False)
    size: int
    pull: "Pull | None" = None

    def encode(self) -> bytes:
        if not (0 <= self.size <= FILE_MAX and len(self.name) <= NAME_MAX):
            raise LocalError("the file's size or name is out of bounds")
        offer: dict[str, Any] = {
            "id": str(UUID(bytes=_exactly(self.file_id, UUID_SIZE))),
            "name": self.name,
            "mime": self.mime,
            "size": self.size,
        }
        if self.pull is not None:
            offer["uuid"] = _exactly(self.pull.uuid, UUID_SIZE).hex()
            offer["chunk"] = self.pull.chunk
            offer["blake3"] = _exactly(self.pull.digest, KEY_SIZE).hex()
        return json.dumps(offer, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, body: bytes) -> Self:
        try:
            offer = json.loads(body)
        except (ValueError, RecursionError):
            raise BadBody("an offer is JSON") from None
        if not isinstance(offer, dict):
            raise BadBody("an offer is a JSON object")
        size = offer.get("size")
        # True is an int to Python; a size of 3.0 is what some JavaScript writes, and as good as 3.
        if isinstance(size, float) and size.is_integer():
            size = int(size)
        if type(size) is not int or not 0 <= size <= FILE_MAX:
            raise BadBody("an offer has a size")
        name, mime = offer.get("name", ""), offer.get("mime", "")
        if not isinstance(name, str) or not isinstance(mime, str):
            raise BadBody("an offer's name and mime are strings")
        return cls(_file_id(offer.get("id")), _whole(name)[:NAME_MAX], _whole(mime)[:NAME_MAX], size, _pull(offer))


@dataclass(frozen=True, slots=True)
class Pull:
    """What lets a receiver ask for chunks and check the whole: see :class:`FileOffer`."""

    uuid: bytes
    chunk: int
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileChunk:
    """A piece of a file. ``file_id(16) index(u32 LE) bytes``"""

    command: ClassVar[int] = PeerCommand.FILE_CHUNK
    file_id: bytes
    index: int
    data: bytes = field(repr=False)

    def encode(self) -> bytes:
        return _exactly(self.file_id, UUID_SIZE) + _u32(self.index) + self.data

    @classmethod
    def parse(cls, body: bytes) -> Self:
        if len(body) < UUID_SIZE + 4:
            raise BadBody("a chunk has 20 bytes or more")
        return cls(body[:16], int.from_bytes(body[16:20], "little"), body[20:])


@dataclass(frozen=True, slots=True)
class FileEnd:
    """All chunks were sent. ``file_id(16) message_uuid(16)``; the receiver acknowledges the message."""

    command: ClassVar[int] = PeerCommand.FILE_END
    file_id: bytes
    uuid: bytes

    def encode(self) -> bytes:
        return _exactly(self.file_id, UUID_SIZE) + _exactly(self.uuid, UUID_SIZE)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _exact(body, 2 * UUID_SIZE)
        return cls(body[:UUID_SIZE], body[UUID_SIZE:])


@dataclass(frozen=True, slots=True)
class FileWant:
    """Send these chunks now. ``file_id(16) first(u32 LE) count(u32 LE)``

    A count of 0 says that the offer is kept, and that chunks may be asked for later: it need not be repeated meanwhile.
    The receiver asks for no more than it has room and patience for, so that neither it nor the relay is flooded.
    """

    command: ClassVar[int] = PeerCommand.FILE_WANT
    file_id: bytes
    first: int
    count: int

    def encode(self) -> bytes:
        return _exactly(self.file_id, UUID_SIZE) + _u32(self.first) + _u32(self.count)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _exact(body, UUID_SIZE + 8)
        return cls(body[:16], int.from_bytes(body[16:20], "little"), int.from_bytes(body[20:], "little"))


@dataclass(frozen=True, slots=True)
class FileCancel:
    """This file will not be sent, or not be taken. ``file_id(16) reason(1)``; an unknown reason is as good as 0."""

    command: ClassVar[int] = PeerCommand.FILE_CANCEL
    file_id: bytes
    reason: int

    def encode(self) -> bytes:
        if not 0 <= self.reason <= 0xFF:
            raise LocalError("this field is a u8")
        return _exactly(self.file_id, UUID_SIZE) + bytes((self.reason,))

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _exact(body, UUID_SIZE + 1)
        return cls(body[:UUID_SIZE], body[UUID_SIZE])


@dataclass(frozen=True, slots=True)
class Call:
    """A step of a call without a body: one of CALL_REQUEST, ACCEPT, REJECT, HANGUP and MISSED."""

    command: int

    def encode(self) -> bytes:
        return b""


PeerBody = (
    Text
    | Edit
    | Delete
    | DeliveryAck
    | ReadAck
    | ChangeAck
    | FileOffer
    | FileChunk
    | FileEnd
    | FileWant
    | FileCancel
    | Mailboxes
    | Acks
    | Call
    | Unknown
)
"""What one peer may say to another, as far as we act on it."""

_PARSERS: Final = {
    kind.command: kind.parse
    for kind in (
        Text,
        Edit,
        Delete,
        DeliveryAck,
        ReadAck,
        ChangeAck,
        FileOffer,
        FileChunk,
        FileEnd,
        FileWant,
        FileCancel,
        Mailboxes,
        Acks,
    )
}
_CALLS: Final = frozenset(
    {
        PeerCommand.CALL_REQUEST,
        PeerCommand.CALL_ACCEPT,
        PeerCommand.CALL_REJECT,
        PeerCommand.CALL_HANGUP,
        PeerCommand.CALL_MISSED,
    }
)


def parse_from_peer(command: int, body: bytes) -> PeerBody:
    """Give the typed body of a command from a peer.

    Raises:
        BadBody: it does not fit its layout.
    """
    parse = _PARSERS.get(command)
    if parse is not None:
        return parse(body)
    return Call(command) if command in _CALLS else Unknown(command, body)


def encode_for_peer(body: Body, message_id: int = 0) -> bytes:
    """Return the plaintext of a packet that carries `body`."""
    return Inner(message_id, body.command, body.encode()).encode()


def _pull(offer: dict[str, Any]) -> Pull | None:
    uuid, chunk, digest = offer.get("uuid"), offer.get("chunk"), offer.get("blake3")
    if uuid is None or chunk is None or digest is None:
        return None
    if type(chunk) is not int or not 1 <= chunk <= CHUNK_MAX:
        raise BadBody("an offer's chunk is a number of bytes")
    return Pull(_hex(uuid, UUID_SIZE), chunk, _hex(digest, KEY_SIZE))


_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")


def _file_id(value: object) -> bytes:
    # Not UUID() alone: that takes braces, a "urn:" and hyphens anywhere.
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise BadBody("an offer's id is a UUID")
    return UUID(value).bytes


def _hex(value: object, size: int) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]*", value) or len(value) != 2 * size:
        raise BadBody(f"this field has {2 * size} hex digits")
    return bytes.fromhex(value)


def _whole(text: str) -> str:
    """JSON can name half a surrogate pair, which no file, terminal or database takes."""
    return text.encode("utf-8", "replace").decode()


def _u32(value: int) -> bytes:
    if not 0 <= value <= 0xFFFF_FFFF:
        raise LocalError("this field is a u32")
    return value.to_bytes(4, "little")


def _exactly(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise LocalError(f"this field has {size} bytes, not {len(value)}")
    return value


def _exact(body: bytes, size: int) -> bytes:
    if len(body) != size:
        raise BadBody(f"the body has {size} bytes")
    return body
