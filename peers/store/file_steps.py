"""The steps of a transfer, as whoever carries writes them down (:mod:`peers.carrier`)."""

import sqlite3
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from peers.store import contacts, file_rows, messages, unsettled
from peers.store.chunks import count
from peers.store.file_rows import PROGRESS, FileRow, note, select
from peers.store.message_rows import State
from peers.store.names import safe_mime, safe_name
from wire.peer_commands import CancelReason, FileOffer

OFFERS: Final = 32
"""Files of one contact that may be open here, and as many of ours are offered to one at a time: a peer whom we know can
not make us hold more than this unfinished."""
CHUNK_MIN: Final = 1024
"""Least bytes in a chunk, unless the file has one only: what costs a packet each has to be worth it."""
CHUNKS_MAX: Final = 1 << 25
"""Most chunks of a file: 1 TiB of 32 KiB."""


# --- Ours -------------------------------------------------------------------------------------------------------------


def to_digest(db: sqlite3.Connection) -> FileRow | None:
    """Return the first file of ours whose digest is not known yet."""
    found = select(
        db,
        "f.outgoing = 1 AND f.state = 'offered' AND f.digest IS NULL AND m.deleted_at IS NULL"
        " ORDER BY f.message LIMIT 1",
    )
    return found[0] if found else None


def digested(db: sqlite3.Connection, message: int, digest: bytes) -> None:
    """Write down the digest of a file of ours: it can be offered now."""
    db.execute("UPDATE files SET digest = ? WHERE message = ?", (digest, message))


def to_offer(db: sqlite3.Connection, contact: int) -> list[FileRow]:
    """Return the files of ours that a contact is to know of and has not acknowledged, the oldest first."""
    return select(
        db,
        "f.outgoing = 1 AND f.state IN ('offered', 'moving') AND f.contact = ? AND f.digest IS NOT NULL"
        f" AND m.deleted_at IS NULL ORDER BY f.message LIMIT {OFFERS}",
        contact,
    )


def wanted(db: sqlite3.Connection, now: int, contact: int, file_id: bytes, *, some: bool) -> FileRow | None:
    """Return the file of ours that its recipient asks for; with `some`, for a part of it, so that it moves now."""
    row = file_rows.find(db, contact, file_id, outgoing=True)
    if row is None or not some or row.state != "offered":
        return row
    db.execute("UPDATE files SET state = 'moving' WHERE message = ?", (row.message,))
    note(db, now, row, "moving")
    return file_rows.get(db, row.message)


def pushing(db: sqlite3.Connection, now: int, message: int, most: int) -> FileRow | None:
    """Return a file of ours that is now sent unasked, from its beginning; None if that is over, or was tried too often
    (then it failed)."""
    row = _still(db, message)
    if row is None:
        return None
    if row.tries >= most:
        fail(db, now, message, CancelReason.GIVEN_UP, tell=True)
        return None
    db.execute("UPDATE files SET state = 'moving', tries = tries + 1, moved = 0 WHERE message = ?", (message,))
    note(db, now, row, "moving")
    return file_rows.get(db, message)


def sent(db: sqlite3.Connection, now: int, message: int, moved: int) -> bool:
    """Write down how far a file of ours is; False if it is not to be sent any more."""
    row = _still(db, message)
    if row is None:
        return False
    if row.moved != moved:
        db.execute("UPDATE files SET moved = ? WHERE message = ?", (moved, message))
        note(db, now, row, PROGRESS)
    return True


def acknowledged(db: sqlite3.Connection, now: int, contact: int, uuid: bytes, *, read: bool = False) -> int | None:
    """Take an acknowledgement as :func:`peers.store.unsettled.acknowledged`; returns the message if it is a file."""
    unsettled.acknowledged(db, now, contact, uuid, read=read)
    found = select(db, "m.contact = ? AND m.outgoing = 1 AND m.uuid = ?", contact, uuid)
    if not found:
        return None
    row = found[0]
    if row.open:
        db.execute("UPDATE files SET state = 'done', moved = size WHERE message = ?", (row.message,))
        note(db, now, row, "done")
    return row.message


# --- Theirs -----------------------------------------------------------------------------------------------------------


class Taken(Enum):
    """What came of an offer."""

    NEW = auto()
    """It is in the store now."""
    KNOWN = auto()
    """It was here before."""
    REFUSED = auto()
    """It is not kept: too many are open, or it makes no sense."""
    GONE = auto()
    """Its author took the message back before it came: as good as delivered."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is taken without asking anybody.

    Attributes:
        auto_accept: bytes of a file; from somebody who introduced themselves and whom we never answered, of all.
        room: bytes of the disk that files may still use.
    """

    auto_accept: int
    room: int


