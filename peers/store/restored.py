"""A store that came in a backup: made sure that it is one, and made fit to live here.

Who hands us a backup need not be our friend, and SQLite runs what stands in a file: triggers, views, defaults. So its
tables are taken only if they are, word for word, those that we would have made. Of its rows, those are changed that
would have us act on this machine: a file waiting to be sent names a path, which may be that of a key of ours.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keys.errors import KeysError
from keys.invite import Invite, MailboxCard
from peers.database import Schema
from peers.database_file import statements
from peers.store import contacts, feed, file_steps
from peers.store.errors import NotAStore
from peers.store.feed import Kind
from peers.store.message_rows import State
from peers.store.schema import SCHEMA
from wire.peer_commands import CancelReason
from wire.peer_mailboxes import is_token

_STATISTICS: Final = ("sqlite_stat1", "sqlite_stat4")


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restored store holds.

    Attributes:
        contacts: how many.
        messages: how many, deleted ones not counted.
        unsent_files: files that had not arrived, and now will not: they are to be sent again.
    """

    contacts: int
    messages: int
    unsent_files: int


def settle(path: Path, now: int, schema: Schema = SCHEMA) -> Restored:
    """Check the store at `path`, which nobody else has open, upgrade it and make it fit to live here; blocks.

    Raises:
        NotAStore: it is not a store of ours, is damaged, or of a newer version.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            db.execute("PRAGMA mmap_size = 0")
            version = _check_schema(db, schema)
            _check_pages(db)
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("BEGIN IMMEDIATE")
            for step in schema.steps[version:]:
                for statement in statements(step):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {schema.version:d}")
            _check_content(db)
            restored = _settle(db, now)
            db.execute("COMMIT")
            return restored
    except (sqlite3.Error, KeysError, ValueError) as error:
        raise NotAStore("the store in the backup is damaged, or does not hold what ours do") from error


def _check_schema(db: sqlite3.Connection, schema: Schema) -> int:
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application_id != schema.application_id or version < 1:
        raise NotAStore("the store in the backup is another program's")
    if version > schema.version:
        raise NotAStore(
            f"the store in the backup has version {version}, and this program knows {schema.version}:"
            " install a newer blindrelay"
        )
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as ours:
        for step in schema.steps[:version]:
            for statement in statements(step):
                ours.execute(statement)
        if _tables(db) != _tables(ours):
            raise NotAStore("the store in the backup has other tables than ours: it was not made by blindrelay")
    return int(version)


def _tables(db: sqlite3.Connection) -> set[tuple[str, ...]]:
    rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")
    return {tuple(row) for row in rows if row[1] not in _STATISTICS}


def _check_pages(db: sqlite3.Connection) -> None:
    # Also checks types, NOT NULL, CHECK and UNIQUE of each row.
    if db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
        raise NotAStore("the store in the backup is damaged: take another backup")
    if db.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise NotAStore("the store in the backup is damaged: its tables do not agree")


def _check_content(db: sqlite3.Connection) -> None:
    for row in contacts.everyone(db):
        Invite(row.public, row.nickname)  # raises for keys that must not be used
        if row.label != contacts.shown_label(row.label) or not contacts.label_key(row.label):
            raise NotAStore("the store in the backup has a contact with a label that is none")
    for (card,) in db.execute("SELECT card FROM mailboxes"):
        if MailboxCard.parse(card).text != card:
            raise NotAStore("the store in the backup has a mailbox with a card that is none")
    for (token,) in db.execute("SELECT token FROM own_mailboxes UNION SELECT token FROM contact_mailboxes"):
        if token and not is_token(token):
            raise NotAStore("the store in the backup has a token of a mailbox that is none")
    for row in db.execute("SELECT label, label_key FROM contacts"):
        if contacts.label_key(row[0]) != row[1]:
            raise NotAStore("the store in the backup has a contact with a label that is none")
    for row in db.execute("SELECT state, text FROM messages"):  # raises for what is no UTF-8
        State(row[0])
    for row in db.execute("SELECT kind, detail FROM events"):
        Kind(row[0])


def _settle(db: sqlite3.Connection, now: int) -> Restored:
    contacts.nobody_online(db, now)
    feed.set_connection(db, now, "closed")
    # The path, if it leads anywhere here, leads to another file than on the machine of the backup.
    unsent = db.execute("SELECT message FROM files WHERE outgoing = 1 AND state IN ('offered', 'moving')").fetchall()
    for (message,) in unsent:
        file_steps.fail(db, now, message, CancelReason.SOURCE_CHANGED, tell=True)
    db.execute("UPDATE files SET source = NULL, stamp = NULL WHERE outgoing = 1")
    # What had come of others is not in a backup; they are taken from the beginning.
    db.execute("UPDATE files SET have = NULL, moved = 0 WHERE outgoing = 0 AND state IN ('offered', 'moving')")
    # An index of words says nothing that the texts do not, and this one was made elsewhere.
    db.execute("INSERT INTO messages_text (messages_text) VALUES ('rebuild')")
    (people,) = db.execute("SELECT count(*) FROM contacts").fetchone()
    (said,) = db.execute("SELECT count(*) FROM messages WHERE deleted_at IS NULL").fetchone()
    return Restored(people, said, len(unsent))
