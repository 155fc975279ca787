"""A carrier: takes what a store has to the relay, and brings what comes into the store.

    store ──▶ Outgoing ──▶ RelayClient ──▶ relay
    store ◀── Incoming ◀── RelayClient ◀── relay
    store ◀──▶ Mail ◀──▶ mailboxes, for those who are not there

Nothing is shown, asked or decided here. Programs write to the store and follow its feed, whether the carrier runs in
them or in another process of the profile.
"""

import asyncio
import math
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from keys.files import ClientKeys
from keys.identity import PublicIdentity
from keys.invite import RelayCard
from peers.carrier.incoming import Incoming
from peers.carrier.lane import CardsTag, ChangeTag, Lane, MessageTag
from peers.carrier.mail import Mail
from peers.carrier.options import CarrierOptions
from peers.carrier.outgoing import Outgoing
from peers.carrier.post import Post
from peers.carrier.stirring import stirred_until
from peers.carrier.transfers import Transfers
from peers.client import (
    Connected,
    Disconnected,
    Event,
    IdInUse,
    Introduction,
    NotConnected,
    Notice,
    PeerPacket,
    PeersOffline,
    PeersOnline,
    RelayClient,
    RelayRefused,
    Undelivered,
)
from peers.database import Database
from peers.store import Connection, contacts, feed, unsettled
from peers.store.contacts import ContactRow
from peers.store.errors import KeysDiffer, NoSuchContact, TooManyStrangers
from peers.store.feed import EventRow, Kind
from peers.store.file_rows import PROGRESS

_TIDY = 3600.0
"""Seconds between removals of what the feed need not keep: a carrier may run for months."""
_WORDS = 32
"""Most different words of the relay that the user is told in that time."""
_LEAVE = 2.0
"""Seconds that acknowledgements may take at the end."""
_NOTICED: Final = 64
"""Notices that are remembered, so that each is told once: a relay says its own at every reconnect."""


