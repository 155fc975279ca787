"""Invites and cards: public keys as a line of text that people hand to each other (PROTOCOL.md §3, docs/mailbox.md).

    invite        = "K0" base64url( x_pub(32) ed_pub(32) nickname(utf-8, 0 to 256) )
    relay card    = "R0" base64url( x_pub(32) ed_pub(32) url(utf-8, 1 to 1024) )
    mailbox card  = "M0" base64url( x_pub(32) ed_pub(32) url(utf-8, 1 to 1024) )

The base64url is unpadded (RFC 4648 §5). Reading is strict, so that one set of keys and one name have exactly one text:
what parses gives the same text again. Texts of errors never repeat what was read, for it names who talks to whom.
"""

import base64
import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import ClassVar, Final, Self
from urllib.parse import urlsplit

from keys import primitives as p
from keys.errors import BadInvite, BadKey
from keys.identity import PublicIdentity

INVITE_PREFIX: Final = "K0"
CARD_PREFIX: Final = "R0"
MAILBOX_PREFIX: Final = "M0"
NICKNAME_MAX: Final = 256
"""Most bytes of a nickname in UTF-8: enough for a long name in any script, too few to smuggle a text."""
URL_MAX: Final = 1024
"""Most bytes of a relay's or mailbox's address in UTF-8."""
LINK_MAX: Final = 8192
"""Most characters of a web link that carries an invite: what browsers and servers commonly bear."""
RELAY_SCHEMES: Final = ("ws://", "wss://")
MAILBOX_SCHEMES: Final = ("ws://", "wss://", "http://", "https://")
TYPE_MARK: Final = "\u241f"
"""Stands in some nicknames between the name and a type word (``info``, ``claude``, …)."""

_KEYS_SIZE: Final = 2 * p.KEY_SIZE
# Stricter than urllib, of which some versions ignore what follows a bracket.
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]*)\]|(?P<name>[^\[\]:]*))(?::[0-9]{1,5})?")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")
# Marks, embeddings, overrides and isolates of the bidirectional algorithm: they reorder the text around a name.
BIDI_CONTROLS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSHOWABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def encode_nickname(nickname: str) -> bytes:
    """Return `nickname` in UTF-8 (at most 256 bytes).

    Raises:
        BadInvite: it is longer, or holds surrogates that UTF-8 cannot carry.
    """
    raw = _utf8(nickname, "the nickname")
    if len(raw) > NICKNAME_MAX:
        raise BadInvite(f"the nickname has {len(raw)} bytes in UTF-8; {NICKNAME_MAX} are the most")
    return raw


def display_name(nickname: str) -> str:
    """Return `nickname` as it may be shown: without its type word, and without characters that act on a terminal or
    reorder the text around them (control characters, line separators, bidirectional controls)."""
    name = nickname.rpartition(TYPE_MARK)[0] if TYPE_MARK in nickname else nickname
    return "".join(c for c in name if unicodedata.category(c) not in _UNSHOWABLE and c not in BIDI_CONTROLS)


@dataclass(frozen=True, slots=True, repr=False)
class Invite:
    """A party's public keys and the nickname it gives itself.

    Args:
        public: the keys.
        nickname: at most 256 bytes of UTF-8, kept exactly; :attr:`display_name` is what to show.

    Raises:
        BadInvite: a key of low order (or one that no secret can have), or a nickname that is too long.
    """

    public: PublicIdentity
    nickname: str = ""

    def __post_init__(self) -> None:
        _check_keys(self.public)
        encode_nickname(self.nickname)

    @classmethod
    def parse(cls, text: str) -> "Invite":
        """Read ``K0…``, or a web link that carries it as ``peer=K0…`` in its query or fragment.

        White space around it is ignored, and nothing else: no padding, no second `peer`, no percent-encoding.

        Raises:
            BadInvite: for anything else; the text says what is wrong.
        """
        text = text.strip()
        if not text.startswith((INVITE_PREFIX, CARD_PREFIX, MAILBOX_PREFIX)):
            text = _from_link(text)
        public, nickname = _unpack(text, INVITE_PREFIX, "an invite", NICKNAME_MAX)
        return cls(public, _decode(nickname, "the nickname"))

    @property
    def text(self) -> str:
        """The invite as text, ``K0…`` (88 to 429 characters)."""
        return _pack(INVITE_PREFIX, self.public, encode_nickname(self.nickname))

    @property
    def display_name(self) -> str:
        """The nickname as it may be shown (see :func:`display_name`)."""
        return display_name(self.nickname)

    def __repr__(self) -> str:
        return "Invite(…)"


