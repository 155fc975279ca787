"""A database of numbers, in two versions."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from peers.database import Schema

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

_ID: Final = 0x74657374
_ONE: Final = "CREATE TABLE numbers (value INTEGER PRIMARY KEY) STRICT;\n"
_TWO: Final = """
ALTER TABLE numbers ADD COLUMN square INTEGER;
CREATE TRIGGER squared AFTER INSERT ON numbers BEGIN
    UPDATE numbers SET square = value * value WHERE value = new.value;
END;
UPDATE numbers SET square = value * value;
"""
ONE: Final = Schema(_ID, (_ONE,))
TWO: Final = Schema(_ID, (_ONE, _TWO))


def insert(db: sqlite3.Connection, value: int) -> int:
    db.execute("INSERT INTO numbers (value) VALUES (?)", (value,))
    return value


def values(db: sqlite3.Connection) -> list[int]:
    return [row[0] for row in db.execute("SELECT value FROM numbers ORDER BY value")]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
