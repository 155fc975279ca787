"""Mailboxes, both ways: what the rest of a carrier calls."""

import asyncio

from keys.invite import RelayCard
from peers.carrier.fetching import Fetching, Introduce
from peers.carrier.incoming import Incoming
from peers.carrier.lane import Lane
from peers.carrier.leaving import Leaving
from peers.carrier.post import Post
from peers.carrier.ways import Ways
from peers.client.opening import is_loopback


class Mail:
    """All mailboxes of a carrier.

    Args:
        post: shared with the rest of the carrier.
        relay: the carrier's own.
        introduce: makes a contact of a stranger.
    """

    def __init__(self, post: Post, incoming: Incoming, relay: RelayCard, introduce: Introduce) -> None:
        self._post = post
        post.loopback = is_loopback(relay.url)
        self._ways = Ways(post, relay)
        self._leaving = Leaving(post, self._ways)
        self._fetching = Fetching(post, incoming, self._ways, introduce)

    async def run(self) -> None:
        """Do all that is to be done, for ever; raises what the store raises."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._leaving.run(), name="mail-leave")
                tasks.create_task(self._fetching.run(), name="mail-fetch")
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await self._ways.close()

    async def settled(self) -> None:
        """Return when what came is acknowledged to its mailboxes, and what can be left now is left."""
        await self._fetching.settled()
        await self._leaving.settled()

    def stir(self) -> None:
        """The store has changed."""
        self._leaving.stir()
        self._fetching.stir()

    def connected(self) -> None:
        """There is a session with the relay."""
        self._post.presence_told = False
        self._ways.reconnected()
        self._fetching.connected()

    def disconnected(self) -> None:
        """There is none any more."""
        self._post.presence_told = False
        self._ways.reconnected()

    def presence_told(self) -> None:
        """The relay has told who is online."""
        self._post.presence_told = True
        self._leaving.stir()

    def presence(self, lane: Lane) -> None:
        """A contact came or went."""
        self._leaving.came(lane.row.id)

    def take(self, sender_id: bytes, packet: bytes) -> bool:
        """Take a packet if it is a mailbox's answer."""
        return self._ways.take(sender_id, packet)

    def undelivered(self, nonce: bytes) -> bool:
        """The relay could not pass a packet on; False if it was none to a mailbox."""
        return self._ways.undelivered(nonce)
