"""Two people with stores and carriers of their own, for tests of what is carried between them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from keys.files import ClientKeys
from keys.identity import Identity
from keys.invite import RelayCard
from peers.carrier import Carrier, CarrierOptions
from peers.store import contacts, messages, open_store
from peers.store.message_rows import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from peers.database import Database
    from peers.store.contacts import ContactRow
    from peers.store.message_rows import MessageRow
    from tests.support.cutting import CuttingProxy
    from tests.support.relay_process import RelayProcess

T = TypeVar("T")
WAIT: Final = 60.0
"""Seconds after which a test gives up; nothing here takes more than a few on an idle machine."""


_opened: list[Database] = []


def close_stores() -> None:
    """Close the stores of all that were made; not within an event loop."""
    while _opened:
        asyncio.run(_opened.pop().close())


class Person:
    """Somebody with a store, who may be at a relay."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(exist_ok=True)
        self.keys = ClientKeys(Identity.generate(), name)
        self.directory = directory
        self.files_dir = directory / f"{name}-files"
        self.path = directory / f"{name}.db"
        self.store = open_store(self.path)
        _opened.append(self.store)
        self._now = 0

    def at(self, relay: RelayProcess | CuttingProxy, options: CarrierOptions | None = None) -> Carrier:
        card = RelayCard(relay.public, relay.url)
        return Carrier(self.store, self.keys, card, options, files_dir=self.files_dir)

    def now(self) -> int:
        self._now += 1
        return self._now

    async def adds(self, other: Person) -> ContactRow:
        return await self.store.write(
            contacts.add, self.now(), other.keys.identity.public, nickname=other.keys.nickname
        )

    async def knows(self, other: Person) -> ContactRow:
        """The contact that `other` is here, as soon as they are one."""
        x_pub = other.keys.identity.public.x_pub
        found = await self.until(contacts.everyone, lambda rows: any(row.public.x_pub == x_pub for row in rows))
        return next(row for row in found if row.public.x_pub == x_pub)

    async def says(self, contact: ContactRow, text: str) -> MessageRow:
        return await self.store.write(messages.compose, self.now(), contact.id, text)

    async def until(self, read: Callable[..., T], holds: Callable[[T], bool], *args: Any) -> T:
        """What `read` returns, as soon as it is as wanted."""
        version = -1
        while True:
            now = await self.store.changed(version, WAIT)
            value = await self.store.read(read, *args)
            if holds(value):
                return value
            assert now != version, f"not within {WAIT} s: {value!r}"
            version = now

    async def until_delivered(self, message: MessageRow) -> MessageRow:
        return await self.until(messages.get, lambda row: row.state >= State.DELIVERED, message.id)

    async def heard(self, contact: ContactRow) -> list[str]:
        """The texts of a contact, in order."""
        rows = await self.store.read(messages.history, contact.id, limit=100_000)
        return [row.text for row in rows if not row.outgoing and row.deleted_at is None]
