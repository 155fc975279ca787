"""The program behind the screen: it follows the store and the carrier, and ends when it is told to."""

from collections.abc import Callable
from typing import ClassVar, Final

from textual import work
from textual.app import App
from textual.command import Provider

from peers.chat.session import Session
from peers.chat.tui import look, overview
from peers.chat.tui.commands import ActionsProvider, PeopleProvider
from peers.chat.tui.screen import ChatScreen
from peers.client import RelayRefused
from peers.database import DatabaseError
from peers.profile import ProfileError
from peers.store import feed

NARROW: Final = 70
"""Columns below which contacts and conversation take turns."""
TALL: Final = 24
"""Rows from which there is room for an empty one between messages."""


class ChatApp(App[None]):
    """See the module.

    Args:
        session: the profile, whose messages are carried by whoever was told to.
        contact: whose conversation is shown at first.
        carried: whether :meth:`Session.carry` was called, so that it can fail.

    Attributes:
        error: why it had to end, if so.
    """

    TITLE = "blindrelay"
    CSS = look.CSS
    # Here and not on a screen: dialogs have to fit as well.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW, "-wide")]  # noqa: RUF012 - declared by Textual as it is
    VERTICAL_BREAKPOINTS = [(0, "-low"), (TALL, "-tall")]  # noqa: RUF012
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = App.COMMANDS | {
        ActionsProvider,
        PeopleProvider,
    }

    def __init__(self, session: Session, contact: int | None = None, *, carried: bool = True) -> None:
        super().__init__()
        self.session = session
        self.error: DatabaseError | None = None
        self.chat: ChatScreen | None = None
        self._contact = contact
        self._carried = carried

    async def on_mount(self) -> None:
        try:
            state = await self.session.store.read(overview.read)
        except DatabaseError as error:
            self._stop(error)
            return
        self.chat = ChatScreen(self.session, state, self._contact)
        await self.push_screen(self.chat)
        self._follow(self.chat, state.seq)
        if self._carried:
            self._await_failure(self.chat)

    def watch_app_focus(self, focus: bool) -> None:
        # Not on_app_focus: that is called before Textual's own handler, which changes what is asked about.
        if focus and self.chat is not None:
            self.chat.attended_again()

    @work(name="follow")
    async def _follow(self, chat: ChatScreen, after: int) -> None:
        store, version = self.session.store, -1
        try:
            while True:
                version = await store.changed(version)
                while batch := await store.read(feed.read, after):
                    await chat.apply(batch)
                    after = batch[-1].seq
        except DatabaseError as error:
            # Without the store there is nothing to show, and what one writes would be lost.
            self._stop(error)

    @work(name="failure")
    async def _await_failure(self, chat: ChatScreen) -> None:
        try:
            await self.session.failure()
        except (RelayRefused, DatabaseError, ProfileError) as error:
            chat.carrying_failed(error)

    def _stop(self, error: DatabaseError) -> None:
        self.error = error
        self.exit(return_code=1)
