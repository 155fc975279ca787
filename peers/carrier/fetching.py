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
from peers.carrier.stirring import stirred_until
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
_TOGETHER: Final = 5.0
"""Seconds for which what came from some mailboxes waits for the others, so that it is stored in one order."""
_AT_MOST: Final = 60.0
"""Seconds after which others have their turn, also where there is more."""
_TELL_EVERY: Final = 3600.0
"""Seconds between two notices of what one mailbox refused. Until then it is not told that we know, and counts on."""

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
    rounds: int = 0
    gone: set[int] = field(default_factory=set)
    """Numbers that were acknowledged."""
    over: bool = False
    cut: bool = False
    """It took too long, and is gone on with after the others had their turn."""


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
        self._tell_at: dict[int, float] = {}
        self._begun: set[int] = set()
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
            await stirred_until(self._stirred, next_at)

    async def _look(self) -> float:
        """Look into those that are due; returns when to look again (event loop time)."""
        post = self._post
        ours = await post.store.read(mailboxes.own)
        for gone in self._ways.forget({own.id for own in ours}):
            await gone.rest()
        due = [own for own in ours if self._due_at(own) <= post.clock()]
        if due:
            self._idle.clear()
            looks = [_Look(own, self._ways.collector(own)) for own in due]
            await self._round(looks)
            self._idle.set()
            lying = await post.store.read(parcels.lying)
            every = self._options.awaiting if lying else self._options.every
            for look in looks:
                self._next[look.own.id] = post.clock() + (0.0 if look.cut and not look.over else every)
        return min((self._due_at(own) for own in await post.store.read(mailboxes.own)), default=math.inf)

    def _due_at(self, own: OwnMailbox) -> float:
        if self._ways.shared(own.card) and not self._post.relay.is_connected:
            return math.inf
        if own.asked_at > own.tried_at:
            return 0.0
        return max(self._next.get(own.id, 0.0), self._rests.until(own.id))

    async def _round(self, looks: list[_Look]) -> None:
        """Look into mailboxes until each has nothing more. What several have comes in one order; but none is waited for
        longer than a moment: a mailbox that is slow, or means to be, must not keep what lies in the others."""
        until = self._post.clock() + _AT_MOST
        going = {asyncio.create_task(self._lease(look)): look for look in looks}
        try:
            while going:
                done, _ = await asyncio.wait(going, timeout=_TOGETHER)
                if not done:
                    done, _ = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                came = [going.pop(task) for task in list(going) if task in done]
                for task in done:
                    task.result()
                await self._keep(came)
                for look in came:
                    if look.lease is None or look.trouble:
                        continue
                    look.rounds += 1
                    look.cut = self._post.clock() >= until
                    going[asyncio.create_task(self._go_on(look))] = look
        finally:
            for task in going:
                task.cancel()
            await asyncio.gather(*going, return_exceptions=True)
        for look in looks:
            await self._done(look)

    async def _go_on(self, look: _Look) -> None:
        """Acknowledge what is in the store now, and ask for more."""
        await self._acknowledge(look)
        if look.over or look.cut or look.rounds >= _ROUNDS:
            look.lease, look.letters = None, []
        else:
            await self._lease(look)

    async def _done(self, look: _Look) -> None:
        if look.trouble:
            self._rests.failed(look.own.id, self._post.clock())
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
        if numbers and look.gone.issuperset(numbers):
            look.trouble, look.over = "the mailbox hands out again what it has said it deleted", True
            return
        refusals = lease.refusals if self._post.clock() >= self._tell_at.get(look.own.id, 0.0) else 0
        first = bool(numbers) and look.own.looked_at is None and look.own.id not in self._begun
        if refusals:
            self._tell_at[look.own.id] = self._post.clock() + _TELL_EVERY
        if numbers:
            self._begun.add(look.own.id)
        if refusals or first:
            waiting = len(numbers) + lease.left if first else 0
            await self._post.store.write(_tell, self._post.now(), look.own, waiting, refusals, lease.since)
        look.over = not numbers
        if not numbers and not refusals:
            return
        try:
            await look.collector.acknowledge(numbers[:ACK_MAX], refusals)
            for at in range(ACK_MAX, len(numbers), ACK_MAX):
                await look.collector.acknowledge(numbers[at : at + ACK_MAX])
        except MailboxError as error:
            # They are handed out again, and known then.
            look.trouble, look.over = str(error), True
            return
        look.gone.update(numbers)
        look.picked += len(numbers)
        look.refused += refusals


def _tell(db: Connection, now: int, own: OwnMailbox, waiting: int, refusals: int, since: int) -> None:
    where = urlsplit(own.card.url).hostname or "?"
    parts = []
    if waiting:
        parts.append(f"{waiting} {'deposit' if waiting == 1 else 'deposits'} waited for you")
    if refusals:
        day = datetime.fromtimestamp(min(since, 1 << 41) / 1000, UTC).strftime("%Y-%m-%d")
        parts.append(
            f"{refusals} {'was' if refusals == 1 else 'were'} refused for want of room since {day}:"
            " their senders were told, and try elsewhere or again"
        )
    feed.add(db, now, Kind.NOTICE, detail=f"the mailbox at {where}: {'; '.join(parts)}")
