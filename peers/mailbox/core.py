"""What a mailbox does, whoever carries it: the relay, or HTTP. No sockets and no clock; `at` is when it happens.

An item is handed out under a lease, acknowledged, and only then deleted. A lease that ends unacknowledged is as good as
none: the item is handed out again. KEPT is said after the commit.

What the callers see to. A request to pick up comes from a session whose packets are sealed by the recipient's key, or
with an answer that :meth:`Mailbox.prove` has checked; both prove that key, and nothing is looked up before. A packet
that comes twice must not be served twice where that matters: FETCH_NEXT of the web app (:mod:`peers.mailbox.app`). Of
ours, those that change something change nothing the second time: a DEPOSIT is held once, and numbers are not given
again, so that an old ACK deletes nothing.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self, TypeVar

from keys.deposit import drop_digest
from keys.errors import BadKey, OpenError
from keys.identity import PublicIdentity
from keys.pickup import check_answer, make_challenge
from keys.primitives import KEY_SIZE, random_bytes
from keys.stamp import WINDOW, StampFault, check_stamp, stamp_time
from peers.mailbox import rules
from peers.mailbox.clock import MailboxClock, Moment
from peers.mailbox.once import UsedOnce
from peers.mailbox.price import Price
from peers.mailbox.quotas import Budgets, address_key
from peers.mailbox.rules import AccessRule, Limits, Refused
from peers.mailbox.store import NewItem, Store, StoreError, StoreFull, Totals
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks
from wire.mailbox_codes import ITEM_HEAD, LEASE_ROOM, ItemKind, Reason

T = TypeVar("T")

_FAULTS: Final = {
    StampFault.CHEAP: Reason.STAMP_CHEAP,
    StampFault.TIME: Reason.STAMP_TIME,
    StampFault.WRONG: Reason.STAMP_WRONG,
}
_ALL: Final = frozenset(ItemKind)
_SAVE_EVERY: Final = 60.0
"""Seconds between savings of the time: after a kill the mailbox's clock is behind by as much."""


class Caller(NamedTuple):
    """Who asks, for the rates alone; it is not kept.

    Attributes:
        depositor: the X25519 key of a session at the relay; None over HTTP.
        address: the IP address over HTTP; None at the relay, which does not tell it.
    """

    depositor: bytes | None = None
    address: str | None = None

    def __repr__(self) -> str:
        return "Caller(…)"


@dataclass(slots=True)
class Tallies:
    """What was done since the start: plain counts, for metrics."""

    deposits: int = 0
    handed: int = 0
    acknowledged: int = 0
    dropped: int = 0
    expired: int = 0
    refused: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))


