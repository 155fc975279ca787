"""What was said: messages of both sides, their states, and what a peer is still to be told about them.

A message of ours goes QUEUED → SENT → DELIVERED → READ, and may fall back from SENT to QUEUED: the relay said that it
was not delivered. It is sent again until its DELIVERY_ACK comes. One of theirs is kept once, however often it comes:
its uuid is remembered even after it was deleted.
"""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from keys.primitives import random_bytes
from peers.store import contacts, feed, file_rows
from peers.store.errors import BadText, Blocked, NoSuchMessage
from peers.store.feed import Kind
from peers.store.words import wanted
from wire.peer_commands import TEXT_MAX, UUID_SIZE

MessageKind = Literal["text", "file", "call"]
PAGE: Final = 200
"""Messages that :func:`history` returns unless told otherwise."""


class State(IntEnum):
    """How far a message came."""

    QUEUED = 0
    """Ours: to be sent."""
    SENT = 1
    """Ours: given to the relay, and not acknowledged yet."""
    DELIVERED = 2
    """Ours: its recipient has it. Theirs: we have it."""
    READ = 3
    """Its recipient has seen it."""
    FAILED = 4
    """Ours: it will not be delivered (a file that is gone, or was refused)."""


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message as the store has it."""

    id: int
    contact: int
    uuid: bytes
    outgoing: bool
    kind: MessageKind
    text: str
    at: int
    state: State
    delivered_at: int | None
    read_at: int | None
    edited_at: int | None
    deleted_at: int | None
    left: int = 0
    """Ours: in how many mailboxes of its recipient it lies."""

    @property
    def standing(self) -> str:
        """How far it came, in a word: ``queued``, ``left`` (in a mailbox), ``sent``, ``delivered``, ``read`` or
        ``failed``."""
        return "left" if self.left and self.state < State.DELIVERED else self.state.name.lower()

    def __repr__(self) -> str:
        return f"MessageRow({self.id})"


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """What is still to be told about a message."""

    message: MessageRow
    kind: Literal["edit", "delete", "read"]
    revision: int
    tries: int


_COLUMNS: Final = (
    "m.id, m.contact, m.uuid, m.outgoing, m.kind, m.text, m.at, m.state,"
    " m.delivered_at, m.read_at, m.edited_at, m.deleted_at,"
    " (SELECT count(*) FROM parcels p WHERE p.message = m.id AND p.what = 'text' AND p.state = 'kept')"
)


def _row(row: sqlite3.Row) -> MessageRow:
    return MessageRow(row[0], row[1], row[2], bool(row[3]), row[4], row[5], row[6], State(row[7]), *row[8:13])


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


# --- What is to be sent -----------------------------------------------------------------------------------------------


def to_send(db: sqlite3.Connection, contact: int, limit: int, *, after: int = 0) -> list[MessageRow]:
    """Return texts of ours that are not acknowledged, the oldest first. Deleted ones are not sent any more."""
    return [
        _row(row)
        for row in db.execute(
            f"SELECT {_COLUMNS} FROM messages m WHERE contact = ? AND outgoing = 1 AND state < 2"  # noqa: S608
            # Files are offered beside them (peers.store.file_steps): one that takes hours must not hold texts up.
            " AND deleted_at IS NULL AND kind != 'file' AND id > ? ORDER BY id LIMIT ?",
            (contact, after, limit),
        )
    ]


def newest_to_send(db: sqlite3.Connection, contact: int) -> MessageRow | None:
    """Return the newest message of ours to a contact that is not acknowledged."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM messages m WHERE contact = ? AND outgoing = 1 AND state < 2"  # noqa: S608
        " AND deleted_at IS NULL ORDER BY id DESC LIMIT 1",
        (contact,),
    ).fetchone()
    return None if row is None else _row(row)


def contacts_to_send(db: sqlite3.Connection) -> set[int]:
    """Return the contacts for whom there is something to send."""
    return {
        row[0]
        for row in db.execute(
            # Asked at every turn, so it must not cost more for 100,000 messages than for one: one look into the index
            # for each contact, and (by CROSS JOIN) from the few changes to their messages, not the other way round.
            "SELECT id FROM contacts c WHERE EXISTS (SELECT 1 FROM messages INDEXED BY messages_to_send"
            " WHERE contact = c.id AND outgoing = 1 AND state < 2 AND deleted_at IS NULL)"
            " UNION SELECT messages.contact FROM changes CROSS JOIN messages ON messages.id = changes.message"
            " UNION SELECT contact FROM jobs"
        )
    }


def changes_to_send(db: sqlite3.Connection, contact: int, limit: int) -> list[ChangeRow]:
    """Return what is still to be told about messages that the peer has, or may have."""
    return [
        ChangeRow(_row(row), row[13], row[14], row[15])
        for row in db.execute(
            f"SELECT {_COLUMNS}, c.kind, c.revision, c.tries FROM changes c"  # noqa: S608
            " CROSS JOIN messages m ON m.id = c.message"
            # An edit of what is not acknowledged waits: the text itself, sent again, has the new words already, but
            # whether these or the old ones arrived only its acknowledgement can end.
            " WHERE m.contact = ? AND (c.kind != 'edit' OR m.state IN (2, 3))"
            # "Read" says "delivered": of a file that is not whole it would make its sender stop.
            " AND (c.kind != 'read' OR m.kind != 'file'"
            " OR EXISTS (SELECT 1 FROM files f WHERE f.message = m.id AND f.state = 'done')) ORDER BY m.id LIMIT ?",
            (contact, limit),
        )
    ]


