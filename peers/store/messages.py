"""What was said: messages of both sides, and what each side changes in them. :mod:`peers.store.unsettled` has what
is still to be sent.

A message of ours goes QUEUED → SENT → DELIVERED → READ, and may fall back from SENT to QUEUED: the relay said that it
was not delivered. It is sent again until its DELIVERY_ACK comes. One of theirs is kept once, however often it comes:
its uuid is remembered even after it was deleted.
"""

import sqlite3
from collections.abc import Callable
from typing import Final, Literal

from keys.primitives import random_bytes
from peers.store import contacts, feed, file_rows
from peers.store.errors import BadText, Blocked, NoSuchMessage
from peers.store.feed import Kind
from peers.store.message_rows import COLUMNS, MessageKind, MessageRow, State, message_row
from peers.store.words import wanted
from wire.peer_commands import TEXT_MAX, UUID_SIZE

PAGE: Final = 200
"""Messages that :func:`history` returns unless told otherwise."""

# --- What we say ------------------------------------------------------------------------------------------------------


def compose(
    db: sqlite3.Connection,
    now: int,
    contact: int,
    text: str,
    *,
    kind: MessageKind = "text",
    random: Callable[[int], bytes] = random_bytes,
) -> MessageRow:
    """Write a message of ours, to be sent as soon as can be.

    Raises:
        BadText: it is empty, has more than 64 KiB in UTF-8, or cannot be written in UTF-8.
        NoSuchContact: the contact is gone.
        Blocked: we blocked them.
    """
    check_text(text)
    if contacts.get(db, contact).blocked:
        raise Blocked("this contact is blocked: unblock them first")
    return _insert(db, now, contact, uuid(random), text, kind, outgoing=True, state=State.QUEUED)