@dataclass(frozen=True, slots=True, repr=False)
class _Card:
    """Public keys and an address, as text."""

    public: PublicIdentity
    url: str

    _PREFIX: ClassVar[str]
    _WHAT: ClassVar[str]
    _SCHEMES: ClassVar[tuple[str, ...]]
    _ADDRESS: ClassVar[str]

    def __post_init__(self) -> None:
        _check_keys(self.public)
        check_url(self.url, self._SCHEMES, self._ADDRESS)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :attr:`text` gives; white space around it is ignored.

        Raises:
            BadInvite: for anything else; the text says what is wrong.
        """
        public, url = _unpack(text.strip(), cls._PREFIX, cls._WHAT, URL_MAX)
        return cls(public, _decode(url, "the address"))

    @property
    def text(self) -> str:
        """The card as text: ``R0…`` of a relay, ``M0…`` of a mailbox."""
        return _pack(self._PREFIX, self.public, _utf8(self.url, "the address"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


@dataclass(frozen=True, slots=True, repr=False)
class RelayCard(_Card):
    """A relay's public keys and its address: all that a client needs to connect to it.

    Args:
        public: the keys.
        url: ``ws://host…`` or ``wss://host…``, kept exactly; at most 1024 bytes of UTF-8. A card without an address
            does not exist: the keys alone would leave every client asking for a second setting.

    Raises:
        BadInvite: a key of low order (or one that no secret can have), or an address that cannot be used.
    """

    _PREFIX = CARD_PREFIX
    _WHAT = "a relay card"
    _SCHEMES = RELAY_SCHEMES
    _ADDRESS = "the relay's address"


@dataclass(frozen=True, slots=True, repr=False)
class MailboxCard(_Card):
    """A mailbox's public keys and where it is found: at a relay that it is a peer of, or at an address of its own.

    Args:
        public: the keys, under which deposits are sealed for this mailbox.
        url: ``ws://…`` or ``wss://…`` of that relay, or ``http://…`` or ``https://…`` of the mailbox itself; at most
            1024 bytes of UTF-8. Kept exactly, for whoever picks up binds it in the proof.

    Raises:
        BadInvite: a key of low order (or one that no secret can have), or an address that cannot be used.
    """

    _PREFIX = MAILBOX_PREFIX
    _WHAT = "a mailbox card"
    _SCHEMES = MAILBOX_SCHEMES
    _ADDRESS = "the mailbox's address"

    @property
    def by_relay(self) -> bool:
        """Whether it is reached as a peer of a relay, and not at an address of its own."""
        return self.url.startswith(RELAY_SCHEMES)


def _from_link(text: str) -> str:
    if len(text) > LINK_MAX:
        raise BadInvite(f"longer than any invite or link to one ({LINK_MAX} characters)")
    # By hand, because urllib drops tabs and line breaks inside a link: two texts would be read alike.
    address, _, fragment = text.partition("#")
    queries = address.partition("?")[2], fragment.rpartition("?")[2]
    found = [item.removeprefix("peer=") for query in queries for item in query.split("&") if item.startswith("peer=")]
    if not found:
        raise BadInvite("an invite begins with K0, or is a link with peer=K0… in it")
    if len(found) > 1:
        raise BadInvite("the link carries more than one peer")
    return found[0]


def _pack(prefix: str, public: PublicIdentity, rest: bytes) -> str:
    return prefix + _encode64(public.x_pub + public.ed_pub + rest)


def _unpack(text: str, prefix: str, what: str, rest_max: int) -> tuple[PublicIdentity, bytes]:
    if not text.startswith(prefix):
        others = {INVITE_PREFIX: "an invite", CARD_PREFIX: "a relay card", MAILBOX_PREFIX: "a mailbox card"}
        other = others.get(text[:2])
        raise BadInvite(f"this is {other}, not {what}" if other else f"{what} begins with {prefix}")
    body = text[len(prefix) :]
    if len(body) > -(-(_KEYS_SIZE + rest_max) * 4 // 3):
        raise BadInvite(f"too long for {what}")
    if "=" in body:
        raise BadInvite(f"{what} has no padding (=)")
    if not _BASE64URL.fullmatch(body):
        raise BadInvite(f"{what} holds only letters, digits, - and _ after {prefix}")
    if len(body) < -(-_KEYS_SIZE * 4 // 3) or len(body) % 4 == 1:
        raise BadInvite(f"{what} that is cut short: copy the whole of it")
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    if _encode64(raw) != body:
        # Unused bits of the last character must be zero, or several texts would mean the same keys.
        raise BadInvite(f"{what} whose last character is wrong")
    try:
        public = PublicIdentity(raw[: p.KEY_SIZE], raw[p.KEY_SIZE : _KEYS_SIZE])
    except BadKey as error:
        raise BadInvite(f"{what} that must not be used: {error}") from None
    return public, raw[_KEYS_SIZE:]


def _check_keys(public: PublicIdentity) -> None:
    try:
        p.check_x25519_order(public.x_pub)
        p.check_ed25519_public(public.ed_pub)
    except BadKey as error:
        raise BadInvite(str(error)) from None


def check_url(url: str, schemes: tuple[str, ...] = RELAY_SCHEMES, what: str = "the relay's address") -> None:
    """Check that `url` can be an address of a relay, or of what else `schemes` and `what` say.

    Raises:
        BadInvite: it cannot; the text says why.
    """
    size = len(_utf8(url, "the address"))
    if not size:
        raise BadInvite(f"{what} is missing: " + " or ".join(f"{scheme}HOST…" for scheme in schemes))
    if size > URL_MAX:
        raise BadInvite(f"{what} has {size} bytes; {URL_MAX} are the most")
    if not url.startswith(schemes):
        raise BadInvite(f"{what} must begin with " + " or ".join(schemes))
    # A backslash is a slash to browsers and none to others: they would not agree on the host.
    if not url.isprintable() or " " in url or "\\" in url:
        raise BadInvite(f"{what} holds a space, backslash or control character")
    if "#" in url:
        # RFC 6455 §3 forbids it, and HTTP never sends it: two texts would name one place.
        raise BadInvite(f"{what} has a fragment (#), which must not be")
    try:
        # Refuses as well what turns into / ? # @ or : when the host is normalised (NFKC), as IDNA does.
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadInvite(f"{what} has a host or port that cannot be read") from None
    if "@" in parts.netloc:
        raise BadInvite(f"{what} must not carry a user name or password")
    host = _HOST.fullmatch(parts.netloc)
    if not host or (host["v6"] is not None and not _is_ipv6(host["v6"])):
        raise BadInvite(f"{what} has a host or port that cannot be read")
    if not (host["v6"] or host["name"]):
        raise BadInvite(f"{what} names no host")
    if port == 0:
        raise BadInvite(f"{what} has port 0")


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _encode64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadInvite(f"{what} holds characters that UTF-8 cannot carry") from None


def _decode(raw: bytes, what: str) -> str:
    try:
        return raw.decode()  # strict, so one text only has these bytes
    except UnicodeDecodeError:
        raise BadInvite(f"{what} is not UTF-8") from None