class Mailbox:
    """One mailbox. Made by :meth:`open`; all methods are for one event loop.

    Args:
        public: the mailbox's own keys.
        clock: where its time begins.
    """

    def __init__(
        self,
        store: Store,
        public: PublicIdentity,
        limits: Limits,
        access: AccessRule,
        clock: MailboxClock,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self.public = public
        self.limits = limits
        self.access = access
        self.store = store
        self.tallies = Tallies()
        self._clock = clock
        self._random = random
        self._secret = random(KEY_SIZE)
        self._tickets = UsedOnce(limits.remembered, int(limits.challenge * 1000), random)
        self._stamps = UsedOnce(limits.remembered, WINDOW, random)
        self._depositors = Budgets(limits.depositor, limits.callers, random)
        self._addresses = Budgets(limits.address, limits.callers, random)
        self._asking = Budgets(limits.asking, limits.callers, random)
        self._price = Price(limits.prices)
        self._totals = Totals(0, 0)
        self._save_at = 0.0

    @classmethod
    async def open(
        cls,
        store: Store,
        public: PublicIdentity,
        limits: Limits,
        access: AccessRule,
        wall: int,
        tick: float,
        random: Callable[[int], bytes] = random_bytes,
    ) -> Self:
        """Make a mailbox above a store, whose time goes on from where it was saved.

        Args:
            wall: milliseconds since 1970 by the machine's clock.
            tick: seconds of its monotonic clock.

        Raises:
            StoreError: the store cannot be read or written.
        """
        saved = await store.saved_time()
        if saved is None:
            await store.save_time(wall)
        mailbox = cls(store, public, limits, access, MailboxClock(wall if saved is None else saved, tick), random)
        mailbox._totals = await store.totals()
        return mailbox

    def moment(self, wall: float, tick: float) -> Moment:
        """Return the moment for what happens now: see :class:`MailboxClock`."""
        return self._clock.at(wall, tick)

    # --- Depositors -----------------------------------------------------------------------------------------------

    async def deposit(self, request: asks.Deposit, caller: Caller, at: Moment) -> answers.Kept:
        """Hold a deposit; return once it is on disk.

        Raises:
            Refused: for any reason.
        """
        with_stamp = self._check_deposit(request, caller, at)
        if with_stamp and not self._stamps.use(request.stamp, stamp_time(request.stamp), at.now):
            # A retry: the answer to the first may not have arrived, and the stamp is as dear to an honest client.
            expires = await self._stored(self.store.held(request.recipient, request.drop_digest, request.deposit))
            if expires is None:
                raise Refused(Reason.STAMP_USED)
            return answers.Kept(request.request, _seconds(expires - at.now))
        expires = rules.expiry(at.now, request.ttl * 1000, self.limits)
        item = NewItem(request.recipient, ItemKind.DEPOSIT, expires, request.drop_digest, request.deposit)
        try:
            expires = await self.hold(item, at)
        except Refused:
            if with_stamp:
                self._stamps.unuse(request.stamp)  # it bought nothing
            raise
        return answers.Kept(request.request, _seconds(expires - at.now))

    def _check_deposit(self, request: asks.Deposit, caller: Caller, at: Moment) -> bool:
        """Check all that needs no look at what is held; tell whether the stamp is one to be used."""
        rules.check_recipient(request.recipient)
        rules.check_size(ItemKind.DEPOSIT, len(request.deposit), self.limits)
        self.access.check(request.recipient, request.token)
        self.spend(caller, len(request.deposit), at)
        bits = self._price.least(at.tick, self._full)
        fault = check_stamp(request.stamp, self.public.x_pub, request.recipient, request.deposit, at.now, bits)
        if fault is not None:
            raise Refused(_FAULTS[fault])
        if bits and self._stamps.too_old(stamp_time(request.stamp)):
            raise Refused(Reason.STAMP_TIME)
        return bits > 0

    def spend(self, caller: Caller, size: int, at: Moment) -> None:
        """Take a deposit of `size` bytes from what its caller may do.

        Raises:
            Refused: TOO_FAST.
        """
        fits = caller.depositor is None or self._depositors.spend(caller.depositor, size, at.tick)
        if caller.address is not None and fits:
            fits = self._addresses.spend(address_key(caller.address), size, at.tick)
        if not fits:
            raise Refused(Reason.TOO_FAST)

    async def hold(self, item: NewItem, at: Moment) -> int:
        """Put a checked item into the store; return when it ends.

        Raises:
            Refused: FULL, BAD_DEPOSIT or FAILED.
        """
        try:
            expires = await self._stored(self.store.deposit(item, at.now))
        except Refused as refusal:
            if isinstance(refusal.__cause__, StoreFull):
                raise Refused(Reason.FULL) from refusal.__cause__
            raise
        # Those alone that were taken: else a flood that pays nothing could raise the price for all.
        self._price.count(at.tick)
        self.tallies.deposits += 1
        return expires

    async def drop(self, request: asks.Drop) -> answers.Dropped:
        """Delete what somebody left who knows its secret.

        Raises:
            Refused: FAILED.
        """
        try:
            digest = drop_digest(request.secret)
        except BadKey:
            raise Refused(Reason.BAD_REQUEST) from None
        found = await self._stored(self.store.drop(request.recipient, digest))
        self.tallies.dropped += found
        return answers.Dropped(request.request, found)

    def about(self, request: asks.Info, at: Moment) -> answers.About:
        """Tell what is taken, and at which price."""
        limits = self.limits
        return answers.About(
            request.request,
            at.now,
            self.bits(at),
            self.access.kind,
            limits.ttl // 1000,
            limits.ttl_max // 1000,
            limits.item_bytes,
            limits.recipient_items,
            limits.recipient_bytes,
        )

    def bits(self, at: Moment) -> int:
        """Return the price of a deposit now, in bits of a stamp."""
        return self._price.bits(at.tick, self._full)

    # --- Recipients -----------------------------------------------------------------------------------------------

    async def fetch(self, x_pub: bytes, request: asks.Fetch, at: Moment) -> answers.Lease:
        """Hand out items to their recipient, who has proved the key.

        Raises:
            Refused: FAILED.
        """
        limit = min(request.limit, self.limits.fetch_items)
        handed = await self._stored(
            self.store.lease(x_pub, _ALL, limit, LEASE_ROOM, ITEM_HEAD, at.now, at.tick),
        )
        self.tallies.handed += len(handed.items)
        items = tuple(
            answers.Item(item.number, item.kind, _seconds(item.expires - at.now), item.content) for item in handed.items
        )
        lease = int(self.limits.lease)
        return answers.Lease(request.request, lease, handed.left, items, handed.marker.refusals, handed.marker.since)

    async def acknowledge(self, x_pub: bytes, request: asks.Ack) -> answers.Acked:
        """Delete what its recipient has, handed out lately or long ago.

        Raises:
            Refused: FAILED; some may be deleted.
        """
        count = await self._stored(self.store.acknowledge(x_pub, request.numbers, request.refusals))
        self.tallies.acknowledged += count
        return answers.Acked(request.request, count)

    async def counts(self, x_pub: bytes, request: asks.List, at: Moment) -> answers.Counts:
        """Tell a recipient how much is held.

        Raises:
            Refused: FAILED.
        """
        held = await self._stored(self.store.counts(x_pub, at.tick))
        marker = held.marker
        return answers.Counts(
            request.request, held.items, held.size, held.leased, held.restorable, marker.refusals, marker.since
        )

    async def restore(self, x_pub: bytes, request: asks.Restore, at: Moment) -> answers.Restored:
        """Hand out again what FETCH_NEXT acknowledged.

        Raises:
            Refused: FAILED.
        """
        return answers.Restored(request.request, await self._stored(self.store.restore(x_pub, at.now)))

    # --- Proofs ---------------------------------------------------------------------------------------------------

    def challenge(self, x_pub: bytes, caller: Caller, at: Moment) -> bytes:
        """Return a challenge to the owner of a key, whoever asks. Looks nothing up.

        Raises:
            Refused: BAD_REQUEST, it is a key that nobody can have; TOO_FAST.
        """
        if caller.address is not None and not self._asking.spend(address_key(caller.address), 0, at.tick):
            raise self._count(Refused(Reason.TOO_FAST))
        try:
            return make_challenge(self._secret, self.public, x_pub, int(at.tick * 1000), self._random)
        except BadKey:
            raise self._count(Refused(Reason.BAD_REQUEST)) from None

    def prove(self, url: str, x_pub: bytes, operation: int, arguments: bytes, answer: bytes, at: Moment) -> None:
        """Check that the owner of a key asks for an operation, here and now, and for the first time.

        Args:
            url: our address, as the card has it that clients use for this way.

        Raises:
            OpenError: for any reason.
        """
        tick, lifetime = int(at.tick * 1000), int(self.limits.challenge * 1000)
        ticket = check_answer(self._secret, self.public, url, x_pub, operation, arguments, answer, tick, lifetime)
        if not self._tickets.use(x_pub + ticket.salt, ticket.issued, tick):
            raise OpenError

    # --- All of it ------------------------------------------------------------------------------------------------

    async def serve(
        self, x_pub: bytes | None, body: asks.ForMailbox, caller: Caller, at: Moment
    ) -> answers.FromMailbox | None:
        """Answer a request of ours; None if it is none.

        Args:
            x_pub: whose key is proven; None: nobody's, and then only what depositors ask is served.
        """
        request = getattr(body, "request", None)
        if request is None:
            return None
        try:
            return await self._serve(x_pub, body, caller, at)
        except Refused as refusal:
            return answers.Refused(request, self._count(refusal).reason, self.bits(at))

    async def _serve(
        self, x_pub: bytes | None, body: asks.ForMailbox, caller: Caller, at: Moment
    ) -> answers.FromMailbox:
        match body:
            case asks.Deposit():
                return await self.deposit(body, caller, at)
            case asks.Drop():
                return await self.drop(body)
            case asks.Info():
                return self.about(body, at)
        if x_pub is None:
            raise Refused(Reason.BAD_REQUEST)
        match body:
            case asks.Fetch():
                return await self.fetch(x_pub, body, at)
            case asks.Ack():
                return await self.acknowledge(x_pub, body)
            case asks.List():
                return await self.counts(x_pub, body, at)
            case asks.Restore():
                return await self.restore(x_pub, body, at)
        raise Refused(Reason.BAD_REQUEST)

    async def tend(self, at: Moment) -> int:
        """Save the time, and erase a batch of what has ended; return how many, 0 when there is nothing left to do.

        Raises:
            StoreError: the store cannot be written.
        """
        if at.tick >= self._save_at:
            self._save_at = at.tick + _SAVE_EVERY
            await self.store.save_time(at.now)
        erased = await self.store.expire(at.now)
        self._totals = await self.store.totals()
        self.tallies.expired += erased
        return erased

    @property
    def totals(self) -> Totals:
        """How much was held at the last :meth:`tend`."""
        return self._totals

    @property
    def _full(self) -> float:
        return rules.fullness(self._totals.items, self._totals.size, self.limits)

    def _count(self, refusal: Refused) -> Refused:
        self.tallies.refused[refusal.reason] += 1
        return refusal

    async def _stored(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except StoreError as error:
            raise Refused(Reason.FAILED) from error


def _seconds(milliseconds: int) -> int:
    return max(0, milliseconds // 1000)
