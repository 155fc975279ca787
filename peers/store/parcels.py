"""Parcels: what is left for contacts in their mailboxes, one row for each copy.

A parcel goes WAITING → KEPT → DROPPING → gone. It waits with its sealed bytes, so that a repetition, also after a kill,
is the same deposit under the same secret, of which a mailbox holds one. It is dropped when what it says has arrived by
another way, or is to be said otherwise.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from peers.store import contacts, feed, mailboxes, owing
from peers.store.feed import Kind
from peers.store.message_rows import MessageRow, State
from peers.store.messages import get
from wire.mailbox_codes import Reason
from wire.peer_commands import PeerCommand
from wire.peer_mailboxes import Acks

What = Literal["text", "edit", "delete", "cards", "acks"]

WINDOW: Final = 64
"""Parcels for one contact that wait to be left in one mailbox: they hold their bytes, up to 256 KiB each."""
COPIES_MAX: Final = 12
"""Parcels of one message at a time, those that are being dropped included: a contact who names other mailboxes again
and again does not make us connect to ever more places."""
_DAY: Final = 24 * 3600 * 1000
_LONGEST: Final = 31 * _DAY
"""Milliseconds after which no mailbox holds a parcel any more: 30 days are the most, rounded up to the hour."""


@dataclass(frozen=True, slots=True)
class Todo:
    """Something to be left, in these mailboxes (rows)."""

    contact: int
    what: What
    revision: int
    mailboxes: tuple[int, ...]
    message: MessageRow | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A parcel that was sealed and is not in the store yet."""

    todo: Todo
    mailbox: int
    nonce: bytes
    secret: bytes = field(repr=False)
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A parcel with which something is to be done."""

    id: int
    contact: int
    mailbox: int
    what: What
    secret: bytes = field(repr=False)
    content: bytes | None = field(repr=False)
    tries: int
    dropping: bool
    token: bytes = field(default=b"", repr=False)
    """What the mailbox asks for, as its recipient last told."""


@dataclass(frozen=True, slots=True)
class Debt:
    """What is owed to one contact: acknowledgements, and the rows that are settled with them."""

    contact: int
    mailboxes: tuple[int, ...]
    acks: Acks
    owed: tuple[int, ...]
    changes: tuple[int, ...]


# --- What is to be left -----------------------------------------------------------------------------------------------

_ROOM: Final = (
    "b.place < ?1 AND c.blocked = 0 AND (SELECT count(*) FROM parcels w WHERE w.mailbox = b.mailbox"
    " AND w.contact = b.contact AND w.state = 'waiting') < ?2"
)


def any_places(db: sqlite3.Connection) -> bool:
    """Tell whether any contact has a mailbox, or anything lies in one."""
    return bool(
        db.execute("SELECT EXISTS (SELECT 1 FROM contact_mailboxes) OR EXISTS (SELECT 1 FROM parcels)").fetchone()[0]
    )


def texts(db: sqlite3.Connection, copies: int) -> list[Todo]:
    """Return texts that are not acknowledged and do not lie, as they are now, in each of the first `copies` mailboxes
    of their recipients; the oldest first. Of what is not to be left yet it is for the caller to see."""
    rows = db.execute(
        "SELECT m.id, b.mailbox, coalesce(m.edited_at, 0), 'text' FROM contact_mailboxes b"  # noqa: S608
        " JOIN contacts c ON c.id = b.contact"
        " CROSS JOIN messages m INDEXED BY messages_to_send ON m.contact = b.contact"
        f" WHERE {_ROOM} AND m.outgoing = 1 AND m.state < 2 AND m.deleted_at IS NULL AND m.kind = 'text'"
        " AND NOT EXISTS (SELECT 1 FROM parcels p WHERE p.message = m.id AND p.mailbox = b.mailbox"
        " AND p.what = 'text' AND p.revision = coalesce(m.edited_at, 0))"
        " AND (SELECT count(*) FROM parcels p WHERE p.message = m.id) < ?4 ORDER BY m.id, b.place LIMIT ?3",
        (copies, WINDOW, WINDOW * copies, COPIES_MAX),
    )
    return _of_messages(db, rows)


def changes(db: sqlite3.Connection, copies: int) -> list[Todo]:
    """Return edits and deletions that are not acknowledged, likewise."""
    rows = db.execute(
        "SELECT m.id, b.mailbox, h.revision, h.kind FROM changes h CROSS JOIN messages m ON m.id = h.message"  # noqa: S608
        " JOIN contacts c ON c.id = m.contact JOIN contact_mailboxes b ON b.contact = m.contact"
        f" WHERE {_ROOM} AND (h.kind = 'delete' OR (h.kind = 'edit' AND m.state IN (2, 3)))"
        " AND NOT EXISTS (SELECT 1 FROM parcels p WHERE p.message = m.id AND p.mailbox = b.mailbox"
        " AND p.what = h.kind AND p.revision = h.revision)"
        " AND (SELECT count(*) FROM parcels p WHERE p.message = m.id) < ?4 ORDER BY h.revision, b.place LIMIT ?3",
        (copies, WINDOW, WINDOW * copies, COPIES_MAX),
    )
    return _of_messages(db, rows)


def cards(db: sqlite3.Connection, copies: int) -> list[Todo]:
    """Return whom the list of our mailboxes is to be left for: those who do not know it, and those who may never have
    heard of us, to whom something is to be said."""
    number = mailboxes.serial(db)
    rows = db.execute(
        "SELECT b.contact, b.mailbox, 0, 'cards' FROM contact_mailboxes b JOIN contacts c ON c.id = b.contact"  # noqa: S608
        f" LEFT JOIN cards_told t ON t.contact = c.id WHERE {_ROOM} AND coalesce(t.settled, -1) < ?3"
        f" AND (?3 > 0 OR c.knows_us = 0) AND NOT ({mailboxes.STRANGER}) AND NOT EXISTS"
        " (SELECT 1 FROM parcels p WHERE p.contact = c.id AND p.mailbox = b.mailbox AND p.what = 'cards'"
        " AND p.revision = ?3) AND (c.knows_us = 1 OR EXISTS (SELECT 1 FROM messages m WHERE m.contact = c.id"
        " AND m.outgoing = 1)) ORDER BY b.contact, b.place",
        (copies, WINDOW, number),
    )
    return [Todo(contact, what, number, places) for contact, _, what, places in _grouped(rows)]


def debts(db: sqlite3.Connection, copies: int) -> list[Debt]:
    """Return what is owed to contacts who have mailboxes, and what they are to be told was read."""
    found = []
    for (contact,) in db.execute(
        "SELECT id FROM contacts c WHERE blocked = 0 AND EXISTS (SELECT 1 FROM contact_mailboxes b"  # noqa: S608
        f" WHERE b.contact = c.id) AND NOT ({mailboxes.STRANGER}) AND (EXISTS (SELECT 1 FROM owed o"
        " WHERE o.contact = c.id) OR EXISTS (SELECT 1 FROM changes h CROSS JOIN messages m ON m.id = h.message"
        " WHERE h.kind = 'read' AND m.contact = c.id))"
    ).fetchall():
        places = tuple(
            row[0]
            for row in db.execute(
                f"SELECT b.mailbox FROM contact_mailboxes b JOIN contacts c ON c.id = b.contact WHERE {_ROOM}"  # noqa: S608
                " AND b.contact = ?3 ORDER BY b.place",
                (copies, WINDOW, contact),
            )
        )
        debt = _debt(db, contact, places)
        if places and len(debt.acks):
            found.append(debt)
    return found


def _debt(db: sqlite3.Connection, contact: int, places: tuple[int, ...]) -> Debt:
    owed = owing.owed_to(db, contact)
    read = db.execute(
        "SELECT h.revision, m.uuid FROM changes h CROSS JOIN messages m ON m.id = h.message"
        " WHERE h.kind = 'read' AND m.contact = ? AND (m.kind != 'file'"
        " OR EXISTS (SELECT 1 FROM files f WHERE f.message = m.id AND f.state = 'done')) ORDER BY h.revision LIMIT ?",
        (contact, owing.TOGETHER),
    ).fetchall()
    acks = Acks(
        tuple(body for _, command, body in owed if command == PeerCommand.DELIVERY_ACK),
        tuple(row[1] for row in read),
        tuple(body for _, command, body in owed if command == PeerCommand.CHANGE_ACK),
    )
    return Debt(contact, places, acks, tuple(row[0] for row in owed), tuple(row[0] for row in read))


def _grouped(rows: Iterable[sqlite3.Row]) -> list[tuple[int, int, What, tuple[int, ...]]]:
    """Gather rows ``(of what, mailbox, revision, kind)`` by what they are of."""
    groups: dict[tuple[int, int, What], list[int]] = {}
    for of, mailbox, revision, what in rows:
        groups.setdefault((of, revision, what), []).append(mailbox)
    return [(*of, tuple(places)) for of, places in groups.items()]


def _of_messages(db: sqlite3.Connection, rows: Iterable[sqlite3.Row]) -> list[Todo]:
    found = []
    for message, revision, what, places in _grouped(rows):
        row = get(db, message)
        found.append(Todo(row.contact, what, revision, places, row))
    return found


def put(db: sqlite3.Connection, now: int, drafts: Iterable[Draft]) -> int:
    """Keep parcels that were sealed, but for those whose reason is gone meanwhile; returns how many.

    To be committed before any of them leaves: a message that may be with its recipient has to be known as such here.
    """
    count = 0
    for draft in drafts:
        todo = draft.todo
        if not (_still(db, todo) and _is_known(db, draft.mailbox)):
            continue
        if todo.what == "text" and todo.message is not None:
            db.execute("UPDATE messages SET exposed = 1 WHERE id = ?", (todo.message.id,))
        _insert(db, now, draft)
        count += 1
    return count


def put_debt(db: sqlite3.Connection, now: int, debt: Debt, drafts: Iterable[Draft]) -> None:
    """Keep parcels that pay a debt, which is settled by that, unless none of their mailboxes is known any more."""
    if not contacts.exists(db, debt.contact):
        return
    known = [draft for draft in drafts if _is_known(db, draft.mailbox)]
    if not known:
        return
    for draft in known:
        _insert(db, now, draft)
    db.executemany("DELETE FROM owed WHERE id = ?", [(each,) for each in debt.owed])
    db.executemany("DELETE FROM changes WHERE revision = ?", [(each,) for each in debt.changes])


def _insert(db: sqlite3.Connection, now: int, draft: Draft) -> None:
    todo = draft.todo
    message = None if todo.message is None else todo.message.id
    db.execute(
        "INSERT INTO parcels (contact, mailbox, message, what, revision, nonce, secret, content, state, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?)",
        (
            todo.contact,
            draft.mailbox,
            message,
            todo.what,
            todo.revision,
            draft.nonce,
            draft.secret,
            draft.content,
            now,
        ),
    )


def _is_known(db: sqlite3.Connection, mailbox: int) -> bool:
    # While it was sealed, the last contact who has it may have told of others.
    return db.execute("SELECT 1 FROM mailboxes WHERE id = ?", (mailbox,)).fetchone() is not None


def _still(db: sqlite3.Connection, todo: Todo) -> bool:
    if not contacts.exists(db, todo.contact):
        return False
    if todo.message is None:
        return todo.what == "cards" and mailboxes.serial(db) == todo.revision
    if todo.what == "text":
        row = get(db, todo.message.id)
        return row.state < State.DELIVERED and row.deleted_at is None and (row.edited_at or 0) == todo.revision
    return bool(db.execute("SELECT 1 FROM changes WHERE revision = ?", (todo.revision,)).fetchone())


# --- What is in their mailboxes ---------------------------------------------------------------------------------------


def settle(db: sqlite3.Connection, now: int) -> None:
    """Forget what has ended, and have dropped what is not to be had there any more."""
    db.execute(
        "DELETE FROM parcels WHERE (state IN ('kept', 'dropping') AND coalesce(expires_at, at + ?2) <= ?1)"
        " OR (what = 'acks' AND at + ?2 <= ?1)",
        (now, _LONGEST),
    )
    number = mailboxes.serial(db)
    done = (
        "(what = 'text' AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.id = message AND m.state < 2"
        " AND m.deleted_at IS NULL AND coalesce(m.edited_at, 0) = revision))"
        " OR (what IN ('edit', 'delete') AND NOT EXISTS (SELECT 1 FROM changes h WHERE h.revision = parcels.revision))"
        " OR (what = 'cards' AND (revision != ?1 OR EXISTS"
        " (SELECT 1 FROM cards_told t WHERE t.contact = parcels.contact AND t.settled >= revision)))"
        # They use this mailbox no longer: nobody would pick it up.
        " OR NOT EXISTS (SELECT 1 FROM contact_mailboxes b WHERE b.contact = parcels.contact"
        " AND b.mailbox = parcels.mailbox)"
    )
    # What was never sent cannot be there, and what was refused is not.
    db.execute(
        f"DELETE FROM parcels WHERE (state = 'refused' OR (state = 'waiting' AND tries = 0)) AND ({done})",  # noqa: S608
        (number,),
    )
    db.execute(
        "UPDATE parcels SET state = 'dropping', content = NULL, reason = NULL"  # noqa: S608
        f" WHERE state IN ('waiting', 'kept') AND ({done})",
        (number,),
    )


def busy(db: sqlite3.Connection) -> list[int]:
    """Return the mailboxes (rows) with which something is to be done."""
    return [row[0] for row in db.execute("SELECT DISTINCT mailbox FROM parcels WHERE state IN ('waiting', 'dropping')")]


def next_of(
    db: sqlite3.Connection, mailbox: int, but: frozenset[tuple[int, bytes]], rather: int | None = None
) -> Parcel | None:
    """Return the next parcel for a mailbox; none that waits for one of the contacts `but`, if the token with which
    that one stands there is the present one still, and one for the contact `rather` if there is any."""
    for row in db.execute(
        "SELECT p.id, p.contact, p.mailbox, what, secret, content, tries, state, coalesce(b.token, x'') FROM parcels p"
        " LEFT JOIN contact_mailboxes b ON b.contact = p.contact AND b.mailbox = p.mailbox"
        " WHERE p.mailbox = ? AND (state = 'dropping' OR (state = 'waiting'"
        " AND p.contact NOT IN (SELECT id FROM contacts WHERE blocked = 1))) ORDER BY p.contact IS NOT ?, p.id",
        (mailbox, rather),
    ):
        if row[7] == "dropping" or (row[1], row[8]) not in but:
            return Parcel(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7] == "dropping", row[8])
    return None


def tried(db: sqlite3.Connection, parcel: int) -> bool:
    """Count that a parcel leaves us now; False if it is not to be left any more."""
    found = db.execute(
        "UPDATE parcels SET tries = tries + 1 WHERE id = ? AND state = 'waiting' RETURNING id", (parcel,)
    ).fetchone()
    return found is not None


def kept(db: sqlite3.Connection, now: int, parcel: int, expires_at: int) -> None:
    """Write down that a mailbox has a parcel."""
    row = db.execute("SELECT message, contact, what, state FROM parcels WHERE id = ?", (parcel,)).fetchone()
    if row is None:
        return
    if row[2] == "acks":  # nobody answers these, and it does no harm that they lie there
        gone(db, parcel)
        return
    db.execute("UPDATE parcels SET content = NULL, expires_at = ? WHERE id = ?", (expires_at, parcel))
    if row[3] != "waiting":
        return
    db.execute("UPDATE parcels SET state = 'kept', reason = NULL WHERE id = ?", (parcel,))
    if row[2] == "text":
        feed.add(db, now, Kind.STATE, contact=row[1], message=row[0], detail="left")


def refused(db: sqlite3.Connection, parcel: int, reason: int, *, final: bool) -> None:
    """Write down why a mailbox did not take a parcel; with `final`, it is not asked again."""
    state = ", state = 'refused', content = NULL" if final else ""
    db.execute(f"UPDATE parcels SET reason = ?{state} WHERE id = ? AND state = 'waiting'", (reason, parcel))  # noqa: S608


def gone(db: sqlite3.Connection, parcel: int) -> None:
    """Forget a parcel that is not in its mailbox any more."""
    db.execute("DELETE FROM parcels WHERE id = ?", (parcel,))


def answered(db: sqlite3.Connection, contact: int, nonce: bytes) -> None:
    """Take the CHANGE_ACK of a contact for a packet that was left for them."""
    row = db.execute(
        "SELECT what, message, revision FROM parcels WHERE contact = ? AND nonce = ? LIMIT 1", (contact, nonce)
    ).fetchone()
    if row is None:
        return
    if row[0] == "cards":
        mailboxes.tell_settled(db, contact, row[2])
    elif row[0] in ("edit", "delete"):
        db.execute("DELETE FROM changes WHERE message = ? AND revision = ?", (row[1], row[2]))


def put_off(db: sqlite3.Connection, mailbox: int, contact: int | None = None) -> None:
    """Write down that a mailbox fails, or takes nothing for a contact, so that nobody waits for what is to be done
    there."""
    db.execute(
        "UPDATE parcels SET reason = ?1 WHERE mailbox = ?2 AND reason IS NULL AND ((?3 IS NULL AND state = 'dropping')"
        " OR (state = 'waiting' AND (?3 IS NULL OR contact = ?3)))",
        (Reason.FAILED, mailbox, contact),
    )


def pending(db: sqlite3.Connection, message: int) -> bool:
    """Tell whether something about a message is still to be left or dropped for the first time, so that it is worth
    waiting for."""
    row = get(db, message)
    if not db.execute("SELECT 1 FROM contact_mailboxes WHERE contact = ?", (row.contact,)).fetchone():
        return False
    untried = db.execute(
        "SELECT 1 FROM parcels WHERE message = ? AND state IN ('waiting', 'dropping') AND reason IS NULL", (message,)
    ).fetchone()
    if untried:
        return True
    if row.outgoing and row.kind == "text" and row.state < State.DELIVERED and row.deleted_at is None:
        what, revision = "text", row.edited_at or 0
    else:
        change = db.execute(
            "SELECT kind, revision FROM changes WHERE message = ? AND kind IN ('edit', 'delete')", (message,)
        ).fetchone()
        if change is None:
            return False
        what, revision = change
    return not db.execute(
        "SELECT 1 FROM parcels WHERE message = ? AND what = ? AND revision = ?", (message, what, revision)
    ).fetchone()


def lying(db: sqlite3.Connection) -> int:
    """Return how many texts of ours lie in mailboxes."""
    (count,) = db.execute(
        "SELECT count(DISTINCT message) FROM parcels WHERE what = 'text' AND state = 'kept'"
    ).fetchone()
    return int(count)
