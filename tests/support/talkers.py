"""Clients that number all that they send, so that in the end each frame is known to have arrived, or to be refused."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

from keys.identity import Identity
from tests.support.bulk import BulkClient
from tests.support.clients import ws_frame
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keys.identity import PublicIdentity
    from tests.support.nats_cluster import ClusterProcess

_SIZE: Final = 128


class Talker(BulkClient):
    """A session, all that went over it, and what it was told of others.

    Attributes:
        sent: by recipient id, the numbers of the packets for it, in order.
    """

    def __init__(self, identity: Identity, relay: PublicIdentity) -> None:
        super().__init__(identity, relay)
        self.sent: dict[bytes, list[int]] = {}
        # No number is used twice, nor by two sessions of one id.
        self._number = int.from_bytes(os.urandom(5), "big") << 24

    def say(self, other: BulkClient, count: int = 1) -> int:
        """Send so many packets at once; returns the number of the last."""
        first = self._number
        self._number += count
        self.sent.setdefault(other.id, []).extend(range(first, self._number))
        self.transport.write(self.frames(other.id, first, count, _SIZE))
        return self._number - 1

    def watch(self, *others: BulkClient) -> None:
        """Ask to be told of others."""
        keys = [other.identity.public.x_pub for other in others]
        self.transport.write(ws_frame(self.session.command(c.Subscribe.of(keys))))

    def told_of(self, other: BulkClient) -> list[bool]:
        """Return what we were told of somebody so far, in order: online or not."""
        x_pub = other.identity.public.x_pub
        changes = [body for body in self.said if isinstance(body, c.PeerOnline | c.PeerOffline)]
        return [isinstance(body, c.PeerOnline) for body in changes if x_pub in body.x_pubs]

    async def until_told(self, other: BulkClient, *, online: bool) -> None:
        """Wait until the last that we were told of somebody is this."""
        await self.until(lambda: self.told_of(other)[-1:] == [online])

    def heard(self, sender: BulkClient, number: int) -> bool:
        """Tell whether this packet came."""
        return number in self.delivered.get(sender.id, ())

    async def fate(self, other: Talker, number: int) -> bool:
        """Wait for what becomes of a packet; returns whether it arrived."""
        await self.until(lambda: other.heard(self, number) or number in self.refused)
        return other.heard(self, number)

    async def reach(self, other: Talker) -> None:
        """Send until something arrives, as a client with an outbox does: each time one was refused another."""
        while not await self.fate(other, self.say(other)):
            pass

    async def refused_by(self, other: Talker) -> None:
        """Send a packet, which the relay has to refuse."""
        assert not await self.fate(other, self.say(other))

    async def turn(self) -> None:
        """Send to ourselves and wait until that comes: the relay has taken what we sent before."""
        assert await self.fate(self, self.say(self))


class Talkers:
    """The talkers of one test at the relays of a cluster; all hang up at its end."""

    def __init__(self, cluster: ClusterProcess) -> None:
        self._cluster = cluster
        self._came = asyncio.Event()
        self.all: list[Talker] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for talker in self.all:
            talker.transport.abort()

    async def at(self, place: int, identity: Identity | None = None) -> Talker:
        """Open a session at one of the relays."""
        relay = self._cluster.relays[place]
        talker = await Talker.open(relay.port, identity or Identity.generate(), relay.public)
        # One event for all: who waits for what becomes of a packet waits for either of two.
        talker.came = self._came
        self.all.append(talker)
        return talker

    async def whole(self, talkers: Sequence[Talker]) -> None:
        """Wait until each reaches each, wherever they are."""
        await asyncio.gather(*(one.reach(other) for one in talkers for other in talkers))

    async def traffic(self, talkers: Sequence[Talker], rounds: int, batch: int = 3) -> None:
        """Let all send to all, each as fast as its own relay takes it, whatever becomes of it elsewhere."""

        async def talk(talker: Talker) -> None:
            for _ in range(rounds):
                for other in talkers:
                    talker.say(other, batch)
                await talker.turn()

        await asyncio.gather(*(talk(talker) for talker in talkers))

    def in_doubt(self, talkers: Sequence[Talker]) -> int:
        """Find that nothing is missing, doubled, overtaken or told twice.

        Returns how many packets arrived, and were refused all the same: they were in doubt when a node was given up, as
        under a socket that dies (PROTOCOL.md §8.9).
        """
        both = 0
        for sender in talkers:
            refused = set(sender.refused)
            assert len(refused) == len(sender.refused), "told twice"
            for recipient in talkers:
                sent = sender.sent.get(recipient.id, [])
                arrived = recipient.delivered.get(sender.id, [])
                assert all(one < other for one, other in pairwise(arrived)), "overtaken, or doubled"
                assert set(arrived) <= set(sent), "never sent"
                assert set(sent) <= refused | set(arrived), "lost in silence"
                both += len(refused & set(arrived))
        return both

    async def accounted(self, talkers: Sequence[Talker]) -> None:
        """Wait until each packet arrived or was refused."""
        for sender in talkers:
            for recipient in talkers:
                settled = set(sender.refused) | set(recipient.delivered.get(sender.id, ()))
                for number in sender.sent.get(recipient.id, ()):
                    if number not in settled:
                        await sender.fate(recipient, number)
