"""The screen: contacts at the left, a conversation at the right, the state of the connection below.

It shows what the store holds and writes to it, and does nothing else: what is sent and what comes is the carrier's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import ClassVar, Final

from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from keys.invite import display_name
from peers.chat.session import Session
from peers.chat.text import clean_line
from peers.chat.tui import overview, show
from peers.chat.tui.actions import Actions
from peers.chat.tui.commands import PeopleProvider
from peers.chat.tui.composer import Composer
from peers.chat.tui.conversation import ConversationView
from peers.chat.tui.dialogs import EXPECTED, reason
from peers.chat.tui.overview import Overview, Person
from peers.chat.tui.people import PeopleList
from peers.chat.tui.status import status_line
from peers.database import DatabaseError
from peers.store import feed, messages
from peers.store.feed import EventRow, Kind
from peers.store.message_rows import MessageRow

_CHANGES: Final = (Kind.STATE, Kind.EDITED, Kind.DELETED, Kind.FILE)
_KEYS: Final = "F1 help · Ctrl+P commands · Ctrl+Q quit"


class ChatScreen(Screen[None]):
    """See the module.

    Attributes:
        session: the profile.
        people: everybody, by contact row.
        current: whose conversation is shown.
    """

    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "help", priority=True),
        Binding("f2", "contacts", "contacts", priority=True),
        Binding("f3", "do('invite')", "my invite", priority=True),
        Binding("f4", "do('verify')", "verify", priority=True),
        Binding("alt+up", "neighbour(-1)", "contact above", priority=True),
        Binding("alt+down", "neighbour(1)", "contact below", priority=True),
        Binding("ctrl+k", "switch", "go to a contact", priority=True),
        Binding("ctrl+f", "do('search')", "search", priority=True),
        Binding("ctrl+n", "do('add')", "add a contact", priority=True),
        Binding("ctrl+o", "do('send_file')", "send a file", priority=True),
        Binding("escape", "back", "to the composer", show=False),
    ]

    def __init__(self, session: Session, state: Overview, contact: int | None) -> None:
        super().__init__()
        self.session = session
        self.people: dict[int, Person] = dict(state.people)
        self.current: int | None = None
        self.actions = Actions(self)
        self._first = contact
        self._connection: Mapping[str, object] = state.connection
        self._failure: str | None = None
        self._drafts: dict[int, str] = {}
        self._editing: int | None = None
        self._marked = 0
        self._today = date.today()  # noqa: DTZ011 - local, as the user's calendar

    def compose(self) -> ComposeResult:
        with Horizontal(id="main"):
            with Vertical(id="side"):
                yield Static(
                    f"blindrelay · {clean_line(display_name(self.session.keys.nickname))}", id="owner", markup=False
                )
                yield PeopleList()
            with Vertical(id="right", classes="-empty"):
                yield Static(id="heading", markup=False)
                yield ConversationView(self.session.store, self.actions.bodies)
                yield Static(id="empty", markup=False)
                yield Static("Editing · Enter: keep · Esc: leave it as it was", id="editing", markup=False)
                yield Composer()
        with Horizontal(id="foot"):
            yield Static(id="status", markup=False)
            yield Static(_KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        self.people_list.show_people(self.people, None)
        self.show_status()
        self.set_interval(20, self._tick)
        if self._first is None:
            self._show_nobody()
        else:
            # The first layout does not know yet how large the terminal is: more would seem to be in view than there is.
            self.call_after_refresh(self.go_to, self._first)

    @property
    def people_list(self) -> PeopleList:
        return self.query_one(PeopleList)

    @property
    def conversation(self) -> ConversationView:
        return self.query_one(ConversationView)

    @property
    def composer(self) -> Composer:
        return self.query_one(Composer)

    @property
    def person(self) -> Person | None:
        """Whose conversation is shown."""
        return None if self.current is None else self.people.get(self.current)

    def people_in_order(self) -> list[Person]:
        """Everybody as the list shows them."""
        return [self.people[contact] for contact in self.people_list.order if contact in self.people]

    def commands(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        """Yield what the command palette offers now."""
        return self.actions.commands()

    # --- What happens -------------------------------------------------------------------------------------------------

    async def apply(self, batch: Sequence[EventRow]) -> None:
        """Show what happened."""
        store = self.session.store
        touched = {event.contact for event in batch if event.contact is not None}
        if touched:
            for contact, person in (await store.read(overview.read_some, touched)).items():
                if person is None:
                    self.people.pop(contact, None)
                else:
                    self.people[contact] = person
            self.people_list.show_people(self.people, self.current)
        if any(event.kind is Kind.CONNECTION for event in batch):
            self._connection = await store.read(feed.connection)
        self._announce(batch)
        self.show_status()
        if self.current in touched:
            await self._apply_here([event for event in batch if event.contact == self.current])
        elif self.current is None:
            self._show_nobody()

    async def _apply_here(self, batch: Sequence[EventRow]) -> None:
        person = self.person
        if person is None:
            await self._leave()
            return
        self._show_heading()
        if not person.unread:
            self.conversation.all_read()
        if any(event.kind is Kind.MESSAGE for event in batch):
            await self.conversation.arrived(attended=self._attended)
        changed = {event.message for event in batch if event.kind in _CHANGES and event.message is not None}
        if changed:
            await self.conversation.changed(changed)
        self._mark_read()

    def _announce(self, batch: Sequence[EventRow]) -> None:
        for event in batch:
            if event.kind is Kind.NOTICE:
                self.notify(clean_line(event.detail, 400), severity="warning", markup=False)
            elif event.kind is Kind.CONTACT and event.detail == "new" and event.contact in self.people:
                row = self.people[event.contact].row
                if row.origin == "introduction":
                    text = (
                        f"{show.label(row)} introduced themselves. Nobody vouches for the name: compare safety numbers"
                    )
                    self.notify(text, markup=False)

    def carrying_failed(self, error: Exception) -> None:
        """Show that this process cannot carry any more."""
        self._failure = str(error)
        self.show_status()

    def show_status(self) -> None:
        """Draw the status line."""
        line = status_line(self._connection, carrying=self.session.carrying, failure=self._failure)
        self.query_one("#status", Static).update(line)

    def _tick(self) -> None:
        # Whether it is us who carry can change without an event, and times of day are worded by today's date.
        self.show_status()
        today = date.today()  # noqa: DTZ011
        if today != self._today:
            self._today = today
            self.people_list.show_people(self.people, self.current)
            self.conversation.refresh_days()
            self._show_heading()

    # --- Conversations ------------------------------------------------------------------------------------------------

    async def go_to(self, contact: int, message: int | None = None) -> None:
        """Show a conversation; with `message`, at that message."""
        if contact not in self.people:
            return
        self.remove_class("-listing")
        if contact != self.current:
            self._keep_draft()
            self.current = contact
            self._marked = 0
            self.composer.write(self._drafts.pop(contact, ""))
        self.query_one("#right").remove_class("-empty")
        self._show_heading()
        self.people_list.mark(contact)
        try:
            await self.conversation.open(contact, message)
        except DatabaseError as error:
            self.report(error)
        (self.composer if message is None else self.conversation).focus()
        self._mark_read()

    async def added(self, contact: int) -> None:
        """Show somebody who was just added, whether or not the feed told of them yet."""
        for row, person in (await self.session.store.read(overview.read_some, [contact])).items():
            if person is not None:
                self.people[row] = person
        self.people_list.show_people(self.people, self.current)
        await self.go_to(contact)

    async def _leave(self) -> None:
        self.current = None
        self.stop_editing()
        self.composer.write("")
        await self.conversation.close()
        self._show_nobody()

    def _show_nobody(self) -> None:
        if self.people:
            text = "Choose somebody: click, or Enter in the list, or Ctrl+K and their name."
        else:
            text = (
                "Nobody is here yet.\n\nCtrl+N adds somebody by their invite (K0…).\nF3 shows your invite, to give to"
                " them.\n\nF1 shows all keys, Ctrl+P all commands."
            )
        self.query_one("#empty", Static).update(text)
        self.query_one("#right").add_class("-empty")
        self.add_class("-listing")
        if self.focused is None:
            self.people_list.focus()

    def _show_heading(self) -> None:
        person = self.person
        if person is not None:
            self.query_one("#heading", Static).update(show.heading(person.row, date.today()))  # noqa: DTZ011

    # --- What was read ------------------------------------------------------------------------------------------------

    @property
    def _attended(self) -> bool:
        """Whether somebody can be looking at the conversation."""
        return self.app.app_focus and self.app.screen is self and self.conversation.region.height > 0

    def _mark_read(self) -> None:
        person = self.person
        if person is None or not person.unread or not self._attended or self.conversation.contact != self.current:
            return
        seen = self.conversation.seen()
        if seen is not None and seen > self._marked:
            self._marked = seen
            self._read_up_to(person.row.id, seen)

    @work(group="read")
    async def _read_up_to(self, contact: int, message: int) -> None:
        try:
            await self.session.read_up_to(contact, message)
        except EXPECTED as error:
            self.report(error)

    def on_conversation_view_failed(self, event: ConversationView.Failed) -> None:
        self.report(event.error)

    def on_conversation_view_moved(self) -> None:
        self._mark_read()

    def on_screen_resume(self) -> None:
        self._mark_read()

    def attended_again(self) -> None:
        """Take note that somebody looks at the terminal again."""
        self._mark_read()

    # --- Writing ------------------------------------------------------------------------------------------------------

    async def on_composer_sent(self, event: Composer.Sent) -> None:
        contact, editing = self.current, self._editing
        if contact is None or not event.text.strip():
            return
        # Cleared before it is stored: meanwhile somebody types on.
        self.composer.clear()
        try:
            if editing is not None:
                self.stop_editing()
                await self.session.store.write(messages.edit, self.session.now(), editing, event.text)
            else:
                await self.session.say(contact, event.text)
                await self.conversation.to_end()
        except EXPECTED as error:
            if self.current == contact:
                self.composer.write(event.text + self.composer.text)
                self._edit(editing)
            self.report(error)

    def on_composer_edit_last(self) -> None:
        self.actions.run("edit_last")

    def edit(self, row: MessageRow) -> None:
        """Have a message of ours edited in the composer."""
        self._keep_draft()
        self._edit(row.id)
        self.composer.write(row.text)
        self.composer.focus()

    def _edit(self, message: int | None) -> None:
        self._editing = message
        self.query_one("#editing").set_class(message is not None, "-on")

    def stop_editing(self) -> None:
        """Leave what is edited as it is."""
        if self._editing is not None:
            self._edit(None)
            self.composer.write(self._drafts.pop(self.current, "") if self.current is not None else "")

    def _keep_draft(self) -> None:
        if self.current is None:
            return
        if self._editing is not None:
            self._edit(None)  # the draft is what was there before; the edit is given up
        elif self.composer.text:
            self._drafts[self.current] = self.composer.text

    def on_composer_left(self) -> None:
        if self._editing is not None:
            self.stop_editing()
        elif self.has_class("-narrow"):
            self.action_contacts()
        else:
            self.conversation.focus()

    def on_composer_scrolled(self, event: Composer.Scrolled) -> None:
        self.conversation.scroll_pages(event.pages)

    # --- Keys and mouse -----------------------------------------------------------------------------------------------

    async def on_people_list_chosen(self, event: PeopleList.Chosen) -> None:
        await self.go_to(event.contact)

    def on_conversation_view_act(self, event: ConversationView.Act) -> None:
        self.actions.on_message(event.action, event.row)

    async def action_neighbour(self, by: int) -> None:
        order = self.people_list.order
        if not order:
            return
        at = order.index(self.current) + by if self.current in order else 0
        await self.go_to(order[at % len(order)])

    def action_contacts(self) -> None:
        if self.has_class("-narrow"):
            self.toggle_class("-listing")
            if not self.has_class("-listing"):
                self.action_back()
                self._mark_read()
                return
        self.people_list.focus()

    def action_back(self) -> None:
        if self.current is not None:
            self.remove_class("-listing")
            self.conversation.select_none()
            self.composer.focus()

    def action_switch(self) -> None:
        self.app.push_screen(CommandPalette([PeopleProvider], placeholder="Go to…"))

    def action_do(self, name: str) -> None:
        self.actions.run(name)

    def action_help(self) -> None:
        self.actions.run("help")

    # --- Errors -------------------------------------------------------------------------------------------------------

    def report(self, error: Exception) -> None:
        """Show why something could not be done."""
        self.notify(clean_line(reason(error), 400), severity="error", markup=False)

    def tell(self, text: str | Content) -> None:
        """Show that something was done."""
        self.notify(clean_line(str(text), 400), markup=False)

    def on_resize(self, _: events.Resize) -> None:
        self.call_after_refresh(self._mark_read)
