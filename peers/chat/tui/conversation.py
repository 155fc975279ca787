"""The history of one conversation: a window on it that moves as one scrolls.

Pages are read and mounted at either end when the view comes near it, and dropped at the other, so that a conversation
of any length costs as much as a short one. All changes of the window run one after the other, under a lock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import date
from typing import Any, ClassVar, Final

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.layout import WidgetPlacement
from textual.message import Message
from textual.widget import Widget

from peers.chat.tui import pages, show
from peers.chat.tui.bubble import OURS, Bubble, Line, at_right
from peers.chat.tui.kept import KeptScroll
from peers.chat.tui.pages import PAGE, Page
from peers.database import Database, DatabaseError
from peers.store.message_rows import MessageRow

MOST: Final = 4 * PAGE
"""Messages that are mounted at most."""

_FEW: Final = 16
"""Messages with which a view begins whose height is not known yet."""
_RIGHT: Final = 3
"""The right button of a mouse."""

Bodies = Callable[[Iterable[MessageRow]], Awaitable[dict[int, Content]]]
"""Gives what is shown of files instead of their names."""


class ConversationView(KeptScroll, can_focus=True):
    """The messages with one contact.

    Args:
        store: where they are.
        bodies: see :data:`Bodies`.

    Attributes:
        contact: whose messages are shown.
        selected: the message on which the keys act.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", "previous message", show=False),
        Binding("down,j", "step(1)", "next message", show=False),
        Binding("home", "to_start", "oldest shown", show=False),
        Binding("end", "to_end", "newest", show=False),
        Binding("enter", "act('menu')", "actions", show=False),
        Binding("e", "act('edit')", "edit", show=False),
        Binding("d,delete", "act('delete')", "delete", show=False),
        Binding("c,y", "act('copy')", "copy", show=False),
        Binding("a", "act('accept')", "accept a file", show=False),
        Binding("s", "act('save')", "save a file", show=False),
        Binding("x", "act('cancel')", "cancel a file", show=False),
    ]

    class Act(Message):
        """Something is to be done with a message."""

        def __init__(self, action: str, row: MessageRow) -> None:
            super().__init__()
            self.action = action
            self.row = row

    class Moved(Message):
        """Other messages are in view."""

    class Failed(Message):
        """The store could not be read."""

        def __init__(self, error: DatabaseError) -> None:
            super().__init__()
            self.error = error

    def __init__(self, store: Database, bodies: Bodies) -> None:
        super().__init__(id="conversation")
        self.contact: int | None = None
        self.selected: int | None = None
        self._store = store
        self._bodies = bodies
        self._bubbles: list[Bubble] = []
        self._at_start = True
        self._unread_from: int | None = None
        self._unread_open = False
        self._lock = asyncio.Lock()
        self._extending = False

    # --- What is shown ------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> list[MessageRow]:
        """The messages that are mounted."""
        return [bubble.row for bubble in self._bubbles]

    @property
    def bubbles(self) -> list[Bubble]:
        """What shows them."""
        return list(self._bubbles)

    def seen(self) -> int | None:
        """Return the newest message that is in view to its end, or fills the view; None while that is not settled."""
        if self.is_moving:
            return None
        bottom = self.scroll_y + self.size.height
        for bubble in reversed(self._bubbles):
            region = bubble.virtual_region
            if region.height and (region.bottom <= bottom or (region.height >= self.size.height and region.y < bottom)):
                return bubble.row.id
        return None

    async def open(self, contact: int, at: int | None = None) -> None:
        """Show a contact's messages: where the unread begin, or at the end; or a message of them, selected."""
        async with self._lock:
            page: Page
            if at is None:
                # A message takes a row at least: no more is mounted before something can be seen.
                shown = min(max(self.size.height, _FEW), PAGE)
                page = await self._store.read(pages.opening, contact, shown)
            else:
                page = await self._store.read(pages.around, contact, at)
            await self._replace(contact, page, page.unread_from if at is None else at)
            if at is not None:
                self._select(at)

    async def close(self) -> None:
        """Show nobody's messages."""
        async with self._lock:
            await self._replace(None, Page([], at_start=True, at_end=True), None)

    async def arrived(self, *, attended: bool) -> None:
        """Show what is new at the end, if the end is shown.

        Args:
            attended: somebody is looking. If not, a line marks where what they have not seen begins.
        """
        async with self._lock:
            if self.contact is None or not self.ends_here:
                return
            page = await self._store.read(pages.newer, self.contact, self._bubbles[-1].row.id if self._bubbles else 0)
            if not page.rows:
                return
            if not attended and not self._unread_open:
                first = next((row.id for row in page.rows if not row.outgoing), None)
                if first is not None:
                    await self._mark_unread(first)
            if page.rows[-1].outgoing:  # one's own words are always shown
                self.following = True
            if self.following and not page.at_end:
                # More at once than is mounted in one go: who is at the end stays there, and scrolls up for the rest.
                await self._replace_by_newest(self.contact)
                return
            await self._append(page)
            self.ends_here = page.at_end
            await self._drop_oldest()
            self.call_after_refresh(self.settle)

    async def changed(self, messages: Iterable[int]) -> None:
        """Show the present state of messages, those of them that are mounted."""
        async with self._lock:
            mounted = {bubble.row.id: bubble for bubble in self._bubbles}
            rows = await self._store.read(pages.some, [message for message in messages if message in mounted])
            bodies = await self._bodies(rows)
            for row in rows:
                mounted[row.id].set_row(row, bodies.get(row.id))

    def all_read(self) -> None:
        """Take note that nothing is unread: the line stays where it is, and the next unread message gets a new one."""
        self._unread_open = False

    def refresh_days(self) -> None:
        """Name the days anew: it is past midnight."""
        previous: MessageRow | None = None
        for bubble in self._bubbles:
            texts = self._texts(previous, bubble.row)
            for line, (text, _) in zip(bubble.lines, texts, strict=False):
                line.text = text
                line.refresh()
            previous = bubble.row

    # --- Keys and mouse -----------------------------------------------------------------------------------------------

    async def action_step(self, by: int) -> None:
        ids = [bubble.row.id for bubble in self._bubbles]
        if not ids:
            return
        at = len(ids) - 1 if by < 0 else 0
        if self.selected in ids:
            at = ids.index(self.selected) + by
        if 0 <= at < len(ids):
            self._select(ids[at])
        elif by < 0:
            self.scroll_home(animate=False)
        else:
            self.select_none()

    def action_to_start(self) -> None:
        self.scroll_home(animate=False)

    async def action_to_end(self) -> None:
        await self.to_end()

    async def to_end(self) -> None:
        """Show the newest messages."""
        self.select_none()
        if self.ends_here:
            self.scroll_end(animate=False)
        elif self.contact is not None:
            async with self._lock:
                await self._replace_by_newest(self.contact)

    def action_act(self, action: str) -> None:
        bubble = self._bubble(self.selected)
        if bubble is None and self._bubbles:
            self._select(self._bubbles[-1].row.id)
        elif bubble is not None:
            self.post_message(self.Act(action, bubble.row))

    def on_click(self, event: events.Click) -> None:
        bubble = event.widget
        if not isinstance(bubble, Bubble) or self.screen.get_selected_text():
            return  # the end of a drag over text is no click on a message
        again = self.selected == bubble.row.id
        self._select(bubble.row.id)
        if again or event.button == _RIGHT or event.chain > 1:
            self.post_message(self.Act("menu", bubble.row))

    def on_focus(self) -> None:
        if self.selected is None and self._bubbles and self.ends_here:
            self._select(self._bubbles[-1].row.id)

    def select_none(self) -> None:
        """Have no message selected."""
        bubble = self._bubble(self.selected)
        if bubble is not None:
            bubble.remove_class("-selected")
        self.selected = None

    def _select(self, message: int) -> None:
        self.select_none()
        bubble = self._bubble(message)
        if bubble is not None:
            self.selected = message
            bubble.add_class("-selected")
            if bubble.virtual_region.height:
                self.scroll_to_widget(bubble, animate=False)

    # --- The window ---------------------------------------------------------------------------------------------------

    def process_layout(self, placements: list[WidgetPlacement]) -> list[WidgetPlacement]:
        width = self.scrollable_content_region.width
        return [
            at_right(placement, width) if placement.widget.has_class(OURS) else placement
            for placement in super().process_layout(placements)
        ]

    def moved(self) -> None:
        # Read on where the view comes near an end of the window.
        self.post_message(self.Moved())
        if self._extending or self.contact is None or not self.size.height:
            return
        if not self._at_start and self.scroll_y < self.size.height:
            self._extend(self.contact, self._older)
        elif not self.ends_here and self.scroll_y + 2 * self.size.height > self.virtual_size.height:
            self._extend(self.contact, self._newer)

    def _extend(self, contact: int, load: Callable[[int], Awaitable[None]]) -> None:
        self._extending = True

        async def run() -> None:
            try:
                async with self._lock:
                    if self.contact == contact and self._bubbles:
                        await load(contact)
            except DatabaseError as error:
                self.post_message(self.Failed(error))
            finally:
                self._extending = False
            self.call_after_refresh(self.settle)

        self.run_worker(run(), name="page", group="pages")

    async def _older(self, contact: int) -> None:
        first = self._bubbles[0]
        page = await self._store.read(pages.older, contact, first.row.id)
        self.pin_view(self._bubbles)
        bodies = await self._bodies(page.rows)
        previous: MessageRow | None = None
        bubbles: list[Bubble] = []
        widgets: list[Widget] = []
        for row in page.rows:
            bubble = self._make(previous, row, bodies)
            bubbles.append(bubble)
            widgets += [*bubble.lines, bubble]
            previous = row
        if widgets:
            await self.mount(*widgets, before=0)
        self._bubbles[:0] = bubbles
        self._at_start = page.at_start
        await self._renew_lines(first, previous)
        dropped = self._bubbles[MOST:]
        if dropped:
            del self._bubbles[MOST:]
            self.ends_here = self.following = False
            await self._remove(dropped)

    async def _newer(self, contact: int) -> None:
        page = await self._store.read(pages.newer, contact, self._bubbles[-1].row.id)
        self.pin_view(self._bubbles)
        await self._append(page)
        self.ends_here = page.at_end
        await self._drop_oldest()

    async def _append(self, page: Page) -> None:
        await self.mount(*await self._make_after(page.rows))

    async def _make_after(self, rows: list[MessageRow]) -> list[Widget]:
        """Return what is to be mounted for messages that follow the last one."""
        previous = self._bubbles[-1].row if self._bubbles else None
        bodies = await self._bodies(rows)
        widgets: list[Widget] = []
        for row in rows:
            bubble = self._make(previous, row, bodies)
            self._bubbles.append(bubble)
            widgets += [*bubble.lines, bubble]
            previous = row
        return widgets

    async def _replace(self, contact: int | None, page: Page, target: int | None) -> None:
        self.selected = None
        self.contact = contact
        self._unread_from = page.unread_from
        self._unread_open = page.unread_from is not None
        self._at_start, self.ends_here = page.at_start, page.at_end
        self._bubbles = []
        widgets = await self._make_after(page.rows)
        bubble = self._bubble(target)
        with self.app.batch_update():
            await self.remove_children()
            self.following = bubble is None
            # With a line or two above it, so that one sees that there is more.
            self.pin(bubble.lines[0] if bubble is not None and bubble.lines else bubble, 2.0)
            await self.mount(*widgets)
        self.call_after_refresh(self.settle)

    async def _replace_by_newest(self, contact: int) -> None:
        page = await self._store.read(pages.newest, contact)
        await self._replace(contact, replace(page, unread_from=self._unread_from if self._unread_open else None), None)

    async def _drop_oldest(self) -> None:
        dropped = self._bubbles[:-MOST]
        if dropped:
            del self._bubbles[:-MOST]
            self._at_start = False
            if not self.following:
                self.pin_view(self._bubbles)
            await self._remove(dropped)
            await self._renew_lines(self._bubbles[0], None)

    async def _remove(self, bubbles: list[Bubble]) -> None:
        if any(bubble.row.id == self.selected for bubble in bubbles):
            self.selected = None
        widgets: list[Any] = [widget for bubble in bubbles for widget in (*bubble.lines, bubble)]
        await self.remove_children(widgets)

    # --- Lines between messages ---------------------------------------------------------------------------------------

    def _make(self, previous: MessageRow | None, row: MessageRow, bodies: dict[int, Content]) -> Bubble:
        bubble = Bubble(row, bodies.get(row.id))
        bubble.lines = [Line(text, unread=unread) for text, unread in self._texts(previous, row)]
        bubble.set_class(bool(previous and previous.outgoing != row.outgoing and not bubble.lines), "-turn")
        return bubble

    def _texts(self, previous: MessageRow | None, row: MessageRow) -> list[tuple[str, bool]]:
        texts = []
        if previous is None or show.moment(previous.at).date() != show.moment(row.at).date():
            texts.append((show.day(row.at, date.today()), False))  # noqa: DTZ011 - local, as the user's calendar
        if row.id == self._unread_from:
            texts.append(("unread", True))
        return texts

    async def _renew_lines(self, bubble: Bubble, previous: MessageRow | None) -> None:
        texts = self._texts(previous, bubble.row)
        if [line.text for line in bubble.lines] == [text for text, _ in texts]:
            return
        await self.remove_children(bubble.lines)
        bubble.lines = [Line(text, unread=unread) for text, unread in texts]
        if bubble.lines:
            await self.mount(*bubble.lines, before=bubble)

    async def _mark_unread(self, message: int) -> None:
        old = self._unread_from
        self._unread_from, self._unread_open = message, True
        for previous, bubble in zip([None, *self._bubbles], self._bubbles, strict=False):
            if bubble.row.id == old:
                await self._renew_lines(bubble, None if previous is None else previous.row)

    def _bubble(self, message: int | None) -> Bubble | None:
        return next((bubble for bubble in self._bubbles if bubble.row.id == message), None)
