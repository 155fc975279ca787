"""What is to be done once, by whoever holds the connection, as soon as there is one."""

import sqlite3
from typing import Literal

JobKind = Literal["introduce", "wake", "wake-call"]


def add(db: sqlite3.Connection, now: int, contact: int, kind: JobKind) -> int:
    """Put in line what is to be done once, and return its number; :func:`waits` tells whether it was."""
    row = db.execute(
        "INSERT INTO jobs (contact, kind, at) VALUES (?, ?, ?) RETURNING id", (contact, kind, now)
    ).fetchone()
    return int(row[0])


def waiting(db: sqlite3.Connection) -> list[tuple[int, int, JobKind]]:
    """Return ``(number, contact, kind)`` of all that is in line."""
    return [(row[0], row[1], row[2]) for row in db.execute("SELECT id, contact, kind FROM jobs ORDER BY id")]


def waits(db: sqlite3.Connection, job: int) -> bool:
    """Tell whether a job is still to be done."""
    return db.execute("SELECT 1 FROM jobs WHERE id = ?", (job,)).fetchone() is not None


def done(db: sqlite3.Connection, job: int) -> None:
    """Take a job out of the line."""
    db.execute("DELETE FROM jobs WHERE id = ?", (job,))
