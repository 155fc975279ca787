"""The commands of frames from and to the server, each with its byte layout (PROTOCOL.md §7).

Parsing any bytes gives a value or :class:`BadBody`. A code that is not listed for a direction gives :class:`Unknown`,
so that either side may be newer than the other. Ids, keys and texts stay out of ``repr``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Final, Protocol, Self

from keys.identity import ID_SIZE
from keys.primitives import KEY_SIZE, NONCE_SIZE
from wire.errors import BadBody, LocalError
from wire.limits import MAX_INFO, MAX_NICKNAME, MAX_PUSH_TOKEN, PROTOCOL_VERSION


class Command(IntEnum):
    """Codes of server frames; the arrows tell who sends them."""

    HANDSHAKE_REQUEST = 0x01  # c→s  ed_pub(32) version(1)
    HANDSHAKE_OK = 0x02  # s→c  version(1)
    SUBSCRIBE = 0x40  # c→s  n × x_pub(32)
    UNSUBSCRIBE = 0x41  # c→s  n × x_pub(32)
    PEER_ONLINE = 0x42  # s→c  n × x_pub(32)
    PEER_OFFLINE = 0x43  # s→c  n × x_pub(32)
    INTRODUCE = 0x46  # c→s  target_id(8) nickname(utf-8)
    INTRO_FROM = 0x47  # s→c  x_pub(32) ed_pub(32) nickname(utf-8)
    WAKE = 0x48  # c→s→notifier  target_id(8) [type(1)]
    PUSH_REGISTER = 0x49  # c→s  kind(1) token;  s→notifier  sender_id(8) kind(1) token
    SERVER_PING = 0x4A  # s→c  empty
    RESTARTING = 0x4B  # s→c  reconnect_in_ms(u32 LE)
    CHALLENGE = 0x4C  # s→c  random(32)
    PROOF = 0x4D  # c→s  random(32), the same
    INFO = 0x88  # s→c  utf-8, 2,000 characters at most
    ERROR = 0xFF  # s→c  code(1) detail


class ErrorCode(IntEnum):
    """First byte of an ERROR body."""

    ID_IN_USE = 0x01  # nothing follows
    BAD_VERSION = 0x02  # supported_version(1)
    RECIPIENT_OFFLINE = 0x03  # target_id(8) nonce(24)
    NOT_ADMITTED = 0x04  # utf-8, 2,000 characters at most


class PushKind(IntEnum):
    """First byte of a PUSH_REGISTER body: which service the token is for."""

    NONE = 0
    FCM = 1
    WEB_PUSH = 2  # the token is the subscription's JSON
    UNIFIED_PUSH = 3  # the token is the endpoint's URL, or a subscription's JSON
    APNS = 4  # the token is the device token in hexadecimal digits


class WakeType(IntEnum):
    """What a WAKE is for; without the byte it is a message."""

    MESSAGE = 0
    CALL = 1


class Body(Protocol):
    """A command with its body."""

    @property
    def command(self) -> int:
        """The command's code."""

    def encode(self) -> bytes:
        """Return the body's bytes."""


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """The client asks for a session. ``ed_pub(32) version(1)``; what a later version appends is not looked at."""

    command: ClassVar[int] = Command.HANDSHAKE_REQUEST
    ed_pub: bytes = field(repr=False)
    version: int = PROTOCOL_VERSION

    def encode(self) -> bytes:
        return _sized(self.ed_pub, KEY_SIZE) + _u8(self.version)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _at_least(body, KEY_SIZE + 1)
        return cls(body[:KEY_SIZE], body[KEY_SIZE])


@dataclass(frozen=True, slots=True)
class HandshakeOk:
    """The session is open. ``version(1)``"""

    command: ClassVar[int] = Command.HANDSHAKE_OK
    version: int = PROTOCOL_VERSION

    def encode(self) -> bytes:
        return _u8(self.version)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _at_least(body, 1)
        return cls(body[0])


@dataclass(frozen=True, slots=True)
class _KeyList:
    """``n × x_pub(32)``, n from 0."""

    x_pubs: tuple[bytes, ...] = field(repr=False)

    def encode(self) -> bytes:
        return b"".join(_sized(x_pub, KEY_SIZE) for x_pub in self.x_pubs)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        if len(body) % KEY_SIZE:
            raise BadBody(f"a list of keys is a multiple of {KEY_SIZE} bytes")
        return cls(tuple(body[at : at + KEY_SIZE] for at in range(0, len(body), KEY_SIZE)))

    @classmethod
    def of(cls, x_pubs: Iterable[bytes]) -> Self:
        """Make the command from any iterable of keys."""
        return cls(tuple(x_pubs))


