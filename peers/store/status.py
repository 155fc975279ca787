"""Small things that programs remember about themselves, each under a name of its own."""

import sqlite3


def get(db: sqlite3.Connection, name: str) -> str | None:
    """Return what was remembered under `name`; None if nothing was."""
    row = db.execute("SELECT value FROM status WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def put(db: sqlite3.Connection, now: int, name: str, value: str) -> None:
    """Remember a value under `name`, in place of the one before."""
    db.execute(
        "INSERT INTO status (name, value, at) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at",
        (name, value, now),
    )