def check_text(text: str) -> None:
    """Raise BadText for what cannot be sent as a text."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadText("the text holds characters that UTF-8 cannot carry") from None
    if not text.strip():
        raise BadText("the text is empty")
    if size > TEXT_MAX:
        raise BadText(f"the text has {size} bytes; {TEXT_MAX} are the most: send it as a file")


def uuid(random: Callable[[int], bytes] = random_bytes) -> bytes:
    """Return a random UUID (RFC 9562 §5.4, version 4)."""
    raw = bytearray(random(UUID_SIZE))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def edit(db: sqlite3.Connection, now: int, message: int, text: str) -> None:
    """Give a text of ours other words, here and at its recipient.

    Raises:
        BadText: as :func:`compose`.
        NoSuchMessage: it is not a text of ours, or was deleted.
    """
    check_text(text)
    row = get(db, message)
    if not row.outgoing or row.kind != "text" or row.deleted_at is not None:
        raise NoSuchMessage("only texts of your own that were not deleted can be edited")
    db.execute("UPDATE messages SET text = ?, edited_at = ? WHERE id = ?", (text, now, message))
    _tell(db, row, "edit")
    feed.add(db, now, Kind.EDITED, contact=row.contact, message=message)


def delete(db: sqlite3.Connection, now: int, message: int, *, for_both: bool) -> None:
    """Delete a message here; with `for_both`, which only ours can be, at its recipient too.

    Raises:
        NoSuchMessage: there is none, or it is theirs and was to be deleted for both.
    """
    row = get(db, message)
    if for_both and not row.outgoing:
        raise NoSuchMessage("only messages of your own can be deleted for both")
    if row.deleted_at is None:
        _erase(db, now, row)
    if for_both:
        _tell(db, row, "delete")
    else:
        # A deletion for both that still waits is not taken back by another one here.
        db.execute("DELETE FROM changes WHERE message = ? AND kind != 'delete'", (message,))


def mark_read(db: sqlite3.Connection, now: int, contact: int, up_to: int, *, since: int = 0, tell: bool = True) -> int:
    """Mark a contact's messages up to a row, or those from `since` to it, as seen by us; with `tell`, say so to them.
    Returns how many were new."""
    rows = db.execute(
        "UPDATE messages SET read_at = ?, state = ? WHERE contact = ? AND outgoing = 0 AND read_at IS NULL"
        " AND id BETWEEN ? AND ? RETURNING id, kind, deleted_at",
        (now, State.READ, contact, since, up_to),
    ).fetchall()
    for row in rows:
        if tell and row[1] != "call" and row[2] is None:
            db.execute("INSERT OR IGNORE INTO changes (message, kind) VALUES (?, 'read')", (row[0],))
    if rows:
        feed.add(db, now, Kind.STATE, contact=contact, message=max(row[0] for row in rows), detail="read")
    return len(rows)


# --- What they say ----------------------------------------------------------------------------------------------------


def receive(
    db: sqlite3.Connection, now: int, contact: int, uuid: bytes, text: str, kind: MessageKind = "text"
) -> MessageRow | None:
    """Keep a message of theirs; None if it was here before, also if it was deleted since.

    Raises:
        NoSuchContact: the contact is gone.
    """
    if db.execute("SELECT 1 FROM messages WHERE contact = ? AND outgoing = 0 AND uuid = ?", (contact, uuid)).fetchone():
        return None
    contacts.check(db, contact)
    return _insert(db, now, contact, uuid, text, kind, outgoing=False, state=State.DELIVERED)


def receive_edit(db: sqlite3.Connection, now: int, contact: int, nonce: bytes, uuid: bytes, text: str) -> bool:
    """Take other words for a text of theirs; False if there is no such message (yet): it must be told again.

    Only its author can change a message, and each packet does so once. What is no text has no words: nothing happens.
    """
    if not first_time(db, contact, nonce):
        return True
    row = _theirs(db, contact, uuid)
    if row is None:
        # Nothing happened, so the nonce is not used up: the same packet may come again once the text is here.
        db.execute("DELETE FROM nonces WHERE contact = ? AND nonce = ?", (contact, nonce))
        return False
    if row.kind == "text" and row.deleted_at is None and row.text != text:
        db.execute("UPDATE messages SET text = ?, edited_at = ? WHERE id = ?", (text, now, row.id))
        feed.add(db, now, Kind.EDITED, contact=contact, message=row.id)
    return True


def receive_delete(db: sqlite3.Connection, now: int, contact: int, nonce: bytes, uuid: bytes) -> None:
    """Take a message of theirs back. One that is not here is remembered as deleted, should it come later."""
    if not first_time(db, contact, nonce):
        return
    row = _theirs(db, contact, uuid)
    if row is None:
        db.execute(
            "INSERT INTO messages (contact, uuid, outgoing, kind, text, at, state, read_at, deleted_at)"
            " VALUES (?, ?, 0, 'text', '', ?, ?, ?, ?)",
            (contact, uuid, now, State.DELIVERED, now, now),
        )
    elif row.deleted_at is None:
        _erase(db, now, row)


def forget(db: sqlite3.Connection, now: int, message: int) -> None:
    """Remove a message as if it had never come: another one takes its place."""
    row = get(db, message)
    db.execute("DELETE FROM messages WHERE id = ?", (message,))
    feed.add(db, now, Kind.DELETED, contact=row.contact, message=message)


def first_time(db: sqlite3.Connection, contact: int, nonce: bytes) -> bool:
    """Remember the nonce of a packet; False if it was remembered before, so that what it asks for was done.

    A relay can hand an old packet over again, and it opens as well as it did the first time.

    Raises:
        NoSuchContact: the contact is gone.
    """
    contacts.check(db, contact)
    return bool(db.execute("INSERT OR IGNORE INTO nonces VALUES (?, ?)", (contact, nonce)).rowcount)


def remembered(db: sqlite3.Connection, contact: int, nonce: bytes) -> bool:
    """Tell whether :func:`first_time` was told of this nonce."""
    return bool(db.execute("SELECT 1 FROM nonces WHERE contact = ? AND nonce = ?", (contact, nonce)).fetchone())


# --- What is read of it -----------------------------------------------------------------------------------------------


def get(db: sqlite3.Connection, message: int) -> MessageRow:
    """Return a message by its row.

    Raises:
        NoSuchMessage: there is none.
    """
    row = db.execute(f"SELECT {COLUMNS} FROM messages m WHERE id = ?", (message,)).fetchone()  # noqa: S608
    if row is None:
        raise NoSuchMessage(f"there is no message {message}")
    return message_row(row)


def history(
    db: sqlite3.Connection, contact: int, *, before: int | None = None, after: int | None = None, limit: int = PAGE
) -> list[MessageRow]:
    """Return messages with a contact, the oldest first: the last ones, those before a row, or the first after one."""
    order = "ASC" if after is not None else "DESC"
    rows = db.execute(
        f"SELECT {COLUMNS} FROM messages m WHERE contact = ? AND id < ? AND id > ? ORDER BY id {order} LIMIT ?",  # noqa: S608
        (contact, 2**62 if before is None else before, after or 0, limit),
    ).fetchall()
    found = [message_row(row) for row in rows]
    return found if after is not None else found[::-1]


def received(db: sqlite3.Connection, contact: int, *, after: int = 0, limit: int = PAGE) -> list[MessageRow]:
    """Return a contact's messages after a row, the oldest first, without those that were deleted."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM messages m WHERE contact = ? AND id > ? AND outgoing = 0 AND deleted_at IS NULL"  # noqa: S608
        " ORDER BY id LIMIT ?",
        (contact, after, limit),
    )
    return [message_row(row) for row in rows]


