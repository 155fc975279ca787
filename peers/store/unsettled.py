"""What is not settled yet of messages: which are to be sent, and what a peer is still to be told about others."""

import sqlite3
from collections.abc import Iterable

from peers.store import feed
from peers.store.feed import Kind
from peers.store.message_rows import COLUMNS, ChangeRow, MessageRow, State, message_row


def to_send(db: sqlite3.Connection, contact: int, limit: int, *, after: int = 0) -> list[MessageRow]:
    """Return texts of ours that are not acknowledged, the oldest first. Deleted ones are not sent any more."""
    return [
        message_row(row)
        for row in db.execute(
            f"SELECT {COLUMNS} FROM messages m WHERE contact = ? AND outgoing = 1 AND state < 2"  # noqa: S608
            # Files are offered beside them (peers.store.file_steps): one that takes hours must not hold texts up.
            " AND deleted_at IS NULL AND kind != 'file' AND id > ? ORDER BY id LIMIT ?",
            (contact, after, limit),
        )
    ]


def newest_to_send(db: sqlite3.Connection, contact: int) -> MessageRow | None:
    """Return the newest message of ours to a contact that is not acknowledged."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM messages m WHERE contact = ? AND outgoing = 1 AND state < 2"  # noqa: S608
        " AND deleted_at IS NULL ORDER BY id DESC LIMIT 1",
        (contact,),
    ).fetchone()
    return None if row is None else message_row(row)


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
        ChangeRow(message_row(row), row[13], row[14], row[15])
        for row in db.execute(
            f"SELECT {COLUMNS}, c.kind, c.revision, c.tries FROM changes c"  # noqa: S608
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
            f"SELECT {COLUMNS} FROM messages m WHERE id = ? AND state < 2 AND deleted_at IS NULL",  # noqa: S608
            (message,),
        ).fetchone()
        if found is None:
            continue
        still[message] = message_row(found)
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