def receive_offer(
    db: sqlite3.Connection, now: int, contact: int, nonce: bytes, offer: FileOffer, policy: Policy
) -> tuple[Taken, FileRow | None]:
    """Keep an offer of theirs; it is wanted at once if `policy` says so. By its file id it is kept once.

    What a person could still say yes to waits as ``offered`` if it is pulled. What comes unasked cannot wait.
    """
    if not contacts.exists(db, contact):
        return Taken.REFUSED, None
    pull = offer.pull
    known = file_rows.find(db, contact, offer.file_id, outgoing=False)
    if known is not None:
        return Taken.KNOWN, _revived(db, now, known, nonce, policy)
    if pull is not None:
        if not sound(offer.size, pull.chunk):
            return Taken.REFUSED, None
        message = db.execute(
            "SELECT deleted_at FROM messages WHERE contact = ? AND outgoing = 0 AND uuid = ?", (contact, pull.uuid)
        ).fetchone()
        if message is not None:
            return (Taken.REFUSED if message[0] is None else Taken.GONE), None
    (still_open,) = db.execute(
        "SELECT count(*) FROM files WHERE contact = ? AND outgoing = 0 AND state IN ('offered', 'moving')", (contact,)
    ).fetchone()
    if still_open >= OFFERS:
        return Taken.REFUSED, None
    uuid = messages.uuid() if pull is None else pull.uuid
    kept = messages.receive(db, now, contact, uuid, safe_name(offer.name), "file")
    if kept is None:
        raise AssertionError("a uuid that was looked for is here all the same")
    db.execute(
        "INSERT INTO files (message, contact, outgoing, file_id, mime, size, chunk, digest, pull, state, ended)"
        " VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, 'offered', ?)",
        (
            kept.id,
            contact,
            offer.file_id,
            safe_mime(offer.mime),
            offer.size,
            None if pull is None else pull.chunk,
            None if pull is None else pull.digest,
            pull is not None,
            pull is not None,
        ),
    )
    messages.first_time(db, contact, nonce)
    return Taken.NEW, _judged(db, now, file_rows.get(db, kept.id), policy)


def sound(size: int, chunk: int) -> bool:
    """Tell whether a file can be taken in chunks of so many bytes."""
    return chunk >= 1 and (size <= chunk or (chunk >= CHUNK_MIN and count(size, chunk) <= CHUNKS_MAX))


def _judged(db: sqlite3.Connection, now: int, row: FileRow, policy: Policy) -> FileRow:
    if row.size + _taken_before(db, row) > policy.auto_accept:
        if row.pull:
            note(db, now, row, "offered")
        else:
            fail(db, now, row.message, CancelReason.REFUSED, tell=True)
    elif row.size > policy.room:
        fail(db, now, row.message, CancelReason.NO_ROOM, tell=True)
    else:
        start(db, now, row)
    return file_rows.get(db, row.message)


def _taken_before(db: sqlite3.Connection, row: FileRow) -> int:
    """Bytes that a stranger has put on this disk: whoever knows our id can introduce themselves."""
    contact = contacts.get(db, row.contact)
    if contact.origin != "introduction" or contact.verified:
        return 0
    if db.execute("SELECT 1 FROM messages WHERE contact = ? AND outgoing = 1 LIMIT 1", (row.contact,)).fetchone():
        return 0
    (taken,) = db.execute(
        "SELECT coalesce(sum(size), 0) FROM files WHERE contact = ? AND outgoing = 0 AND state IN ('moving', 'done')",
        (row.contact,),
    ).fetchone()
    return int(taken)


def _revived(db: sqlite3.Connection, now: int, row: FileRow, nonce: bytes, policy: Policy) -> FileRow:
    """One that comes unasked and was given up here is taken when its author sends it again: they cannot know. A packet
    that is handed over again revives nothing."""
    given_up = row.state == "failed" and row.reason in (CancelReason.GIVEN_UP, CancelReason.NO_ROOM)
    if row.pull or not given_up or not messages.first_time(db, row.contact, nonce):
        return row
    if messages.get(db, row.message).deleted_at is not None:
        return row
    db.execute(
        "UPDATE files SET state = 'offered', reason = NULL, tell = 0, moved = 0 WHERE message = ?", (row.message,)
    )
    file_rows.discarded(db, [row.message])
    return _judged(db, now, row, policy)


def start(db: sqlite3.Connection, now: int, row: FileRow) -> None:
    """A file of theirs is wanted."""
    db.execute("UPDATE files SET state = 'moving' WHERE message = ?", (row.message,))
    note(db, now, row, "moving")


