"""The way in by mailboxes: what was left for us is picked up, kept, and only then acknowledged to each mailbox."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from keys.contact import Contact
from keys.deposit import open_deposit
from keys.errors import BadKey, OpenError
from keys.identity import PublicIdentity
from keys.invite import MailboxCard
from keys.primitives import KEY_SIZE, NONCE_SIZE
from peers.carrier.incoming import Incoming
from peers.carrier.lane import Lane
from peers.carrier.merging import merged
from peers.carrier.post import Post
from peers.carrier.rests import Rests
from peers.carrier.ways import Ways
from peers.dropping import Collector, MailboxError
from peers.store import Connection, feed, mailboxes, parcels
from peers.store.errors import NoSuchContact
from peers.store.feed import Kind
from peers.store.mailboxes import OwnMailbox
from wire.errors import WireError
from wire.inner import parse_inner
from wire.mailbox_answers import Item, Lease
from wire.mailbox_codes import ACK_MAX, ItemKind
from wire.peer_commands import parse_from_peer
from wire.peer_mailboxes import Mailboxes

_LIMIT: Final = 64
"""Items that are asked for at once; a mailbox gives no more than fit a frame (1 MiB)."""
_ROUNDS: Final = 256
"""Leases in a row. A mailbox that never ends is looked into again later, and meanwhile others are."""

Introduce = Callable[[PublicIdentity, str], Awaitable[Lane | None]]
"""Makes a contact of a stranger; None if they are refused."""


@dataclass(slots=True)
class _Look:
    """What one look into a mailbox brought."""

    own: OwnMailbox
    collector: Collector
    lease: Lease | None = None
    trouble: str = ""
    letters: list["_Letter"] = field(default_factory=list)
    picked: int = 0
    refused: int = 0
    since: int = 0
    over: bool = False


@dataclass(frozen=True, slots=True)
class _Letter:
    """A packet that was left for us, by whoever holds these keys if it opens."""

    sender: PublicIdentity
    packet: bytes = field(repr=False)

    @property
    def key(self) -> bytes:
        """What its copies have in common."""
        return self.sender.x_pub + self.packet[:NONCE_SIZE]


class Fetching:
    """Picks up at our mailboxes: at the beginning, when there is a connection, when asked to, and from time to time."""

    def __init__(self, post: Post, incoming: Incoming, ways: Ways, introduce: Introduce) -> None:
        self._post = post
        self._incoming = incoming
        self._ways = ways
        self._introduce = introduce
        self._options = post.options.mail
        self._stirred = asyncio.Event()
        self._rests = Rests(self._options.backoff_min, self._options.backoff_max)
        self._next: dict[int, float] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def settled(self) -> None:
        """Return when no look is under way: what came is acknowledged."""
        await self._idle.wait()

    def stir(self) -> None:
        """Somebody may have asked for a look."""
        self._stirred.set()

    def connected(self) -> None:
        """There is a session: what came while there was none may lie in mailboxes."""
        self._next.clear()
        self._stirred.set()

    async def run(self) -> None:
        """Pick up, for ever; raises what the store raises."""
        while True:
            self._stirred.clear()
            next_at = await self._look()
            try:
                async with asyncio.timeout_at(None if next_at == math.inf else next_at):
                    await self._stirred.wait()
            except TimeoutError:
                continue

    async def _look(self) -> float:
        """Look into those that are due; returns when to look again (event loop time)."""
        post = self._post
        ours = await post.store.read(mailboxes.own)
        for gone in self._ways.forget({own.id for own in ours}):
            await gone.rest()
        due = [own for own in ours if self._due_at(own) <= post.clock()]
        if due:
            self._idle.clear()
            await self._round([_Look(own, self._ways.collector(own)) for own in due])
            self._idle.set()
            lying = await post.store.read(parcels.lying)
            every = self._options.awaiting if lying else self._options.every
            for own in due:
                self._next[own.id] = post.clock() + every
        return min((self._due_at(own) for own in await post.store.read(mailboxes.own)), default=math.inf)

    def _due_at(self, own: OwnMailbox) -> float:
        if self._ways.shared(own.card) and not self._post.relay.is_connected:
            return math.inf
        if own.asked_at > own.tried_at:
            return 0.0
        return max(self._next.get(own.id, 0.0), self._rests.until(own.id))

    async def _round(self, looks: list[_Look]) -> None:
        going = looks
        for _ in range(_ROUNDS):
            await asyncio.gather(*(self._lease(look) for look in going))
            await self._keep(going)
            await asyncio.gather(*(self._acknowledge(look) for look in going))
            going = [look for look in going if not look.over]
            if not going:
                break
        for look in looks:
            now = self._post.clock()
            if look.trouble:
                self._rests.failed(look.own.id, now)
            else:
                self._rests.went_well(look.own.id)
            await self._post.store.write(
                mailboxes.looked,
                self._post.now(),
                look.own.id,
                trouble=look.trouble,
                picked=look.picked,
                refused=look.refused,
            )
            if not self._ways.shared(look.own.card):
                await look.collector.rest()

    async def _lease(self, look: _Look) -> None:
        look.lease, look.letters = None, []
        try:
            look.lease = await look.collector.fetch(_LIMIT)
        except MailboxError as error:
            look.trouble, look.over = str(error), True
            return
        look.refused, look.since = look.lease.refusals, look.lease.since
        for item in look.lease.items:
            letter = self._letter(look.own.card, item)
            if letter is not None:
                look.letters.append(letter)

    def _letter(self, card: MailboxCard, item: Item) -> _Letter | None:
        """Return what an item holds; None for what cannot be read, and never can be: anybody may leave anything."""
        if item.kind == ItemKind.DEPOSIT:
            try:
                return _Letter(*open_deposit(self._post.ours, card.public, item.content))
            except OpenError:
                return None
        if item.kind == ItemKind.ENVELOPE and len(item.content) > KEY_SIZE:
            # The web app names its X25519 key alone. Of somebody whom we do not know that is not enough to read it.
            x_pub = item.content[:KEY_SIZE]
            lane = self._post.by_peer_id.get(x_pub[:8])
            if lane is not None and lane.row.public.x_pub == x_pub:
                return _Letter(lane.row.public, item.content[KEY_SIZE:])
        return None

    async def _keep(self, looks: list[_Look]) -> None:
        """Bring what came into the store, in one order; returns once all of it is committed."""
        letters = {letter.key: letter for look in looks for letter in look.letters}
        kept: list[asyncio.Future[Any]] = []
        for key in merged([[letter.key for letter in look.letters] for look in looks]):
            try:
                future = await self._take(letters[key])
            except NoSuchContact:
                continue  # removed by another process
            if future is not None:
                kept.append(future)
        for result in await asyncio.gather(*kept, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, NoSuchContact):
                raise result

    async def _take(self, letter: _Letter) -> "asyncio.Future[Any] | None":
        lane = self._post.by_peer_id.get(letter.sender.id)
        if lane is None:
            lane = await self._stranger(letter)
        if lane is None or lane.row.public != letter.sender:
            return None
        return await self._incoming.take_left(lane, letter.packet)

    async def _stranger(self, letter: _Letter) -> Lane | None:
        """Make a contact of whoever left a packet that opens under the keys beside it: it is an introduction. A claim
        that no packet bears out is none."""
        try:
            inner = parse_inner(Contact(self._post.ours, letter.sender).open(letter.packet))
            body = parse_from_peer(inner.command, inner.body)
        except (OpenError, BadKey, WireError):
            return None
        return await self._introduce(letter.sender, body.nickname if isinstance(body, Mailboxes) else "")

    async def _acknowledge(self, look: _Look) -> None:
        """Have a mailbox delete what is in the store now."""
        lease = look.lease
        if lease is None:
            return
        # Items of another kind are for a program that knows it, which may be ours after an upgrade.
        numbers = tuple(item.number for item in lease.items if item.kind in ItemKind._value2member_map_)
        if lease.refusals or (numbers and look.own.looked_at is None and not look.picked):
            await self._post.store.write(_tell, self._post.now(), look.own, len(numbers) + lease.left, lease)
        look.over = not numbers
        if not numbers and not lease.refusals:
            return
        try:
            await look.collector.acknowledge(numbers[:ACK_MAX], lease.refusals)
            for at in range(ACK_MAX, len(numbers), ACK_MAX):
                await look.collector.acknowledge(numbers[at : at + ACK_MAX])
        except MailboxError as error:
            # They are handed out again, and known then.
            look.trouble, look.over = str(error), True
            return
        look.picked += len(numbers)


def _tell(db: Connection, now: int, own: OwnMailbox, waiting: int, lease: Lease) -> None:
    where = urlsplit(own.card.url).hostname or "?"
    parts = []
    if own.looked_at is None and waiting:
        parts.append(f"{waiting} {'deposit' if waiting == 1 else 'deposits'} waited for you")
    if lease.refusals:
        since = datetime.fromtimestamp(min(lease.since, 1 << 41) / 1000, UTC).strftime("%Y-%m-%d")
        parts.append(
            f"{lease.refusals} {'was' if lease.refusals == 1 else 'were'} refused for want of room since {since}:"
            " their senders were told, and try elsewhere or again"
        )
    if parts:
        feed.add(db, now, Kind.NOTICE, detail=f"the mailbox at {where}: {'; '.join(parts)}")