class Carrier:
    """Carries for one identity. One process of a profile may do so at a time: see :class:`peers.profile.ProfileLock`.

    ``async with Carrier(…) as carrier:`` runs it; :meth:`failure` raises what ends it early.

    Args:
        store: the profile's.
        keys: who we are.
        relay: where.
        options: see there.
        files_dir: where received files lie; made if it is missing.
    """

    _task: asyncio.Task[None]
    _seen: int

    def __init__(
        self,
        store: Database,
        keys: ClientKeys,
        relay: RelayCard,
        options: CarrierOptions | None = None,
        *,
        files_dir: Path,
    ) -> None:
        self._options = options or CarrierOptions()
        self._client = RelayClient(keys.identity, relay, self._options.client)
        self._post = Post(store, keys, self._client, self._options)
        self._store = store
        self._transfers = Transfers(self._post, files_dir)
        self._outgoing = Outgoing(self._post, self._transfers)
        self._incoming = Incoming(self._post, self._transfers)
        self._mail = Mail(self._post, self._incoming, relay, self._introduced)
        self._arrived = asyncio.Event()
        self._noticed: set[str] = set()
        self._words: set[str] = set()

    async def __aenter__(self) -> Self:
        await self._store.write(_begin, self._post.now())
        self._seen = await self._store.read(feed.last)
        for row in await self._store.read(contacts.everyone):
            self._add(row)
        self._task = asyncio.create_task(self._run(), name="carrier")
        return self

    async def __aexit__(self, *exc: object) -> None:
        task = self._task
        if not task.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(_LEAVE):
                    await self._mail.settled()
        if self._client.is_connected and not task.done():
            with suppress(TimeoutError, NotConnected):
                async with asyncio.timeout(_LEAVE):
                    await self._incoming.settled()
                    await self._client.barrier()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # what it raised is for whoever waits for failure()
        self._outgoing.close()
        await self._transfers.close()
        await self._store.write(_end, self._post.now(), refused=_refused(task))

    async def failure(self) -> None:
        """Wait until the carrier cannot go on, and raise why.

        Raises:
            RelayRefused: the relay does not serve us, or has other keys than its card.
            DatabaseError: the store cannot be written.
        """
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            async with self._client, asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._send(), name="carrier-send"),
                    tasks.create_task(self._follow(), name="carrier-follow"),
                    tasks.create_task(self._look_around(), name="carrier-look-around"),
                    tasks.create_task(self._tidy(), name="carrier-tidy"),
                    tasks.create_task(self._incoming.answer(), name="carrier-answer"),
                    tasks.create_task(self._transfers.run(), name="carrier-files"),
                    tasks.create_task(self._mail.run(), name="carrier-mail"),
                ]
                await self._watch([lane.row for lane in self._post.lanes.values()])
                async for event in self._client:
                    await self._on(event)
                for helper in helpers:
                    helper.cancel()
        except ExceptionGroup as group:
            error = group.exceptions[0]
            if isinstance(error, RelayRefused):
                await self._store.write(feed.set_connection, self._post.now(), "refused", text=str(error))
            raise error from None

    # --- Out ----------------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        """Send whenever there may be something to send."""
        stirred = self._post.stirred
        while True:
            next_at = math.inf
            if self._client.is_connected:
                stirred.clear()
                with suppress(NotConnected):  # Connected stirs it again
                    next_at = await self._outgoing.run_once()
            else:
                stirred.clear()
            await stirred_until(stirred, next_at)

    async def _look_around(self) -> None:
        """Write down that there is a connection, once the relay has told who is online: a contact whom the store does
        not call online while it says that there is a connection is known to be offline."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            with suppress(NotConnected):  # there will be another
                # Twice: the relay gathers presence and tells it after what it answers at once, such as the first one.
                for _ in range(2):
                    with suppress(TimeoutError):
                        await self._client.barrier()
                if self._client.is_connected:
                    x_pubs = [lane.row.public.x_pub for lane in self._post.lanes.values()]
                    online = tuple(x_pub for x_pub in x_pubs if self._client.is_online(x_pub))
                    await self._store.write(_connected, self._post.now(), online)
                    self._mail.presence_told()

    async def _tidy(self) -> None:
        """Keep the feed small, for ever."""
        while True:
            await asyncio.sleep(_TIDY)
            self._noticed.clear()
            self._words.clear()
            await self._store.write(feed.prune, self._post.now())

    async def _follow(self) -> None:
        """Notice what this and other processes write."""
        version = -1
        while True:
            version = await self._store.changed(version)
            while events := await self._store.read(feed.read, self._seen):
                for event in events:
                    if event.kind is Kind.CONTACT and event.contact is not None:
                        await self._reload(event.contact)
                    elif event.message is not None and _concerns_files(event):
                        await self._transfers.changed(event.message)
                self._seen = events[-1].seq
            self._post.stirred.set()
            self._mail.stir()

    # --- In -----------------------------------------------------------------------------------------------------------

    async def _on(self, event: Event) -> None:
        post, now = self._post, self._post.now()
        match event:
            case PeerPacket(sender_id, packet):
                if not self._mail.take(sender_id, packet):
                    await self._incoming.take(event)
            case Connected():
                self._mail.connected()
                for lane in post.lanes.values():
                    lane.reset(self._options.resend, post.clock() + self._options.probe)
                self._transfers.connected()
                self._arrived.set()
                post.stirred.set()
            case Disconnected(_, text, retry_in):
                self._mail.disconnected()
                self._transfers.connected()
                await self._store.write(_disconnected, now, text, retry_in)
            case IdInUse():
                text = "another program uses this identity at the relay; trying again"
                await self._store.write(feed.set_connection, now, "refused", text=text)
            case PeersOnline(x_pubs) | PeersOffline(x_pubs):
                await self._presence(x_pubs, online=isinstance(event, PeersOnline))
            case Undelivered(_, nonce):
                await self._undelivered(nonce)
            case Introduction(public, nickname):
                await self._introduced(public, nickname)
            case Notice(text):
                # Counted by themselves: it must not be able to drown what is said about keys.
                if len(self._words) < _WORDS:
                    self._words.add(text)
                    await self._notice(f"the relay says: {' '.join(text.split())}")
            case _:
                pass

    async def _presence(self, x_pubs: tuple[bytes, ...], *, online: bool) -> None:
        post = self._post
        for x_pub in x_pubs:
            lane = post.by_peer_id.get(x_pub[:8])
            if lane is not None and lane.row.public.x_pub == x_pub:
                # Also if they were online before: what was on its way may have died with their old socket.
                lane.reset(self._options.resend, post.clock() + self._options.probe)
                lane.online = online
                self._mail.presence(lane)
                if not online:
                    self._transfers.unreachable(lane)
                else:
                    lane.came_at = post.clock()
                    self._transfers.reachable(lane)
                    with suppress(NotConnected):
                        await self._outgoing.greet(lane)
        await self._store.write(contacts.set_online, post.now(), x_pubs, online=online)
        post.stirred.set()

    async def _undelivered(self, nonce: bytes) -> None:
        post = self._post
        found = post.refused(nonce)
        if found is None:
            self._mail.undelivered(nonce)
            return
        lane, tag = found
        # Offline, or their queue is full: either way the relay says PEER_ONLINE when it is worth trying again.
        lane.online = False
        lane.probe_at = post.clock() + self._options.probe
        if isinstance(tag, MessageTag):
            lane.on_way.pop(tag.message, None)
            self._transfers.offer_refused(tag.message)
            await self._store.write(unsettled.mark_queued, post.now(), [tag.message])
        elif isinstance(tag, ChangeTag):
            lane.changes.pop(tag.message, None)
        elif not isinstance(tag, CardsTag):
            self._transfers.refused(lane, tag)
        post.stirred.set()
        self._mail.stir()

    async def _introduced(self, public: PublicIdentity, nickname: str) -> Lane | None:
        """Make a contact of somebody who introduces themselves; None if they are refused."""
        now = self._post.now()
        try:
            row = await self._store.write(contacts.add, now, public, nickname=nickname, origin="introduction")
        except KeysDiffer as error:
            await self._notice(f"somebody introduced themselves with other keys: refused. {error}")
        except TooManyStrangers:
            await self._notice("an introduction was refused: there are too many")
        else:
            # At once, and not by way of the feed: what they say may be the next packet.
            await self._reload(row.id)
            return self._post.lanes.get(row.id)
        return None

    async def _notice(self, text: str) -> None:
        """Tell the user, once in a while: whoever causes it can do so again and again."""
        if text not in self._noticed:
            if len(self._noticed) >= _NOTICED:
                self._noticed.clear()
            self._noticed.add(text)
            await self._store.write(feed.add, self._post.now(), Kind.NOTICE, detail=text)

    # --- Lanes --------------------------------------------------------------------------------------------------------

    def _add(self, row: ContactRow) -> bool:
        if row.public.x_pub == self._post.ours.public.x_pub:
            return False
        lane = Lane(self._post.ours, row, self._options.resend)
        self._post.lanes[row.id] = lane
        self._post.by_peer_id[row.public.id] = lane
        return True

    async def _reload(self, contact: int) -> None:
        try:
            row = await self._store.read(contacts.get, contact)
        except NoSuchContact:
            lane = self._post.lanes.get(contact)
            if lane is not None:
                del self._post.lanes[contact]
                del self._post.by_peer_id[lane.row.public.id]
                await self._transfers.contact_removed(contact)
                await self._client.unwatch([lane.row.public.x_pub])
            return
        # Looked up only now: an introduction is reloaded at once and by way of the feed, and has one lane all the same.
        lane = self._post.lanes.get(contact)
        if lane is None:
            if self._add(row):
                await self._watch([row])
            return
        was_blocked, lane.row = lane.row.blocked, row
        if row.blocked and not was_blocked:
            lane.online = False
            await self._client.unwatch([row.public.x_pub])
        elif was_blocked and not row.blocked:
            await self._watch([row])

    async def _watch(self, rows: list[ContactRow]) -> None:
        await self._client.watch([row.public.x_pub for row in rows if not row.blocked])


def _concerns_files(event: EventRow) -> bool:
    if event.kind is Kind.FILE:
        return event.detail != PROGRESS
    return event.kind is Kind.DELETED


def _refused(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and isinstance(task.exception(), RelayRefused)


def _begin(db: Connection, now: int) -> None:
    feed.prune(db, now)
    contacts.nobody_online(db, now)  # whoever carried before may have been killed
    feed.set_connection(db, now, "connecting")


def _connected(db: Connection, now: int, online: tuple[bytes, ...]) -> None:
    contacts.set_online(db, now, online, online=True)
    feed.set_connection(db, now, "connected")


def _disconnected(db: Connection, now: int, text: str, retry_in: float) -> None:
    contacts.nobody_online(db, now)
    feed.set_connection(db, now, "waiting", text=text, retry_in=round(retry_in, 1))


def _end(db: Connection, now: int, *, refused: bool) -> None:
    contacts.nobody_online(db, now)
    if not refused:  # why there is no connection is worth knowing for longer than we live
        feed.set_connection(db, now, "closed")
