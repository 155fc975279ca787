"""What is owed to those who left something for us in a mailbox: acknowledgements, until they go out by some way."""

import sqlite3
from collections.abc import Iterable
from typing import Final

OWED_MAX: Final = 4096
"""Acknowledgements that are owed to one contact; the oldest go first. Whoever is not told sends again."""
TOGETHER: Final = 512
"""Acknowledgements that go out at once."""


def owe(db: sqlite3.Connection, contact: int, command: int, body: bytes) -> None:
    """Owe a contact an acknowledgement of what came by a mailbox."""
    db.execute("INSERT OR IGNORE INTO owed (contact, command, body) VALUES (?, ?, ?)", (contact, command, body))
    db.execute(
        "DELETE FROM owed WHERE contact = ?1 AND id <="
        " (SELECT id FROM owed WHERE contact = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        (contact, OWED_MAX),
    )


def owed_to(db: sqlite3.Connection, contact: int, limit: int = TOGETHER) -> list[tuple[int, int, bytes]]:
    """Return ``(row, command, body)`` of what is owed to a contact, the oldest first."""
    return [
        (row[0], row[1], row[2])
        for row in db.execute(
            "SELECT id, command, body FROM owed WHERE contact = ? ORDER BY id LIMIT ?", (contact, limit)
        )
    ]


def creditors(db: sqlite3.Connection) -> list[int]:
    """Return the contacts to whom something is owed."""
    return [row[0] for row in db.execute("SELECT DISTINCT contact FROM owed")]


def paid(db: sqlite3.Connection, owed: Iterable[int]) -> None:
    """Forget what was owed."""
    db.executemany("DELETE FROM owed WHERE id = ?", [(each,) for each in owed])
