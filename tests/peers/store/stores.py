"""A store in memory, for the rules alone: the threads and processes around it have tests of their own."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from keys.identity import Identity, PublicIdentity
from peers.store import contacts
from peers.store.schema import SCHEMA

if TYPE_CHECKING:
    from peers.store.contacts import ContactRow


def new_store() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    for step in SCHEMA.steps:
        connection.executescript(step)
    return connection


def somebody() -> PublicIdentity:
    return Identity.generate().public


def add(db: sqlite3.Connection, nickname: str = "Bob", at: int = 0) -> ContactRow:
    return contacts.add(db, at, somebody(), nickname=nickname)
