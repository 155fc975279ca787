"""A profile with a screen, and people at its other side who write into the store as a carrier would."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from keys.files import ClientKeys
from keys.identity import Identity
from keys.invite import RelayCard
from peers.chat.session import Session
from peers.chat.tui import ChatApp
from peers.profile import Profile, ProfileSettings
from peers.store import contacts, messages, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from textual.pilot import Pilot

    from peers.store.contacts import ContactRow
    from peers.store.messages import MessageRow

WAIT: Final = 30.0
"""Seconds after which a test gives up."""
RELAY: Final = RelayCard(Identity.generate().public, "ws://127.0.0.1:1/ws")
DAY: Final = 24 * 3600 * 1000


class Scene:
    """A session whose messages nobody carries, and what happens to it."""

    def __init__(self, directory: Path, relay: RelayCard = RELAY, name: str = "Alice") -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self.keys = ClientKeys(Identity.generate(), name)
        self.profile = Profile("test", directory)
        settings = ProfileSettings(relay)
        self.profile.write_settings(settings) if self.profile.exists else None
        self.session = Session(self.profile, settings, self.keys, open_store(directory / "store.db"))
        self.store = self.session.store
        self.others: dict[int, Identity] = {}

    @property
    def now(self) -> int:
        return Session.now()

    async def knows(self, name: str, **options: Any) -> ContactRow:
        """Add a contact."""
        identity = Identity.generate()
        row = await self.store.write(contacts.add, self.now, identity.public, nickname=name, **options)
        self.others[row.id] = identity
        return row

    async def hears(self, contact: ContactRow, text: str, at: int | None = None) -> MessageRow:
        """Have a contact say something."""
        row = await self.store.write(
            messages.receive, self.now if at is None else at, contact.id, messages.uuid(), text
        )
        assert row is not None
        return row

    async def says(self, contact: ContactRow, text: str, at: int | None = None) -> MessageRow:
        """Say something, from another program of the profile."""
        return await self.store.write(messages.compose, self.now if at is None else at, contact.id, text)

    @asynccontextmanager
    async def screen(
        self, contact: ContactRow | None = None, size: tuple[int, int] = (100, 30)
    ) -> AsyncIterator[tuple[ChatApp, Pilot[None]]]:
        """Run the screen."""
        app = ChatApp(self.session, None if contact is None else contact.id, carried=False)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            yield app, pilot