def to_receive(db: sqlite3.Connection) -> list[FileRow]:
    """Return the files of theirs that are wanted and not whole, the oldest first."""
    return select(db, "f.outgoing = 0 AND f.state = 'moving' ORDER BY f.message")


def came(
    db: sqlite3.Connection, now: int, message: int, have: bytes, moved: int, chunk: int | None, *, tell: bool
) -> bool:
    """Write down what of a file is on disk, and with `tell` say so in the feed; False if it is not wanted any more."""
    row = db.execute(
        "UPDATE files SET have = ?, moved = ?, chunk = ? WHERE message = ? AND state = 'moving' RETURNING contact",
        (have, moved, chunk, message),
    ).fetchone()
    if row is not None and tell:
        note(db, now, file_rows.get(db, message), PROGRESS)
    return row is not None


def from_the_start(db: sqlite3.Connection, message: int) -> None:
    """Forget what came of a file: it is not what was offered, or it is gone from the disk."""
    db.execute("UPDATE files SET have = NULL, moved = 0, tries = tries + 1 WHERE message = ?", (message,))


def whole(db: sqlite3.Connection, now: int, message: int) -> FileRow | None:
    """A file of theirs is whole on disk under its final name; None if it is not wanted any more."""
    found = select(db, "f.message = ? AND f.state = 'moving'", message)
    if not found:
        return None
    db.execute("UPDATE files SET state = 'done', have = NULL, moved = size WHERE message = ?", (message,))
    note(db, now, found[0], "done")
    return file_rows.get(db, message)


def ended(db: sqlite3.Connection, now: int, contact: int, file_id: bytes, uuid: bytes) -> FileRow | None:
    """Take the uuid of a file that came unasked; returns the file, or None if it is not known or not of that kind.

    A sender that does not know what arrived may offer a file again under another id: the newer one takes the place of
    the older unless that is whole.
    """
    row = file_rows.find(db, contact, file_id, outgoing=False)
    if row is None or row.pull or row.ended:
        return None if row is None or row.pull else row
    other = select(db, "m.contact = ? AND m.outgoing = 0 AND m.uuid = ?", contact, uuid)
    if other and other[0].state == "done":
        messages.forget(db, now, row.message)
        return other[0]
    if other:
        messages.forget(db, now, other[0].message)
    if db.execute("SELECT 1 FROM messages WHERE contact = ? AND outgoing = 0 AND uuid = ?", (contact, uuid)).fetchone():
        # A text has this uuid, or one that was taken back before it came.
        fail(db, now, row.message, CancelReason.REFUSED, tell=False)
        return None
    db.execute("UPDATE messages SET uuid = ? WHERE id = ?", (uuid, row.message))
    db.execute("UPDATE files SET ended = 1 WHERE message = ?", (row.message,))
    return file_rows.get(db, row.message)


# --- Both -------------------------------------------------------------------------------------------------------------


def fail(db: sqlite3.Connection, now: int, message: int, reason: int, *, tell: bool) -> bool:
    """End a file that is open; with `tell`, its other side is told. False if it was not open."""
    found = select(db, "f.message = ? AND f.state IN ('offered', 'moving')", message)
    if not found:
        return False
    row = found[0]
    file_rows.set_failed(db, now, row, reason, tell=tell)
    if row.outgoing:
        unsettled.mark_failed(db, now, message)
    else:
        file_rows.discard(db, message)
    return True


def cancelled(db: sqlite3.Connection, now: int, contact: int, nonce: bytes, file_id: bytes, reason: int) -> list[int]:
    """Take a FILE_CANCEL, about a file of theirs or of ours; returns the messages of what ended by it."""
    known = reason if reason in CancelReason.__members__.values() else CancelReason.GIVEN_UP
    found = select(db, "f.contact = ? AND f.file_id = ? AND f.state IN ('offered', 'moving')", contact, file_id)
    # A nonce is remembered for what had an effect: one that had none can be told again, to the same end.
    if not found or not messages.first_time(db, contact, nonce):
        return []
    return [row.message for row in found if fail(db, now, row.message, known, tell=False)]


def to_tell(db: sqlite3.Connection) -> list[FileRow]:
    """Return the files whose failure the other side is still to be told."""
    return select(db, "f.tell = 1")


def told(db: sqlite3.Connection, message: int) -> None:
    """Write down that it was told."""
    db.execute("UPDATE files SET tell = 0 WHERE message = ?", (message,))


def _still(db: sqlite3.Connection, message: int) -> FileRow | None:
    found = select(
        db,
        "f.message = ? AND f.outgoing = 1 AND f.state IN ('offered', 'moving')"
        " AND m.deleted_at IS NULL AND m.state < ?",
        message,
        State.DELIVERED,
    )
    return found[0] if found else None
