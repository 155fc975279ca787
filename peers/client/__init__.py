"""The client library of a relay: one identity's connection to one relay, kept up.

    async with RelayClient(identity, RelayCard.parse("R0…")) as relay:
        await relay.connected()
        await relay.send(contact.id, contact.seal(plaintext))
        async for event in relay:
            …

What is sealed inside of the packets, and what is done about those that do not arrive, is for the floor above.
"""

from peers.client.client import RelayClient
from peers.client.errors import (
    BadOption,
    ClientError,
    NotAdmitted,
    NotConnected,
    RelayRefused,
    WrongRelayKeys,
    WrongVersion,
)
from peers.client.events import (
    Connected,
    Disconnected,
    Event,
    IdInUse,
    Introduction,
    Notice,
    PeerPacket,
    PeersOffline,
    PeersOnline,
    PushRegistered,
    Reason,
    Restarting,
    Undelivered,
    WakeRequested,
)
from peers.client.options import ClientOptions
from wire.commands import PushKind, WakeType

__all__ = [
    "BadOption",
    "ClientError",
    "ClientOptions",
    "Connected",
    "Disconnected",
    "Event",
    "IdInUse",
    "Introduction",
    "NotAdmitted",
    "NotConnected",
    "Notice",
    "PeerPacket",
    "PeersOffline",
    "PeersOnline",
    "PushKind",
    "PushRegistered",
    "Reason",
    "RelayClient",
    "RelayRefused",
    "Restarting",
    "Undelivered",
    "WakeRequested",
    "WakeType",
    "WrongRelayKeys",
    "WrongVersion",
]