class Subscribe(_KeyList):
    """Tell me when the owners of these keys come and go."""

    __slots__ = ()
    command: ClassVar[int] = Command.SUBSCRIBE


class Unsubscribe(_KeyList):
    """Tell me no longer."""

    __slots__ = ()
    command: ClassVar[int] = Command.UNSUBSCRIBE


class PeerOnline(_KeyList):
    """The owners of these keys are connected."""

    __slots__ = ()
    command: ClassVar[int] = Command.PEER_ONLINE


class PeerOffline(_KeyList):
    """The owners of these keys are no longer connected."""

    __slots__ = ()
    command: ClassVar[int] = Command.PEER_OFFLINE


@dataclass(frozen=True, slots=True)
class Introduce:
    """Give the target my keys and this nickname. ``target_id(8) nickname(utf-8)``"""

    command: ClassVar[int] = Command.INTRODUCE
    target_id: bytes = field(repr=False)
    nickname: str = field(repr=False)

    def encode(self) -> bytes:
        return _sized(self.target_id, ID_SIZE) + _encode_nickname(self.nickname)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _at_least(body, ID_SIZE)
        return cls(body[:ID_SIZE], _parse_nickname(body[ID_SIZE:]))


@dataclass(frozen=True, slots=True)
class IntroFrom:
    """Somebody introduces themselves. ``x_pub(32) ed_pub(32) nickname(utf-8)``; the keys are those of their session."""

    command: ClassVar[int] = Command.INTRO_FROM
    x_pub: bytes = field(repr=False)
    ed_pub: bytes = field(repr=False)
    nickname: str = field(repr=False)

    def encode(self) -> bytes:
        return _sized(self.x_pub, KEY_SIZE) + _sized(self.ed_pub, KEY_SIZE) + _encode_nickname(self.nickname)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _at_least(body, 2 * KEY_SIZE)
        return cls(body[:KEY_SIZE], body[KEY_SIZE : 2 * KEY_SIZE], _parse_nickname(body[2 * KEY_SIZE :]))


@dataclass(frozen=True, slots=True)
class Wake:
    """Wake the target by a push. ``target_id(8) [type(1)]``; forwarded as it came, bytes beyond the ninth are cut."""

    command: ClassVar[int] = Command.WAKE
    target_id: bytes = field(repr=False)
    type: int | None = None

    @property
    def is_message(self) -> bool:
        """Whether it is for a message, which may be suppressed, and not for a call, which never is."""
        return self.type is None or self.type == WakeType.MESSAGE

    def encode(self) -> bytes:
        return _sized(self.target_id, ID_SIZE) + (b"" if self.type is None else _u8(self.type))

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _at_least(body, ID_SIZE)
        return cls(body[:ID_SIZE], body[ID_SIZE] if len(body) > ID_SIZE else None)


@dataclass(frozen=True, slots=True)
class PushRegister:
    """Where the sender can be pushed, as the client says it. ``kind(1) token``"""

    command: ClassVar[int] = Command.PUSH_REGISTER
    kind: int
    token: bytes = field(repr=False)

    def encode(self) -> bytes:
        return _u8(self.kind) + _encode_token(self.token)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _at_least(body, 1)
        return cls(body[0], _parse_token(body[1:]))


@dataclass(frozen=True, slots=True)
class PushForward:
    """Where a client can be pushed, as the relay tells the notifier. ``sender_id(8) kind(1) token``"""

    command: ClassVar[int] = Command.PUSH_REGISTER
    sender_id: bytes = field(repr=False)
    kind: int
    token: bytes = field(repr=False)

    def encode(self) -> bytes:
        return _sized(self.sender_id, ID_SIZE) + _u8(self.kind) + _encode_token(self.token)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _at_least(body, ID_SIZE + 1)
        return cls(body[:ID_SIZE], body[ID_SIZE], _parse_token(body[ID_SIZE + 1 :]))


