"""Search through the history."""

import asyncio
from collections.abc import Mapping
from datetime import date
from typing import ClassVar, Final

from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from peers.chat.tui import show
from peers.chat.tui.dialogs import Dialog, reason
from peers.database import Database, DatabaseError
from peers.store import messages
from peers.store.message_rows import MessageRow

_LIMIT: Final = 100
_PAUSE: Final = 0.08
"""Seconds for which somebody who types must pause before the store is asked."""


class SearchDialog(Dialog[tuple[int, int]]):
    """Words, and the messages that hold them. Returns contact and message of the one that is chosen.

    Args:
        store: where they are.
        names: what contacts are called.
        contact: whose conversation is open; Ctrl+T limits the search to it and back.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+t", "everywhere", "this conversation or all", show=False, priority=True),
        Binding("down", "into", "results", show=False),
    ]

    def __init__(self, store: Database, names: Mapping[int, str], contact: int | None) -> None:
        super().__init__(classes="dialog")
        self._store, self._names, self._contact = store, names, contact
        self._all = True
        self.found: list[MessageRow] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="box full"):
            yield Static("Search", classes="title", markup=False)
            yield Input(placeholder="words, or their beginnings")
            yield OptionList(markup=False)
            yield Static("", classes="keys", markup=False)

    def on_mount(self) -> None:
        self._tell()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._search(event.value)

    def on_input_submitted(self) -> None:
        results = self.query_one(OptionList)
        if self.found:
            self._choose(results.highlighted or 0)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._choose(event.option_index)

    def on_resize(self, _: events.Resize) -> None:
        self.call_after_refresh(self._draw)

    def action_into(self) -> None:
        self.query_one(OptionList).focus()

    def action_everywhere(self) -> None:
        self._all = not self._all or self._contact is None
        self._search(self.query_one(Input).value)

    def _choose(self, index: int) -> None:
        row = self.found[index]
        self.dismiss((row.contact, row.id))

    @work(exclusive=True)
    async def _search(self, words: str) -> None:
        await asyncio.sleep(_PAUSE)  # the next key cancels it
        contact = None if self._all else self._contact
        try:
            self.found = await self._store.read(messages.search, words, contact=contact, limit=_LIMIT)
        except DatabaseError as error:
            self.query_one(".keys", Static).update(reason(error))
            return
        self._draw()

    def _draw(self) -> None:
        results = self.query_one(OptionList)
        width = max(results.scrollable_content_region.width - 2, 10)
        words = self.query_one(Input).value.split()
        today = date.today()  # noqa: DTZ011 - local, as the user's calendar
        highlighted = results.highlighted
        results.clear_options()
        results.add_options([Option(self._line(row, words, width, today)) for row in self.found])
        if self.found:
            results.highlighted = min(highlighted or 0, len(self.found) - 1)
        self._tell()

    def _line(self, row: MessageRow, words: list[str], width: int, today: date) -> Content:
        name = self._names.get(row.contact, "?")
        head = Content.assemble(
            ("You to " if row.outgoing else "", ""), (name, "bold"), f" · {show.short_time(row.at, today)}"
        )
        return Content.assemble(head.truncate(width, ellipsis=True), "\n", show.snippet(row, words, width))

    def _tell(self) -> None:
        where = (
            "all conversations" if self._all else f"the conversation with {self._names.get(self._contact or 0, '?')}"
        )
        count = f"{len(self.found)} found" if len(self.found) < _LIMIT else f"the newest {_LIMIT}"
        other = "" if self._contact is None else " · Ctrl+T: this one or all"
        self.query_one(".keys", Static).update(f"{count} in {where} · Enter: go there{other} · Esc: back")
