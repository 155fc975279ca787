"""Files as the store has them: one row for each message of kind ``file``.

    ours     offered ──▶ moving ──▶ done          theirs   (offered ──▶) moving ──▶ done
                └───────────┴─────▶ failed                     └───────────┴─────▶ failed

Ours is *offered* until its recipient asks for it (or is sent it unasked) and *done* when they acknowledge it. Theirs is
*offered* while nobody here has said that it is wanted, and *done* when it is whole on this disk.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from peers.store import feed
from peers.store.errors import NoSuchMessage
from peers.store.feed import Kind
from wire.peer_commands import CancelReason

FileState = Literal["offered", "moving", "done", "failed"]
PROGRESS: Final = "progress"
"""Detail of a feed event for a file that moved on; at each change of state it is the new state."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file.

    Attributes:
        message: the row of its message.
        contact: whose it is, or who is to have it.
        outgoing: it is ours.
        file_id: 16 bytes, drawn by its author.
        uuid: of the message (16 bytes); of a foreign file that has not ended, one of our making.
        name: fit to be shown, and to be the name of a file; empty once the message was deleted.
        mime: a media type; its author says so, and nothing was checked.
        size: bytes.
        chunk: bytes in a chunk; None while that is unknown.
        digest: BLAKE3 of the whole (32 bytes), or None.
        pull: its receiver asks for chunks.
        source: ours: the path from which it is read.
        stamp: ours: what tells that the file there is still the one offered.
        have: theirs: the chunks that are on disk (:class:`peers.store.chunks.Chunks`).
        moved: bytes that were sent, or came.
        state: how far it is.
        reason: why it failed (:class:`wire.peer_commands.CancelReason`), or None.
        tries: how often the whole was tried and did not come about.
        ended: theirs: `uuid` is its author's.
    """

    message: int
    contact: int
    outgoing: bool
    file_id: bytes
    uuid: bytes
    name: str
    mime: str
    size: int
    chunk: int | None
    digest: bytes | None
    pull: bool
    source: str | None
    stamp: str | None
    have: bytes | None
    moved: int
    state: FileState
    reason: int | None
    tries: int
    ended: bool

    @property
    def open(self) -> bool:
        """Whether it may still arrive."""
        return self.state in ("offered", "moving")

    @property
    def why(self) -> str:
        """Why it failed, in a few words for people; empty unless it did."""
        if self.state != "failed":
            return ""
        return _WHY[CancelReason(self.reason or CancelReason.GIVEN_UP)]

    def __repr__(self) -> str:
        return f"FileRow({self.message})"


_WHY: Final = {
    CancelReason.GIVEN_UP: "given up: it was stopped, or nothing came any more",
    CancelReason.SOURCE_CHANGED: "the file was changed or removed before all of it was sent",
    CancelReason.CORRUPT: "what came is not what was offered",
    CancelReason.NO_ROOM: "no room on the receiver's disk",
    CancelReason.REFUSED: "refused by the receiver",
    CancelReason.UNKNOWN_FILE: "its sender does not know it any more",
}

_SELECT: Final = (
    "SELECT f.message, f.contact, f.outgoing, f.file_id, m.uuid, m.text AS name, f.mime, f.size, f.chunk, f.digest,"
    " f.pull, f.source, f.stamp, f.have, f.moved, f.state, f.reason, f.tries, f.ended"
    " FROM files f JOIN messages m ON m.id = f.message"
)


def select(db: sqlite3.Connection, where: str, *arguments: object) -> list[FileRow]:
    """Return files by a condition, which is text of ours alone (``f`` the file, ``m`` its message)."""
    return [
        FileRow(**{**dict(r), "outgoing": bool(r["outgoing"]), "pull": bool(r["pull"]), "ended": bool(r["ended"])})
        for r in db.execute(f"{_SELECT} WHERE {where}", arguments)
    ]


def get(db: sqlite3.Connection, message: int) -> FileRow:
    """Return a file by the row of its message.

    Raises:
        NoSuchMessage: there is none.
    """
    found = select(db, "f.message = ?", message)
    if not found:
        raise NoSuchMessage(f"message {message} is no file")
    return found[0]


def find(db: sqlite3.Connection, contact: int, file_id: bytes, *, outgoing: bool) -> FileRow | None:
    """Return a file by the id that its author gave it."""
    found = select(db, "f.contact = ? AND f.outgoing = ? AND f.file_id = ?", contact, outgoing, file_id)
    return found[0] if found else None


def list_of(
    db: sqlite3.Connection,
    contact: int | None = None,
    *,
    open_only: bool = False,
    limit: int = 200,
    before: int | None = None,
) -> list[FileRow]:
    """Return files that were not deleted, of one contact or of all, the oldest first: the last ones, or the last before
    a message."""
    rows = select(
        db,
        "(?1 IS NULL OR f.contact = ?1) AND (NOT ?2 OR f.state IN ('offered', 'moving')) AND m.deleted_at IS NULL"
        " AND f.message < ?3 ORDER BY f.message DESC LIMIT ?4",
        contact,
        open_only,
        2**62 if before is None else before,
        limit,
    )
    return rows[::-1]


def content_name(message: int) -> str:
    """Return the name of a stored file: 16 hex digits, the number of its message.

    Nothing of it is the peer's, so no peer can choose where anything is written. It is not the contact's row either,
    which the next contact may get when this one is removed.
    """
    return f"{message:016x}"


def part_name(message: int) -> str:
    """Return the name under which it lies while it is not whole."""
    return content_name(message) + ".part"


def content_path(files_dir: Path, row: FileRow) -> Path:
    """Return where a file can be read: a received one in the profile, one of ours where it was offered from. It may be
    gone from there; a received one is whole if its state is ``done``."""
    if row.outgoing:
        return Path(row.source or "")
    return files_dir / content_name(row.message)


def abandon(db: sqlite3.Connection, now: int, message: int) -> None:
    """The message of a file is deleted: what still runs ends, and a stored file is to go."""
    row = get(db, message)
    if not row.outgoing:
        discard(db, message)
    if row.open:
        reason = CancelReason.GIVEN_UP if row.outgoing else CancelReason.REFUSED
        set_failed(db, now, row, reason, tell=True)


def discard(db: sqlite3.Connection, message: int) -> None:
    """Have the stored file of a message removed by whoever carries (see :func:`to_discard`)."""
    db.execute("INSERT OR IGNORE INTO discarded (message) VALUES (?)", (message,))


def to_discard(db: sqlite3.Connection) -> list[int]:
    """Return the messages whose stored files are to be removed."""
    return [row[0] for row in db.execute("SELECT message FROM discarded")]


def discarded(db: sqlite3.Connection, messages: list[int]) -> None:
    """Write down that these stored files are gone."""
    db.executemany("DELETE FROM discarded WHERE message = ?", [(message,) for message in messages])


def set_failed(db: sqlite3.Connection, now: int, row: FileRow, reason: int, *, tell: bool) -> None:
    """Write a failure into the row alone; :func:`peers.store.file_steps.fail` is what also ends the message."""
    db.execute(
        "UPDATE files SET state = 'failed', reason = ?, have = NULL,"
        # Who was never told of a file need not be told that it will not come.
        " tell = ? AND (outgoing = 0 OR (SELECT exposed FROM messages WHERE id = message)) WHERE message = ?",
        (reason, tell, row.message),
    )
    note(db, now, row, "failed")


def note(db: sqlite3.Connection, now: int, row: FileRow, detail: str) -> None:
    """Tell those who follow the feed."""
    feed.add(db, now, Kind.FILE, contact=row.contact, message=row.message, detail=detail)
