"""What the list of contacts shows, kept current contact by contact.

Nothing here grows with the length of a history: the newest message of a contact is one step in an index, and what is
unread has an index of its own.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from peers.store import contacts, feed, messages
from peers.store.contacts import ContactRow
from peers.store.errors import NoSuchContact
from peers.store.message_rows import MessageRow


@dataclass(frozen=True, slots=True)
class Person:
    """A contact as the list shows it."""

    row: ContactRow
    unread: int
    latest: MessageRow | None

    @property
    def active_at(self) -> int:
        """When there last was something, in milliseconds since 1970: the list is sorted by it."""
        return self.row.added_at if self.latest is None else self.latest.at


@dataclass(frozen=True, slots=True)
class Overview:
    """Everybody at one moment.

    Attributes:
        people: by contact row.
        seq: the last event of the feed that is in it.
        connection: :func:`peers.store.feed.connection`.
    """

    people: dict[int, Person]
    seq: int
    connection: dict[str, object]


def read(db: sqlite3.Connection) -> Overview:
    """Return everybody, and how far the feed is in it: one snapshot, so nothing is missed between the two."""
    unread = messages.unread(db)
    people = {row.id: Person(row, unread.get(row.id, 0), _latest(db, row.id)) for row in contacts.everyone(db)}
    return Overview(people, feed.last(db), feed.connection(db))


def read_some(db: sqlite3.Connection, wanted: Iterable[int]) -> dict[int, Person | None]:
    """Return some contacts; None for those that are gone."""
    found: dict[int, Person | None] = {}
    unread = messages.unread(db)
    for contact in wanted:
        try:
            found[contact] = Person(contacts.get(db, contact), unread.get(contact, 0), _latest(db, contact))
        except NoSuchContact:
            found[contact] = None
    return found


def _latest(db: sqlite3.Connection, contact: int) -> MessageRow | None:
    rows = messages.history(db, contact, limit=1)
    return rows[0] if rows else None
