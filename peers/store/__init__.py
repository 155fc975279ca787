"""A person's conversations in SQLite: the one truth of a profile, which every program of it reads and writes.

What a user does is written here first; the program that holds the connection (:mod:`peers.carrier`) carries it to the
relay, and writes here what came. Functions take the connection first and the time, in milliseconds since 1970, as an
argument; :class:`peers.database.Database` runs them.
"""

import sqlite3
from pathlib import Path

from peers.database import Database
from peers.store.schema import SCHEMA

Connection = sqlite3.Connection


def open_store(path: Path) -> Database:
    """Open the store of a profile, made or upgraded where needed; blocks for that long.

    Raises:
        DatabaseError: it cannot be used; the text says why and what to do.
    """
    return Database.open(path, SCHEMA)