def search(
    db: sqlite3.Connection, words: str, *, contact: int | None = None, limit: int = PAGE, before: int | None = None
) -> list[MessageRow]:
    """Return the newest messages that hold all of these words or beginnings of words, the newest first.

    Case and accents do not matter. See :mod:`peers.store.words` for signs and for scripts without spaces.
    """
    query, literals = wanted(words)
    if not query and not literals:
        return []
    tables = "messages_text t JOIN messages m ON m.id = t.rowid" if query else "messages m"
    conditions = ["m.id < ?", "m.deleted_at IS NULL"]
    values: list[str | int] = [2**62 if before is None else before]
    if query:
        conditions += ["messages_text MATCH ?", "t.rowid < ?"]
        values += [query, values[0]]
    if contact is not None:
        conditions.append("m.contact = ?")
        values.append(contact)
    conditions += ["instr(lower(m.text), ?) > 0"] * len(literals)
    order = "t.rowid" if query else "m.id"
    rows = db.execute(
        f"SELECT {COLUMNS} FROM {tables} WHERE {' AND '.join(conditions)} ORDER BY {order} DESC LIMIT ?",  # noqa: S608
        (*values, *literals, limit),
    ).fetchall()
    return [message_row(row) for row in rows]


def unread(db: sqlite3.Connection) -> dict[int, int]:
    """Return how many messages each contact wrote that nobody has seen here."""
    return dict(
        db.execute("SELECT contact, count(*) FROM messages WHERE outgoing = 0 AND read_at IS NULL GROUP BY contact")
    )


def unacknowledged(db: sqlite3.Connection) -> int:
    """Return how many messages of ours wait for their acknowledgement."""
    (count,) = db.execute(
        "SELECT count(*) FROM messages WHERE outgoing = 1 AND state < 2 AND deleted_at IS NULL"
    ).fetchone()
    return int(count)


def first_unread(db: sqlite3.Connection, contact: int) -> int | None:
    """Return the oldest message of a contact that nobody has seen here."""
    row = db.execute(
        "SELECT min(id) FROM messages WHERE contact = ? AND outgoing = 0 AND read_at IS NULL", (contact,)
    ).fetchone()
    return None if row[0] is None else int(row[0])


def latest(db: sqlite3.Connection) -> dict[int, MessageRow]:
    """Return the last message with each contact."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM messages m WHERE id IN (SELECT max(id) FROM messages GROUP BY contact)"  # noqa: S608
    )
    return {row[1]: message_row(row) for row in rows}


# --- Within ----------------------------------------------------------------------------------------------------------


def _insert(
    db: sqlite3.Connection,
    now: int,
    contact: int,
    uuid: bytes,
    text: str,
    kind: MessageKind,
    *,
    outgoing: bool,
    state: State,
) -> MessageRow:
    row = db.execute(
        "INSERT INTO messages (contact, uuid, outgoing, kind, text, at, state, delivered_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (contact, uuid, outgoing, kind, text, now, state, None if outgoing else now),
    ).fetchone()
    feed.add(db, now, Kind.MESSAGE, contact=contact, message=row[0])
    return get(db, row[0])


def _theirs(db: sqlite3.Connection, contact: int, uuid: bytes) -> MessageRow | None:
    row = db.execute(
        f"SELECT {COLUMNS} FROM messages m WHERE contact = ? AND outgoing = 0 AND uuid = ?",  # noqa: S608
        (contact, uuid),
    ).fetchone()
    return None if row is None else message_row(row)


def _erase(db: sqlite3.Connection, now: int, row: MessageRow) -> None:
    db.execute(
        "UPDATE messages SET text = '', deleted_at = ?, read_at = CASE WHEN outgoing THEN read_at ELSE"
        " coalesce(read_at, ?) END WHERE id = ?",
        (now, now, row.id),
    )
    if row.kind == "file":
        file_rows.abandon(db, now, row.id)
    feed.add(db, now, Kind.DELETED, contact=row.contact, message=row.id)


def _tell(db: sqlite3.Connection, row: MessageRow, kind: Literal["edit", "delete"]) -> None:
    if not _exposed(db, row.id):
        return  # it never left us, so the peer cannot have it: it goes out as it is now, or not at all
    # A deletion is never undone by a later edit, for what is deleted cannot be edited. The revision is a new one, also
    # if the change before was settled: a second answer to that one may still be on its way.
    db.execute("REPLACE INTO changes (message, kind) VALUES (?, ?)", (row.id, kind))


def _exposed(db: sqlite3.Connection, message: int) -> bool:
    return bool(db.execute("SELECT exposed FROM messages WHERE id = ?", (message,)).fetchone()[0])