@dataclass(frozen=True, slots=True)
class ServerPing:
    """A keepalive that a page's own code can see. Empty."""

    command: ClassVar[int] = Command.SERVER_PING

    def encode(self) -> bytes:
        return b""

    @classmethod
    def parse(cls, body: bytes) -> Self:  # noqa: ARG003 - one signature for all bodies
        return cls()


@dataclass(frozen=True, slots=True)
class Restarting:
    """The relay goes away; come back after so many milliseconds. ``reconnect_in_ms(u32 LE)``"""

    command: ClassVar[int] = Command.RESTARTING
    reconnect_in_ms: int

    def encode(self) -> bytes:
        if not 0 <= self.reconnect_in_ms <= 0xFFFF_FFFF:
            raise LocalError("this field is a u32")
        return self.reconnect_in_ms.to_bytes(4, "little")

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _at_least(body, 4)
        return cls(int.from_bytes(body[:4], "little"))


@dataclass(frozen=True, slots=True)
class _Random:
    """``random(32)``"""

    random: bytes = field(repr=False)

    def encode(self) -> bytes:
        return _sized(self.random, KEY_SIZE)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        if len(body) != KEY_SIZE:
            raise BadBody(f"a challenge or proof has {KEY_SIZE} bytes")
        return cls(body)


class Challenge(_Random):
    """Show that you are here now and hold your keys: send these bytes back."""

    __slots__ = ()
    command: ClassVar[int] = Command.CHALLENGE


class Proof(_Random):
    """The answer to a CHALLENGE: the same bytes."""

    __slots__ = ()
    command: ClassVar[int] = Command.PROOF


@dataclass(frozen=True, slots=True)
class Info:
    """A notice for the user. utf-8, 2,000 characters at most."""

    command: ClassVar[int] = Command.INFO
    text: str = field(repr=False)

    def encode(self) -> bytes:
        return _encode_notice(self.text)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(_parse_notice(body))


@dataclass(frozen=True, slots=True)
class IdInUse:
    """ERROR 0x01: the id belongs to another session."""

    command: ClassVar[int] = Command.ERROR

    def encode(self) -> bytes:
        return bytes((ErrorCode.ID_IN_USE,))


@dataclass(frozen=True, slots=True)
class BadVersion:
    """ERROR 0x02: the relay speaks another version. ``supported_version(1)``"""

    command: ClassVar[int] = Command.ERROR
    supported: int = PROTOCOL_VERSION

    def encode(self) -> bytes:
        return bytes((ErrorCode.BAD_VERSION,)) + _u8(self.supported)


@dataclass(frozen=True, slots=True)
class RecipientOffline:
    """ERROR 0x03: a frame was not delivered. ``target_id(8) nonce(24)``; the nonce is that of the frame's packet."""

    command: ClassVar[int] = Command.ERROR
    target_id: bytes = field(repr=False)
    nonce: bytes = field(repr=False)

    def encode(self) -> bytes:
        return bytes((ErrorCode.RECIPIENT_OFFLINE,)) + _sized(self.target_id, ID_SIZE) + _sized(self.nonce, NONCE_SIZE)


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    """ERROR 0x04: this relay does not serve this client. utf-8 for its user, 2,000 characters at most."""

    command: ClassVar[int] = Command.ERROR
    text: str = field(repr=False)

    def encode(self) -> bytes:
        return bytes((ErrorCode.NOT_ADMITTED,)) + _encode_notice(self.text)


@dataclass(frozen=True, slots=True)
class UnknownError:
    """An ERROR with a code that this version does not know."""

    command: ClassVar[int] = Command.ERROR
    code: int
    detail: bytes = field(repr=False)

    def encode(self) -> bytes:
        return _u8(self.code) + self.detail


ErrorBody = IdInUse | BadVersion | RecipientOffline | NotAdmitted | UnknownError


