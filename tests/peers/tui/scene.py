"""A profile with a screen, and people at its other side who write into the store as a carrier would."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from textual.widgets import Static

from keys.files import ClientKeys
from keys.identity import Identity
from keys.invite import RelayCard
from peers.chat.session import Session
from peers.chat.tui import ChatApp
from peers.profile import Profile
from peers.store import contacts, messages, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from textual.pilot import Pilot

    from peers.chat.tui.screen import ChatScreen
    from peers.store.contacts import ContactRow
    from peers.store.message_rows import MessageRow

WAIT: Final = 60.0
"""Seconds after which a test gives up; nothing here takes more than one on an idle machine."""
NOWHERE: Final = RelayCard(Identity.generate().public, "ws://127.0.0.1:1/ws")
MINUTE: Final = 60_000
DAY: Final = 24 * 60 * MINUTE


class Scene:
    """A session, and what happens to it. Its messages are carried only if a test says so."""

    def __init__(
        self, directory: Path, *, relay: RelayCard = NOWHERE, name: str = "Alice", read_receipts: bool = True
    ) -> None:
        self.keys = ClientKeys(Identity.generate(), name)
        self.profile = Profile.create("test", self.keys, relay, environ={"BLINDRELAY_HOME": str(directory)})
        settings = replace(self.profile.settings(), read_receipts=read_receipts)
        self.session = Session(self.profile, settings, self.keys, open_store(self.profile.store_path))
        self.store = self.session.store

    @property
    def now(self) -> int:
        return Session.now()

    async def knows(self, name: str, **options: Any) -> ContactRow:
        """Add a contact."""
        public = Identity.generate().public
        return await self.store.write(contacts.add, self.now, public, nickname=name, **options)

    async def hears(self, contact: ContactRow, text: str, at: int | None = None) -> MessageRow:
        """Have a contact say something."""
        when = self.now if at is None else at
        row = await self.store.write(messages.receive, when, contact.id, messages.uuid(), text)
        assert row is not None
        return row

    async def says(self, contact: ContactRow, text: str, at: int | None = None) -> MessageRow:
        """Say something, from another program of the profile."""
        when = self.now if at is None else at
        return await self.store.write(messages.compose, when, contact.id, text)

    async def message(self, row: MessageRow) -> MessageRow:
        """A message as it is now."""
        return await self.store.read(messages.get, row.id)

    async def history(self, contact: ContactRow, count: int, *, unread: int = 0) -> None:
        """Have said a lot, a message a minute, the last one now; every third is ours."""
        await self.store.write(_history, self.now, contact.id, count, unread)

    @asynccontextmanager
    async def screen(
        self, contact: ContactRow | None = None, size: tuple[int, int] = (100, 30), *, carried: bool = False
    ) -> AsyncIterator[View]:
        """Run the screen."""
        app = ChatApp(self.session, None if contact is None else contact.id, carried=carried)
        async with app.run_test(size=size) as pilot:
            view = View(app, pilot)
            wanted = None if contact is None else contact.id
            await view.until(lambda: app.chat is not None and app.chat.conversation.contact == wanted)
            yield view


class View:
    """The screen as a person sees it."""

    def __init__(self, app: ChatApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def chat(self) -> ChatScreen:
        assert self.app.chat is not None
        return self.app.chat

    async def quiet(self) -> None:
        """Return when all that is in line was done."""
        await self.pilot.pause()
        await self.pilot.pause()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when something is as wanted."""
        deadline = time.monotonic() + WAIT
        while not holds():
            assert time.monotonic() < deadline, f"not within {WAIT} s:\n{self.texts}"
            await self.pilot.pause()
            await asyncio.sleep(0.005)
        await self.quiet()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.quiet()

    async def types(self, text: str) -> None:
        """Type a text, key by key."""
        await self.press(*("space" if c == " " else c for c in text))

    async def chooses(self, text: str) -> None:
        """Take that entry of the menu that is shown."""
        options = self.app.screen.query_one("OptionList")
        names = [str(options.get_option_at_index(i).prompt) for i in range(options.option_count)]  # type: ignore[attr-defined]
        at = next(i for i, name in enumerate(names) if name.startswith(text))
        options.focus()
        options.highlighted = at  # type: ignore[attr-defined]
        await self.press("enter")

    @property
    def texts(self) -> list[str]:
        """The messages that are mounted, as they are shown."""
        return [bubble.content.plain for bubble in self.chat.conversation.bubbles]

    @property
    def in_view(self) -> list[str]:
        """Those of them of which something can be seen."""
        view = self.chat.conversation
        top, bottom = view.scroll_y, view.scroll_y + view.size.height
        return [b.content.plain for b in view.bubbles if b.virtual_region.y < bottom and b.virtual_region.bottom > top]

    @property
    def people(self) -> list[str]:
        """The list of contacts, an entry of two lines each."""
        people = self.chat.people_list
        return [str(people.get_option_at_index(i).prompt) for i in range(people.option_count)]

    @property
    def lines(self) -> list[str]:
        """The lines between messages."""
        return [line.text for bubble in self.chat.conversation.bubbles for line in bubble.lines]

    def text(self, selector: str) -> str:
        """What a static text of the topmost screen says."""
        return str(self.app.screen.query_one(selector, Static).content)

    @property
    def notices(self) -> list[str]:
        """What was notified and is still shown."""
        return [notification.message for notification in self.app._notifications]


def _history(db: Any, now: int, contact: int, count: int, unread: int) -> None:
    rows = []
    for number in range(count):
        ours = number % 3 == 2 and number < count - unread
        at = now - (count - 1 - number) * MINUTE
        read = None if ours or number >= count - unread else at
        rows.append((contact, messages.uuid(), ours, f"number {number}", at, 3 if ours or read else 2, at, read))
    db.executemany(
        "INSERT INTO messages (contact, uuid, outgoing, kind, text, at, state, delivered_at, read_at)"
        " VALUES (?, ?, ?, 'text', ?, ?, ?, ?, ?)",
        rows,
    )


def run(scene: Scene, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run what happens in a scene, whose session is closed then."""

    async def whole() -> None:
        async with scene.session:
            await story()

    asyncio.run(whole())
