"""Pages of a conversation, as the screen asks for them: each is one snapshot, and none grows with the history."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from peers.store import messages
from peers.store.errors import NoSuchMessage
from peers.store.message_rows import MessageRow

PAGE: Final = 40
"""Messages that are read and mounted in one go: enough for most screens, and quick."""
_CONTEXT: Final = 8
"""Messages above the one that is looked for."""


@dataclass(frozen=True, slots=True)
class Page:
    """Messages that follow each other, the oldest first.

    Attributes:
        rows: the messages.
        at_start: there are none before them.
        at_end: there are none after them.
        unread_from: the oldest that nobody has seen here, of all of the conversation.
    """

    rows: list[MessageRow]
    at_start: bool
    at_end: bool
    unread_from: int | None = None


def opening(db: sqlite3.Connection, contact: int, limit: int = PAGE) -> Page:
    """Return where a conversation is opened: at what is unread, or else at its end, of which `limit` messages."""
    unread_from = messages.first_unread(db, contact)
    if unread_from is None:
        return newest(db, contact, limit)
    page = around(db, contact, unread_from)
    return Page(page.rows, page.at_start, page.at_end, unread_from)


def newest(db: sqlite3.Connection, contact: int, limit: int = PAGE) -> Page:
    """Return the last messages."""
    rows = messages.history(db, contact, limit=limit)
    return Page(rows, len(rows) < limit, at_end=True)


def around(db: sqlite3.Connection, contact: int, message: int) -> Page:
    """Return a page that has a message near its beginning, as far as there are newer ones."""
    following = messages.history(db, contact, after=message - 1, limit=PAGE)
    context = max(_CONTEXT, PAGE - len(following))
    before = messages.history(db, contact, before=message, limit=context)
    return Page(before + following, len(before) < context, len(following) < PAGE)


def older(db: sqlite3.Connection, contact: int, before: int) -> Page:
    """Return the page before a message."""
    rows = messages.history(db, contact, before=before, limit=PAGE)
    return Page(rows, len(rows) < PAGE, at_end=False)


def newer(db: sqlite3.Connection, contact: int, after: int) -> Page:
    """Return the page after a message."""
    rows = messages.history(db, contact, after=after, limit=PAGE)
    return Page(rows, at_start=False, at_end=len(rows) < PAGE)


def some(db: sqlite3.Connection, wanted: Iterable[int]) -> list[MessageRow]:
    """Return messages by their numbers; those that are gone are left out."""
    found = []
    for message in wanted:
        try:
            found.append(messages.get(db, message))
        except NoSuchMessage:
            continue
    return found


def last_of_ours(db: sqlite3.Connection, contact: int) -> MessageRow | None:
    """Return the newest text of ours that can be edited, if it is among the last messages."""
    return next((row for row in reversed(messages.history(db, contact, limit=PAGE)) if editable(row)), None)


def editable(row: MessageRow) -> bool:
    """Tell whether :func:`peers.store.messages.edit` takes a message."""
    return row.outgoing and row.kind == "text" and row.deleted_at is None
