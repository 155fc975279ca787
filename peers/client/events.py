"""What a relay client tells of. Ids, keys and texts stay out of ``repr``, so that an event can be printed anywhere."""

from dataclasses import dataclass, field
from enum import Enum

from keys.identity import PublicIdentity


class Reason(Enum):
    """Why there is no session."""

    UNREACHABLE = "unreachable"
    """The address cannot be looked up or does not answer."""
    TLS = "tls"
    """No TLS: most likely a certificate that is not trusted."""
    PROXY = "proxy"
    """The proxy that the environment names does not take us there."""
    NOT_A_RELAY = "not_a_relay"
    """Something answers that does not open a WebSocket."""
    BUSY = "busy"
    """The relay asks to come back later: full, a rate, or it cannot say now whether we may in."""
    ID_IN_USE = "id_in_use"
    """Another session has our id."""
    UNANSWERED = "unanswered"
    """The connection was closed before the handshake was answered."""
    RESTARTING = "restarting"
    """The relay went away and told so before."""
    CLOSED = "closed"
    """The relay closed the session."""
    LOST = "lost"
    """The connection broke."""
    SILENT = "silent"
    """Nothing was heard for too long."""
    VIOLATION = "violation"
    """What came was not from the relay, or not as the protocol has it."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A session is open; what was watched is asked for again. What is not acknowledged should be sent again now."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A session ended, or none came about. Nobody is known to be online any more.

    Args:
        reason: why.
        text: the same for people, fit to be shown.
        retry_in: seconds until the next attempt.
    """

    reason: Reason
    text: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class PeerPacket:
    """A packet of a peer, unopened. Nothing vouches for the sender's id: only the keys of the contact do (open it)."""

    sender_id: bytes = field(repr=False)
    packet: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeersOnline:
    """Owners of watched keys came, or can be reached again: what they did not acknowledge should be sent again.

    It may come for somebody who is online already (PROTOCOL.md §8.7).
    """

    x_pubs: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeersOffline:
    """Owners of watched keys went."""

    x_pubs: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Introduction:
    """Somebody introduces themselves. The keys passed the checks for keys and are *unverified*: the relay could forge
    them. The nickname is as it came; `keys.invite.display_name` makes it fit to be shown."""

    public: PublicIdentity
    nickname: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A packet that we sent was not delivered; `nonce` (24 bytes) is its first 24."""

    target_id: bytes = field(repr=False)
    nonce: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notice:
    """The relay's operator tells something to its users. Control characters are taken out; line breaks are not."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Restarting:
    """The relay is about to close the session; the client comes back so many seconds after that."""

    reconnect_in: float


@dataclass(frozen=True, slots=True)
class IdInUse:
    """Another session has our id: this identity runs elsewhere too. A Disconnected follows, and another attempt."""


@dataclass(frozen=True, slots=True)
class WakeRequested:
    """For the notifier: somebody asks to wake this target; 0 a message, 1 a call, None a message too."""

    target_id: bytes = field(repr=False)
    type: int | None


@dataclass(frozen=True, slots=True)
class PushRegistered:
    """For the notifier: where the sender can be pushed (`wire.commands.PushKind`)."""

    sender_id: bytes = field(repr=False)
    kind: int
    token: bytes = field(repr=False)


Event = (
    Connected
    | Disconnected
    | PeerPacket
    | PeersOnline
    | PeersOffline
    | Introduction
    | Undelivered
    | Notice
    | Restarting
    | IdInUse
    | WakeRequested
    | PushRegistered
)
