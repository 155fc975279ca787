"""What a store of deposits does. The rules above it are the same for all; what must hold at once, holds in here.

Every method returns after what it changed is as durable as the store can make it. Of two calls, the one made first is
done first, as far as they are about one recipient.
"""

from dataclasses import dataclass, field
from typing import Protocol

from wire.mailbox_codes import ItemKind


class StoreError(Exception):
    """The store cannot do it now. The text says what an operator is to do, and nothing of what is held."""


class StoreFull(StoreError):
    """There is no room on the disk; nothing was changed."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """What is to be held.

    Attributes:
        recipient: X25519 key (32 bytes).
        expires: milliseconds since 1970.
        drop_digest: what the depositor left to delete by (16 bytes); none twice for one recipient.
    """

    recipient: bytes = field(repr=False)
    kind: ItemKind
    expires: int
    drop_digest: bytes = field(repr=False)
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HeldItem:
    """What is handed out.

    Attributes:
        number: names it for its recipient; none twice for one, as long as anything is held for it.
        expires: milliseconds since 1970.
    """

    number: int
    kind: ItemKind
    expires: int
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Marker:
    """That something was refused for want of room: how often, and since when (milliseconds since 1970; 0: never)."""

    refusals: int = 0
    since: int = 0


@dataclass(frozen=True, slots=True)
class Handed:
    """What a lease hands out, and how many are left that are not handed out."""

    items: tuple[HeldItem, ...]
    left: int
    marker: Marker


@dataclass(frozen=True, slots=True)
class Held:
    """How much is held for a recipient, `items` and `size` without what is set aside."""

    items: int = 0
    size: int = 0
    leased: int = 0
    restorable: int = 0
    marker: Marker = Marker()


@dataclass(frozen=True, slots=True)
class Totals:
    """How much is held in all, what can be restored included."""

    items: int
    size: int


class Store(Protocol):
    """Items by recipient, within limits that it was made with.

    `now` is milliseconds since 1970 by the mailbox's clock, `tick` seconds of a monotonic one.

    Raises:
        StoreError: by every method.
    """

    async def deposit(self, item: NewItem, now: int) -> int:
        """Hold an item; return when it ends. One that is held already, digest and content, is not held twice.

        What is set aside gives way to it, the oldest first.

        Raises:
            Refused: FULL, and the recipient's marker counts it; BAD_DEPOSIT, the digest serves for another item.
        """

    async def held(self, recipient: bytes, drop_digest: bytes, content: bytes) -> int | None:
        """Return when an item ends that is held with this digest and content, None if it is not."""

    async def lease(
        self, recipient: bytes, kinds: frozenset[ItemKind], limit: int, room: int, head: int, now: int, tick: float
    ) -> Handed:
        """Hand out the oldest items that are not handed out, for the length of a lease from `tick` on.

        Args:
            limit: most items.
            room: most bytes of all, each with `head` more; the first is handed out in any case.
        """

    async def acknowledge(self, recipient: bytes, numbers: tuple[int, ...], refusals: int) -> int:
        """Delete items, handed out or not; return how many there were. Takes `refusals` off the marker.

        Should it fail halfway, what was deleted stays deleted.
        """

    async def release(self, recipient: bytes, number: int, end: float) -> None:
        """End the lease of an item that would end at the tick `end`, so that it is handed out again."""

    async def set_aside(self, recipient: bytes, number: int, until: int) -> bool:
        """Acknowledge an item, but keep it restorable until then; tell whether it was there."""

    async def restore(self, recipient: bytes, now: int) -> int:
        """Hand out again what was set aside; return how many there were."""

    async def drop(self, recipient: bytes, drop_digest: bytes) -> bool:
        """Delete the item that was deposited with this digest; tell whether there was one."""

    async def counts(self, recipient: bytes, tick: float) -> Held:
        """Return how much is held for a recipient."""

    async def totals(self) -> Totals:
        """Return how much is held in all."""

    async def expire(self, now: int) -> int:
        """Erase a batch of what has ended by `now`; return how many, 0 when nothing is left to erase.

        No batch holds others up for more than some milliseconds.
        """

    async def tidy(self, tick: float) -> None:
        """Forget leases that have ended, and erase what is left of deleted items where the store only writes."""

    async def saved_time(self) -> int | None:
        """Return the time that was saved last, None if there is none."""

    async def save_time(self, now: int) -> None:
        """Save the mailbox's time, from which its clock goes on after a restart."""

    async def close(self) -> None:
        """Finish what was begun."""