def change_tries(db: sqlite3.Connection, message: int) -> int | None:
    """Return how often a change of a message was sent that is not settled; None if there is none."""
    row = db.execute("SELECT tries FROM changes WHERE message = ?", (message,)).fetchone()
    return None if row is None else int(row[0])


def mark_sent(db: sqlite3.Connection, now: int, messages: Iterable[int]) -> dict[int, MessageRow]:
    """Write down that messages leave us now. To be committed before they do: what was sent may have arrived.

    Returns those that are to be sent, as they are now: since they were looked for, one may have been acknowledged or
    deleted, or have got other words, of which nobody is told as it had not left us yet.
    """
    still = {}
    for message in messages:
        found = db.execute(
            f"SELECT {_COLUMNS} FROM messages m WHERE id = ? AND state < 2 AND deleted_at IS NULL",  # noqa: S608
            (message,),
        ).fetchone()
        if found is None:
            continue
        still[message] = _row(found)
        row = db.execute(
            "UPDATE messages SET state = 1, exposed = 1 WHERE id = ? AND outgoing = 1 AND state = 0 RETURNING contact",
            (message,),
        ).fetchone()
        if row is not None:
            feed.add(db, now, Kind.STATE, contact=row[0], message=message, detail="sent")
    return still


def mark_queued(db: sqlite3.Connection, now: int, messages: Iterable[int]) -> None:
    """Write down that messages did not arrive and wait again."""
    for message in messages:
        row = db.execute(
            "UPDATE messages SET state = 0 WHERE id = ? AND state = 1 RETURNING contact", (message,)
        ).fetchone()
        if row is not None:
            feed.add(db, now, Kind.STATE, contact=row[0], message=message, detail="queued")


def mark_failed(db: sqlite3.Connection, now: int, message: int) -> None:
    """Write down that a message of ours will not be delivered."""
    row = db.execute(
        "UPDATE messages SET state = 4 WHERE id = ? AND outgoing = 1 AND state < 2 RETURNING contact", (message,)
    ).fetchone()
    if row is not None:
        feed.add(db, now, Kind.STATE, contact=row[0], message=message, detail="failed")


def acknowledged(db: sqlite3.Connection, now: int, contact: int, uuid: bytes, *, read: bool = False) -> None:
    """Take a DELIVERY_ACK, or with `read` a READ_ACK, which says both. One for what we never said is ignored."""
    state = State.READ if read else State.DELIVERED
    row = db.execute(
        "UPDATE messages SET state = ?1, delivered_at = coalesce(delivered_at, ?2),"
        " read_at = CASE WHEN ?1 = 3 THEN ?2 END"
        # A failed file stays failed: its acknowledgement would be a lie of the peer's, or come from another attempt.
        " WHERE contact = ?3 AND outgoing = 1 AND uuid = ?4 AND state < ?1 RETURNING id",
        (state, now, contact, uuid),
    ).fetchone()
    if row is not None:
        feed.add(db, now, Kind.STATE, contact=contact, message=row[0], detail=state.name.lower())


def change_tried(db: sqlite3.Connection, message: int, revision: int) -> None:
    """Count that a change was sent."""
    db.execute("UPDATE changes SET tries = tries + 1 WHERE message = ? AND revision = ?", (message, revision))


def changes_settled(db: sqlite3.Connection, changes: Iterable[tuple[int, int]]) -> None:
    """Forget changes that arrived, ``(message, revision)``, but for those that were overtaken by others meanwhile."""
    db.executemany("DELETE FROM changes WHERE message = ? AND revision = ?", changes)


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
    row = db.execute(f"SELECT {_COLUMNS} FROM messages m WHERE id = ?", (message,)).fetchone()  # noqa: S608
    if row is None:
        raise NoSuchMessage(f"there is no message {message}")
    return _row(row)


def history(
    db: sqlite3.Connection, contact: int, *, before: int | None = None, after: int | None = None, limit: int = PAGE
) -> list[MessageRow]:
    """Return messages with a contact, the oldest first: the last ones, those before a row, or the first after one."""
    order = "ASC" if after is not None else "DESC"
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM messages m WHERE contact = ? AND id < ? AND id > ? ORDER BY id {order} LIMIT ?",  # noqa: S608
        (contact, 2**62 if before is None else before, after or 0, limit),
    ).fetchall()
    found = [_row(row) for row in rows]
    return found if after is not None else found[::-1]


def received(db: sqlite3.Connection, contact: int, *, after: int = 0, limit: int = PAGE) -> list[MessageRow]:
    """Return a contact's messages after a row, the oldest first, without those that were deleted."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM messages m WHERE contact = ? AND id > ? AND outgoing = 0 AND deleted_at IS NULL"  # noqa: S608
        " ORDER BY id LIMIT ?",
        (contact, after, limit),
    )
    return [_row(row) for row in rows]


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
        f"SELECT {_COLUMNS} FROM {tables} WHERE {' AND '.join(conditions)} ORDER BY {order} DESC LIMIT ?",  # noqa: S608
        (*values, *literals, limit),
    ).fetchall()
    return [_row(row) for row in rows]


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
        f"SELECT {_COLUMNS} FROM messages m WHERE id IN (SELECT max(id) FROM messages GROUP BY contact)"  # noqa: S608
    )
    return {row[1]: _row(row) for row in rows}


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
        f"SELECT {_COLUMNS} FROM messages m WHERE contact = ? AND outgoing = 0 AND uuid = ?",  # noqa: S608
        (contact, uuid),
    ).fetchone()
    return None if row is None else _row(row)


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
