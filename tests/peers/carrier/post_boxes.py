"""People who have mailboxes, for the tests of what a carrier leaves and picks up there."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from peers.carrier import CarrierOptions
from peers.carrier.options import MailOptions
from peers.client import ClientOptions
from peers.dropping import DroppingOptions
from peers.store import mailboxes, messages, owing, parcels
from tests.peers.dropping.boxes import HttpBox, RelayBox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from peers.store.contacts import ContactRow
    from peers.store.message_rows import MessageRow
    from tests.peers.carrier.conversation import Person
    from tests.support.relay_process import RelayProcess

DROPPING: Final = DroppingOptions(timeout=10.0)
MAIL: Final = MailOptions(
    dropping=DROPPING,
    patience=0.2,
    every=3600.0,
    awaiting=0.2,
    linger=0.05,
    backoff_min=0.05,
    backoff_max=0.4,
    full=0.2,
)
FAST: Final = CarrierOptions(client=ClientOptions(backoff_min=0.02, backoff_max=0.2), mail=MAIL)
B = TypeVar("B", bound=HttpBox | RelayBox)


async def uses(person: Person, *boxes: HttpBox | RelayBox) -> None:
    for box in boxes:
        await person.store.write(mailboxes.add_own, person.now(), box.card)


async def meet(relay: RelayProcess, alice: Person, bob: Person) -> tuple[ContactRow, ContactRow]:
    """They talk once, and so learn of each other's mailboxes."""
    to_bob = await alice.adds(bob)
    async with alice.at(relay, FAST), bob.at(relay, FAST):
        await alice.until_delivered(await alice.says(to_bob, "first"))
        to_alice = await bob.knows(alice)
        await bob.until_delivered(await bob.says(to_alice, "hello"))
        for person in (alice, bob):
            await person.until(mailboxes.to_tell, lambda waiting: not waiting)
    return to_bob, to_alice


@asynccontextmanager
async def acquainted(
    relay: RelayProcess, alice: Person, bob: Person, box: B
) -> AsyncIterator[tuple[B, ContactRow, ContactRow]]:
    """Run a mailbox, which is Bob's, and have the two learn of each other."""
    async with box:
        await uses(bob, box)
        yield (box, *await meet(relay, alice, bob))


async def until_left(person: Person, message: MessageRow, boxes: int = 1) -> MessageRow:
    return await person.until(messages.get, lambda row: row.left >= boxes, message.id)


async def all_left(person: Person) -> None:
    """Wait until all that they owe and all that they read is told, by mailboxes."""
    await person.until(owing.creditors, lambda waiting: not waiting)
    await person.until(lambda db: db.execute("SELECT * FROM changes").fetchall(), lambda rows: not rows)
    await person.until(parcels.busy, lambda waiting: not waiting)
