"""Looking at the file of a store from outside: whether it is whole, and how much is in it. Changes nothing."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from keys.errors import BadInvite
from peers.database import DatabaseError
from peers.store import mailboxes
from peers.store.mailboxes import OwnMailbox, Unwelcome
from peers.store.schema import SCHEMA


@dataclass(frozen=True, slots=True)
class Examined:
    """What a store holds.

    Attributes:
        version: of its schema.
        contacts: how many.
        messages: how many, deleted ones not counted.
        mailboxes: of the profile's owner.
        unwelcome: mailboxes of contacts that refuse what we leave for want of a token.
    """

    version: int
    contacts: int
    messages: int
    mailboxes: tuple[OwnMailbox, ...] = ()
    unwelcome: tuple[Unwelcome, ...] = ()


def examine(path: Path) -> Examined:
    """Look at a store, which others may have open. Reads all of it: blocks for some seconds if it is big.

    Raises:
        DatabaseError: it is damaged, is not one of ours, or cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=30.0)) as db:
            (application_id,) = db.execute("PRAGMA application_id").fetchone()
            if application_id != SCHEMA.application_id:
                raise DatabaseError(f"{path} is not the store of a profile")
            # Its lines may quote what is stored: only whether there are any is told.
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise DatabaseError(f"{path} is damaged: restore a backup, or copy it away before anything else")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (people,) = db.execute("SELECT count(*) FROM contacts").fetchone()
            # Nothing is upgraded here, and the first version had none.
            ours = tuple(mailboxes.own(db)) if version > 1 else ()
            refusing = tuple(mailboxes.unwelcome(db)) if version > 1 else ()
            (said,) = db.execute("SELECT count(*) FROM messages WHERE deleted_at IS NULL").fetchone()
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        known = {"SQLITE_CANTOPEN": "there is none, or it cannot be opened: look at its permissions"}
        what = known.get(name, f"it cannot be read, most likely because it is damaged ({name}): restore a backup")
        raise DatabaseError(f"{path}: {what}") from error
    except BadInvite:
        raise DatabaseError(f"{path} holds a mailbox with a card that is none: restore a backup") from None
    return Examined(version, people, said, ours, refusing)
