"""Files, for programs: what a person can do with them. How they come and go is :mod:`peers.carrier`'s part."""

import mimetypes
import sqlite3
from collections.abc import Callable
from pathlib import Path

from keys.primitives import random_bytes
from peers.store import file_rows, file_steps, messages
from peers.store.errors import BadFile
from peers.store.file_rows import PROGRESS, FileRow, FileState, content_path, get, list_of
from peers.store.names import safe_mime, safe_name
from peers.store.saving import save
from peers.store.sources import look_at
from wire.peer_commands import CHUNK_SIZE, CancelReason

__all__ = [
    "PROGRESS",
    "FileRow",
    "FileState",
    "accept",
    "cancel",
    "content_path",
    "get",
    "list_of",
    "offer",
    "refuse",
    "safe_name",
    "save",
]


def offer(
    db: sqlite3.Connection,
    now: int,
    contact: int,
    path: Path,
    *,
    name: str | None = None,
    mime: str | None = None,
    random: Callable[[int], bytes] = random_bytes,
) -> FileRow:
    """Write a message that is a file, to be offered as soon as can be. The file stays where it is and is read there:
    if it is changed or removed before all of it arrived, the message fails.

    Args:
        db: the store.
        now: the time.
        contact: who is to have it.
        path: a regular file that we can read, of at most 1 TiB; symbolic links are followed, once, now.
        name: another name to give it than its own.
        mime: its media type, else guessed by its name.
        random: gives the ids.

    Raises:
        BadFile: it cannot be sent.
        NoSuchContact: the contact is gone.
        Blocked: we blocked them.
    """
    source = look_at(path)
    # A name that is no UTF-8 reaches us with surrogates in it.
    shown = safe_name((path.name if name is None else name).encode(errors="replace").decode())
    kind = mime or mimetypes.guess_type(shown)[0] or ""
    try:
        text_path = str(source.path)
        text_path.encode()
    except UnicodeEncodeError:
        raise BadFile("the path of the file is no UTF-8: rename it or its directory") from None
    message = messages.compose(db, now, contact, shown, kind="file", random=random)
    db.execute(
        "INSERT INTO files (message, contact, outgoing, file_id, mime, size, chunk, pull, source, stamp, state, ended)"
        " VALUES (?, ?, 1, ?, ?, ?, ?, 1, ?, ?, 'offered', 1)",
        (
            message.id,
            contact,
            messages.uuid(random),
            safe_mime(kind),
            source.size,
            CHUNK_SIZE,
            text_path,
            source.stamp,
        ),
    )
    row = get(db, message.id)
    file_rows.note(db, now, row, "offered")
    return row


def accept(db: sqlite3.Connection, now: int, message: int) -> FileRow:
    """Say yes to a file that waits for it. One that is wanted already, or here, stays as it is.

    Raises:
        NoSuchMessage: that message is no file.
        BadFile: it is ours, or it failed.
    """
    row = get(db, message)
    if row.outgoing:
        raise BadFile("that file is your own")
    if row.state == "failed":
        raise BadFile(f"that file will not come ({row.why}): its sender has to send it again")
    if row.state == "offered":
        file_steps.start(db, now, row)
    return get(db, message)


def refuse(db: sqlite3.Connection, now: int, message: int) -> None:
    """Say no to a file of theirs, also while it comes. Its sender is told.

    Raises:
        NoSuchMessage: that message is no file.
        BadFile: it is ours, or not open any more.
    """
    row = get(db, message)
    if row.outgoing:
        raise BadFile("that file is your own: cancel it")
    if not file_steps.fail(db, now, message, CancelReason.REFUSED, tell=True):
        raise BadFile(f"too late: that file is {row.state}")


def cancel(db: sqlite3.Connection, now: int, message: int) -> None:
    """Stop a file, whoever sends it. The other side is told.

    Raises:
        NoSuchMessage: that message is no file.
        BadFile: it is not open any more.
    """
    row = get(db, message)
    if not row.outgoing:
        refuse(db, now, message)
    elif not file_steps.fail(db, now, message, CancelReason.GIVEN_UP, tell=True):
        raise BadFile(f"too late: that file is {row.state}")