def _parse_error(body: bytes) -> ErrorBody:
    _at_least(body, 1)
    code, detail = body[0], body[1:]
    if code == ErrorCode.ID_IN_USE:
        return IdInUse()
    if code == ErrorCode.BAD_VERSION:
        _at_least(detail, 1)
        return BadVersion(detail[0])
    if code == ErrorCode.RECIPIENT_OFFLINE:
        _at_least(detail, ID_SIZE + NONCE_SIZE)
        return RecipientOffline(detail[:ID_SIZE], detail[ID_SIZE : ID_SIZE + NONCE_SIZE])
    if code == ErrorCode.NOT_ADMITTED:
        return NotAdmitted(_parse_notice(detail))
    return UnknownError(code, detail)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A command that this version does not know: not an error, and not for us."""

    command: int
    body: bytes = field(repr=False)

    def encode(self) -> bytes:
        return self.body


ClientBody = HandshakeRequest | Subscribe | Unsubscribe | Introduce | Wake | PushRegister | Proof | Unknown
"""What a client may say to the relay."""
ServerBody = (
    HandshakeOk
    | PeerOnline
    | PeerOffline
    | IntroFrom
    | Wake
    | PushForward
    | ServerPing
    | Restarting
    | Challenge
    | Info
    | ErrorBody
    | Unknown
)
"""What the relay may say to a client; WAKE and PUSH_REGISTER only to the notifier."""

_FROM_CLIENT: Final = {
    Command.HANDSHAKE_REQUEST: HandshakeRequest.parse,
    Command.SUBSCRIBE: Subscribe.parse,
    Command.UNSUBSCRIBE: Unsubscribe.parse,
    Command.INTRODUCE: Introduce.parse,
    Command.WAKE: Wake.parse,
    Command.PUSH_REGISTER: PushRegister.parse,
    Command.PROOF: Proof.parse,
}
_FROM_SERVER: Final = {
    Command.HANDSHAKE_OK: HandshakeOk.parse,
    Command.PEER_ONLINE: PeerOnline.parse,
    Command.PEER_OFFLINE: PeerOffline.parse,
    Command.INTRO_FROM: IntroFrom.parse,
    Command.WAKE: Wake.parse,
    Command.PUSH_REGISTER: PushForward.parse,
    Command.SERVER_PING: ServerPing.parse,
    Command.RESTARTING: Restarting.parse,
    Command.CHALLENGE: Challenge.parse,
    Command.INFO: Info.parse,
    Command.ERROR: _parse_error,
}


def parse_from_client(command: int, body: bytes) -> ClientBody:
    """Give the typed body of a command from a client.

    Raises:
        BadBody: it does not fit its layout.
    """
    parse = _FROM_CLIENT.get(command)  # type: ignore[call-overload]
    return Unknown(command, body) if parse is None else parse(body)


def parse_from_server(command: int, body: bytes) -> ServerBody:
    """Give the typed body of a command from the relay.

    Raises:
        BadBody: it does not fit its layout.
    """
    parse = _FROM_SERVER.get(command)  # type: ignore[call-overload]
    return Unknown(command, body) if parse is None else parse(body)


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise LocalError(f"this field has {size} bytes, not {len(value)}")
    return value


def _u8(value: int) -> bytes:
    if not 0 <= value <= 0xFF:
        raise LocalError("this field is a u8")
    return bytes((value,))


def _at_least(body: bytes, size: int) -> None:
    if len(body) < size:
        raise BadBody(f"the body has {size} bytes or more")


def _parse_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadBody("a text is UTF-8") from None


def _encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise LocalError("a text with lone surrogates is no UTF-8") from None


def _parse_notice(data: bytes) -> str:
    text = _parse_text(data)
    if len(text) > MAX_INFO:
        raise BadBody(f"a notice has {MAX_INFO} characters at most")
    return text


def _encode_notice(text: str) -> bytes:
    if len(text) > MAX_INFO:
        raise LocalError(f"a notice has {MAX_INFO} characters at most")
    return _encode_text(text)


def _parse_nickname(data: bytes) -> str:
    if len(data) > MAX_NICKNAME:
        raise BadBody(f"a nickname has {MAX_NICKNAME} bytes at most")
    return _parse_text(data)


def _encode_nickname(nickname: str) -> bytes:
    data = _encode_text(nickname)
    if len(data) > MAX_NICKNAME:
        raise LocalError(f"a nickname has {MAX_NICKNAME} bytes at most")
    return data


def _parse_token(token: bytes) -> bytes:
    if len(token) > MAX_PUSH_TOKEN:
        raise BadBody(f"a push token has {MAX_PUSH_TOKEN} bytes at most")
    return token


def _encode_token(token: bytes) -> bytes:
    if len(token) > MAX_PUSH_TOKEN:
        raise LocalError(f"a push token has {MAX_PUSH_TOKEN} bytes at most")
    return token
