"""The feed: what happened in a store, in order, numbered. Every screen and script follows it, whoever did what.

A number (a *cursor*) says how far somebody has read. Messages stay in the feed for as long as they exist; what is soon
of no interest (presence, progress, the state of the connection) is removed after a day by :func:`prune`.
"""

import json
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

_DAY: Final = 24 * 3600 * 1000
_KEPT: Final = 30 * _DAY
BATCH: Final = 500
"""Most events that :func:`read` returns in one go."""


class Kind(StrEnum):
    """What an event is about."""

    MESSAGE = "message"
    """A message, file or call came, or was written here."""
    STATE = "state"
    """A message of ours was sent, delivered, read, or has failed; one of theirs was read here."""
    EDITED = "edited"
    DELETED = "deleted"
    FILE = "file"
    """A file moved on."""
    CONTACT = "contact"
    """A contact is new or was changed."""
    PRESENCE = "presence"
    CONNECTION = "connection"
    """The connection to the relay came or went; the detail is the state of :func:`connection`."""
    NOTICE = "notice"
    """The relay has a word for the user, or something needs their attention; the detail is the text."""


_PASSING: Final = (Kind.PRESENCE, Kind.CONNECTION, Kind.FILE)


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event. `contact` and `message` are rows of their tables, which may be gone since."""

    seq: int
    at: int
    kind: Kind
    contact: int | None
    message: int | None
    detail: str


def add(
    db: sqlite3.Connection,
    now: int,
    kind: Kind,
    *,
    contact: int | None = None,
    message: int | None = None,
    detail: str = "",
) -> int:
    """Write an event and return its number."""
    row = db.execute(
        "INSERT INTO events (at, kind, contact, message, detail) VALUES (?, ?, ?, ?, ?) RETURNING seq",
        (now, kind, contact, message, detail),
    ).fetchone()
    return int(row[0])


def read(db: sqlite3.Connection, after: int, limit: int = BATCH) -> list[EventRow]:
    """Return the events after a number, the oldest first."""
    rows = db.execute(
        "SELECT seq, at, kind, contact, message, detail FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
    )
    return [EventRow(row[0], row[1], Kind(row[2]), *row[3:]) for row in rows]


def last(db: sqlite3.Connection) -> int:
    """Return the number of the newest event (0: there never was one)."""
    # Not max(seq): what was pruned counts too, or a number would be given twice.
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if row is None else int(row[0])


def prune(db: sqlite3.Connection, now: int) -> None:
    """Remove what has passed: after a day what is passing by its kind, after 30 days all but messages."""
    marks = ", ".join("?" * len(_PASSING))
    db.execute(f"DELETE FROM events WHERE kind IN ({marks}) AND at < ?", (*_PASSING, now - _DAY))  # noqa: S608
    db.execute("DELETE FROM events WHERE kind != ? AND at < ?", (Kind.MESSAGE, now - _KEPT))


def cursor(db: sqlite3.Connection, name: str) -> int:
    """Return how far the reader of that name has come (0: it has not read yet)."""
    row = db.execute("SELECT seq FROM cursors WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def advance(db: sqlite3.Connection, name: str, seq: int) -> None:
    """Write down how far a reader has come; it never goes back."""
    db.execute(
        "INSERT INTO cursors (name, seq) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = max(seq, excluded.seq)",
        (name, seq),
    )


def set_connection(db: sqlite3.Connection, now: int, state: str, text: str = "", retry_in: float | None = None) -> None:
    """Write down how the connection to the relay stands, for every program of the profile to show.

    Args:
        state: ``connected``, ``connecting``, ``waiting``, ``refused`` or ``closed``.
        text: what there is to say about it.
        retry_in: seconds until the next attempt.
    """
    value = json.dumps({"state": state, "text": text, "retry_in": retry_in})
    db.execute(
        "INSERT INTO status (name, value, at) VALUES ('connection', ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at",
        (value, now),
    )
    add(db, now, Kind.CONNECTION, detail=value)


def connection(db: sqlite3.Connection) -> dict[str, Any]:
    """Return what :func:`set_connection` wrote, with ``at``. Whoever wrote it may have been killed since: only the lock
    of the profile tells whether anybody holds a connection."""
    row = db.execute("SELECT value, at FROM status WHERE name = 'connection'").fetchone()
    return (
        {"state": "closed", "text": "", "retry_in": None, "at": 0}
        if row is None
        else {**json.loads(row[0]), "at": row[1]}
    )
