"""The operations of a mailbox's client, whatever way they take."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from keys.deposit import DROP_SECRET_SIZE, drop_digest, seal_deposit
from keys.identity import Identity
from keys.invite import MailboxCard
from keys.primitives import random_bytes
from keys.stamp import BITS_MAX, NO_STAMP
from peers.dropping.errors import MailboxError, MailboxRefused, NotAMailbox, TooDear
from peers.dropping.minting import mint
from peers.dropping.options import DroppingOptions
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks
from wire.mailbox_codes import Reason

Request = asks.Deposit | asks.Fetch | asks.Ack | asks.List | asks.Drop | asks.Info | asks.Restore
A = TypeVar("A")

_ATTEMPTS: Final = 3
"""Stamps for one deposit: the price may rise, or the clock be corrected, while the first is minted."""
_PRICE_LASTS: Final = 60.0
"""Seconds for which a price that was told is paid without asking; mailboxes take an old one for two minutes."""
_LATEST: Final = 1 << 63
"""Milliseconds since 1970: half of what a stamp's time can count to."""
_STAMP_FAULTS: Final = frozenset({Reason.STAMP_CHEAP, Reason.STAMP_TIME, Reason.STAMP_WRONG})
_PAST_TOKEN: Final = _STAMP_FAULTS | {Reason.NOT_SERVED, Reason.FULL}
"""Refusals that come only once the token was taken."""
_SHORTEST: Final = 1
"""Seconds: mailboxes round the end up to the full hour."""


class Way(Protocol):
    """How a mailbox is reached. What is asked for in somebody's name is asked for in the name that the way was made
    with."""

    async def ask(self, request: Request) -> answers.FromMailbox:
        """Return the answer to a request; its request id is the way's to choose.

        Raises:
            Unreachable, NotAMailbox: there was none.
        """

    async def rest(self) -> None:
        """Let go of connections; another request makes them anew."""


class _Client:
    def __init__(self, card: MailboxCard, way: Way) -> None:
        self.card = card
        self._way = way

    async def rest(self) -> None:
        """Let go of connections; another request makes them anew."""
        await self._way.rest()

    async def info(self) -> answers.About:
        """Ask what the mailbox takes, and at which price.

        Raises:
            MailboxError: there is no answer.
        """
        return await self._ask(asks.Info(0), answers.About)

    async def _ask(self, request: Request, kind: type[A]) -> A:
        answer = await self._way.ask(request)
        if isinstance(answer, answers.Refused):
            raise MailboxRefused(answer.reason, answer.bits)
        if not isinstance(answer, kind):
            raise NotAMailbox("the mailbox's answer makes no sense")
        return answer


class Depositor(_Client):
    """Leaves things for others in one mailbox."""

    def __init__(
        self, card: MailboxCard, way: Way, options: DroppingOptions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(card, way)
        self._options = options
        self._clock = clock
        self._about: answers.About | None = None
        self._about_at = 0.0

    async def deposit(
        self, recipient_x_pub: bytes, deposit: bytes, secret: bytes, token: bytes = b"", ttl: int = 0
    ) -> int:
        """Leave a deposit; returns after how many seconds it ends, once the mailbox has it on disk.

        To be called again with the same deposit and secret if it fails: the mailbox holds it once.

        Args:
            deposit: of :func:`keys.deposit.seal_deposit` for this mailbox.
            secret: 32 random bytes, by which it can be dropped.
            token: what the mailbox asks for, if it does; at most 64 bytes.
            ttl: seconds; 0 for the mailbox's usual time.

        Raises:
            TooDear: the stamp would be.
            MailboxError: it is not known to be held.
        """
        digest, stamp = drop_digest(secret), NO_STAMP
        about = self._about
        if about is not None and about.bits and self._clock() - self._about_at < _PRICE_LASTS:
            stamp = await self._mint(about, recipient_x_pub, deposit, about.bits)
        for attempt in range(_ATTEMPTS):
            request = asks.Deposit(0, recipient_x_pub, ttl, digest, deposit, stamp, token)
            try:
                return (await self._ask(request, answers.Kept)).expires_in
            except MailboxRefused as refusal:
                if refusal.reason not in _STAMP_FAULTS or attempt == _ATTEMPTS - 1:
                    raise
                about = await self._ask_price()
                # What the refusal named counts too: the price told may be that of a moment before.
                stamp = await self._mint(about, recipient_x_pub, deposit, max(about.bits, refusal.bits))
        raise AssertionError("the last attempt returns or raises")

    async def takes(self, token: bytes) -> bool:
        """Try whether the mailbox takes a token: by a deposit for nobody, which is dropped at once where it is held.

        Raises:
            MailboxError: it is not known.
        """
        sender, nobody = Identity.generate().public, Identity.generate().public.x_pub
        secret, deposit = random_bytes(DROP_SECRET_SIZE), seal_deposit(sender, nobody, self.card.public, b"")
        request = asks.Deposit(0, nobody, _SHORTEST, drop_digest(secret), deposit, NO_STAMP, token)
        try:
            await self._ask(request, answers.Kept)
        except MailboxRefused as refusal:
            if refusal.reason is Reason.TOKEN:
                return False
            if refusal.reason in _PAST_TOKEN:
                return True
            raise
        with suppress(MailboxError):  # it ends within the hour
            await self.drop(nobody, secret)
        return True

    async def drop(self, recipient_x_pub: bytes, secret: bytes) -> bool:
        """Delete what was left with this secret; tells whether it was still there.

        Raises:
            MailboxError: it is not known to be gone.
        """
        return (await self._ask(asks.Drop(0, recipient_x_pub, secret), answers.Dropped)).found

    async def _ask_price(self) -> answers.About:
        about = await self.info()
        if about.now >= _LATEST:
            raise NotAMailbox("the mailbox's clock shows a time that no stamp can bear")
        self._about, self._about_at = about, self._clock()
        return about

    async def _mint(self, about: answers.About, recipient_x_pub: bytes, deposit: bytes, bits: int) -> bytes:
        most = self._options.stamp_bits
        if bits > min(most, BITS_MAX):
            raise TooDear(bits, most)
        # By the mailbox's clock, and not by ours, which may be wrong.
        now = about.now + int((self._clock() - self._about_at) * 1000)
        return await mint(self.card.public.x_pub, recipient_x_pub, deposit, now, bits)


class Collector(_Client):
    """Picks up what was left for the identity with which its way was made."""

    async def fetch(self, limit: int) -> answers.Lease:
        """Take up to `limit` items under a lease; what is not acknowledged is handed out again when it ends.

        Raises:
            MailboxError: there is no answer; some may be leased all the same.
        """
        return await self._ask(asks.Fetch(0, limit), answers.Lease)

    async def acknowledge(self, numbers: tuple[int, ...], refusals: int = 0) -> int:
        """Have items deleted, at most 1,024; returns how many were there.

        Args:
            refusals: of those that the lease told, how many the user has been told of.

        Raises:
            MailboxError: they are not known to be gone.
        """
        return (await self._ask(asks.Ack(0, numbers, refusals), answers.Acked)).count

    async def counts(self) -> answers.Counts:
        """Ask how much is held.

        Raises:
            MailboxError: there is no answer.
        """
        return await self._ask(asks.List(0), answers.Counts)

    async def restore(self) -> int:
        """Have handed out again what a web app of the same identity took and may not have; returns how many.

        Raises:
            MailboxError: there is no answer.
        """
        return (await self._ask(asks.Restore(0), answers.Restored)).count
