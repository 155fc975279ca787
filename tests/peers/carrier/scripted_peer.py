"""A peer that does what a test says: the codec of what peers say, on a connection, and nothing else.

It never asks for chunks, acknowledges nothing and keeps nothing unless it is told to: what telefon v2 does, and what
nobody should do, is written in the tests.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self, TypeVar

from keys.contact import Contact
from keys.invite import RelayCard
from peers.client import ClientOptions, PeerPacket, PeersOnline, RelayClient, Undelivered
from tests.peers.carrier.conversation import WAIT
from wire.inner import parse_inner
from wire.peer_commands import PeerBody, encode_for_peer, parse_from_peer

if TYPE_CHECKING:
    from types import TracebackType

    from keys.identity import Identity, PublicIdentity
    from peers.client import Event
    from tests.support.cutting import CuttingProxy
    from tests.support.relay_process import RelayProcess
    from wire.commands import Body

B = TypeVar("B")


class ScriptedPeer:
    """Somebody at a relay who knows one other party."""

    def __init__(
        self, relay: RelayProcess | CuttingProxy, identity: Identity, other: PublicIdentity, queue: int = 1024
    ) -> None:
        options = ClientOptions(backoff_min=0.02, backoff_max=0.2, queue=queue)
        self.relay = RelayClient(identity, RelayCard(relay.public, relay.url), options)
        self.contact = Contact(identity, other)
        self.undelivered = 0

    async def __aenter__(self) -> Self:
        await self.relay.__aenter__()
        await self.relay.watch([self.contact.public.x_pub])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.relay.__aexit__(kind, error, trace)

    async def event(self) -> Event:
        async with asyncio.timeout(WAIT):
            return await anext(self.relay)

    async def until_there(self) -> Self:
        """Wait until the other is online."""
        while not isinstance(await self.event(), PeersOnline):
            continue
        return self

    async def say(self, *bodies: Body) -> None:
        for body in bodies:
            await self.relay.send(self.contact.id, self.contact.seal(encode_for_peer(body)))

    async def replay(self, packet: bytes) -> None:
        await self.relay.send(self.contact.id, packet)

    async def any(self) -> PeerBody:
        """What the other says next."""
        while True:
            event = await self.event()
            self.undelivered += isinstance(event, Undelivered)
            if isinstance(event, PeerPacket):
                inner = parse_inner(self.contact.open(event.packet))
                return parse_from_peer(inner.command, inner.body)

    async def next(self, kind: type[B]) -> B:
        """The next of that kind that the other says; what stands before it is dropped."""
        while True:
            body = await self.any()
            if isinstance(body, kind):
                return body
