"""The ways of a carrier to mailboxes: as a nobody to leave things, as ourselves to pick up."""

import asyncio
from dataclasses import replace

from keys.invite import MailboxCard, RelayCard
from peers.carrier.post import Post
from peers.client import ClientOptions
from peers.dropping import Collector, Depositor, Way
from peers.dropping.by_packets import PacketWay
from peers.store.mailboxes import OwnMailbox, Place


class Ways:
    """Depositors and collectors, each made once.

    What is picked up at a mailbox of the carrier's own relay is picked up over its connection. What is left there is
    left over another one, under an identity that is made for it: the mailbox would see from whom, else.
    """

    def __init__(self, post: Post, relay: RelayCard) -> None:
        self._post = post
        self._relay = relay
        self._options = post.options.mail.dropping
        self._elses = replace(self._options, far=not post.loopback)
        self._depositors: dict[int, Depositor] = {}
        self._collectors: dict[int, Collector] = {}
        self._shared: dict[int, PacketWay] = {}

    def depositor(self, place: Place) -> Depositor:
        """Return what leaves things in a mailbox."""
        found = self._depositors.get(place.id)
        if found is None:
            found = self._depositors[place.id] = Depositor(place.card, self._nameless(place.card), self._elses)
        return found

    def collector(self, own: OwnMailbox) -> Collector:
        """Return what picks up from a mailbox of ours."""
        found = self._collectors.get(own.id)
        if found is None:
            found = self._collectors[own.id] = Collector(own.card, self._as_ourselves(own))
        return found

    def shared(self, card: MailboxCard) -> bool:
        """Whether a mailbox is reached over the carrier's own connection, which must be there."""
        return card.by_relay and card.url == self._relay.url

    def forget(self, but: set[int]) -> list[Collector]:
        """Forget the collectors of mailboxes that are not ours any more; returns them."""
        gone = [mailbox for mailbox in self._collectors if mailbox not in but]
        for mailbox in gone:
            self._shared.pop(mailbox, None)
        return [self._collectors.pop(mailbox) for mailbox in gone]

    # --- What the carrier's connection brings -------------------------------------------------------------------------

    def take(self, sender_id: bytes, packet: bytes) -> bool:
        """Take a packet if it is a mailbox's answer."""
        return any(way.id == sender_id and way.take(packet) for way in self._shared.values())

    def undelivered(self, nonce: bytes) -> bool:
        """The relay could not pass a packet on; False if it was none to a mailbox."""
        return any(way.undelivered(nonce) for way in self._shared.values())

    def reconnected(self) -> None:
        """There is another session than before, or none."""
        for way in self._shared.values():
            way.reconnected()

    async def close(self) -> None:
        """Let go of all connections."""
        clients = (*self._depositors.values(), *self._collectors.values())
        await asyncio.gather(*(client.rest() for client in clients))

    # --- Within -------------------------------------------------------------------------------------------------------

    def _nameless(self, card: MailboxCard) -> Way:
        # Imported only where a mailbox is used: most of a carrier's users need no HTTP client.
        if not card.by_relay:
            from peers.dropping.by_http import HttpWay

            return HttpWay(card, self._elses)
        from peers.dropping.by_relay import RelayWay

        if self.shared(card):
            return RelayWay(card, self._elses, relay=self._relay, client=self._post.options.client)
        return RelayWay(card, self._elses, client=self._elsewhere())

    def _as_ourselves(self, own: OwnMailbox) -> Way:
        ours = self._post.ours
        if not own.card.by_relay:
            from peers.dropping.by_http import HttpWay

            return HttpWay(own.card, self._options, ours)
        if self.shared(own.card):
            way = self._shared[own.id] = PacketWay(self._post.relay, ours, own.card, self._options)
            return way
        from peers.dropping.by_relay import RelayWay

        return RelayWay(own.card, self._options, lambda: ours, client=self._elsewhere())

    def _elsewhere(self) -> ClientOptions:
        return replace(self._post.options.client, token=None)  # which is for our own relay alone
