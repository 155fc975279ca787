"""Readers with names of their own: what each of them has not acknowledged yet, contact by contact.

That somebody else has seen a message on a screen does not take it from a reader, nor the other way round.
"""

import sqlite3
from collections.abc import Iterable, Mapping

from peers.store import feed, messages
from peers.store.message_rows import MessageRow


def begin(db: sqlite3.Connection, reader: str, contacts: Iterable[int]) -> None:
    """Let a reader begin, where it has not yet, with the oldest message of each contact that nobody has seen."""
    for contact in contacts:
        db.execute(
            "INSERT OR IGNORE INTO cursors (name, seq) SELECT ?1, coalesce("
            " (SELECT min(id) - 1 FROM messages WHERE contact = ?2 AND outgoing = 0 AND read_at IS NULL),"
            " (SELECT max(id) FROM messages WHERE contact = ?2), 0)",
            (_name(reader, contact), contact),
        )


def waiting(
    db: sqlite3.Connection, reader: str, contacts: Iterable[int], limit: int, *, after: int = 0
) -> list[MessageRow]:
    """Return what a reader has not acknowledged of these contacts, the oldest first; with `after`, only what came after
    that message."""
    found: list[MessageRow] = []
    for contact in contacts:
        since = max(after, feed.cursor(db, _name(reader, contact)))
        found += messages.received(db, contact, after=since, limit=limit)
    return sorted(found, key=lambda row: row.id)[:limit]


def count(db: sqlite3.Connection, reader: str, contact: int) -> int:
    """Return how many messages of a contact a reader has not acknowledged."""
    row = db.execute(
        "SELECT count(*) FROM messages WHERE contact = ? AND id > ? AND outgoing = 0 AND deleted_at IS NULL",
        (contact, feed.cursor(db, _name(reader, contact))),
    ).fetchone()
    return int(row[0])


def acknowledge(
    db: sqlite3.Connection, now: int, reader: str, up_to: Mapping[int, int], *, tell: bool = True
) -> dict[int, int]:
    """Write down, by contact, up to which message a reader has come. These messages count as read by us; with `tell`,
    the contact is told so. Returns how many of each contact nobody had seen before."""
    seen = {}
    for contact, message in up_to.items():
        since = feed.cursor(db, _name(reader, contact)) + 1
        seen[contact] = messages.mark_read(db, now, contact, message, since=since, tell=tell)
        feed.advance(db, _name(reader, contact), message)
    return seen


def _name(reader: str, contact: int) -> str:
    return f"{reader}:{contact}"
