"""Mailboxes: ours, in which others leave post for us, and those of contacts, as these told us (docs/mailbox.md)."""

import sqlite3
from dataclasses import dataclass, field
from typing import Final

from keys.invite import MailboxCard
from peers.store import contacts, feed, status
from peers.store.errors import NoSuchMailbox, TooManyMailboxes
from peers.store.feed import Kind
from wire.mailbox_codes import Reason
from wire.peer_mailboxes import CARDS_MAX, Listed

OWN_MAX: Final = CARDS_MAX
_SERIAL: Final = "mailboxes-serial"


@dataclass(frozen=True, slots=True)
class Place:
    """A mailbox that is known: its row, its card, and what it asks for with what is left for a contact."""

    id: int
    card: MailboxCard
    token: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class OwnMailbox:
    """One of ours.

    Attributes:
        asked_at, tried_at: it is to be looked into now if nobody tried since it was asked for.
        looked_at: when it last answered; None: never.
        trouble: why it did not the last time; empty if it did.
        picked: deposits that were picked up there.
        refused: deposits for us that it refused for want of room.
        token: what it asks depositors for, as contacts are told; empty: nothing.
    """

    id: int
    card: MailboxCard
    added_at: int
    asked_at: int
    tried_at: int
    looked_at: int | None
    trouble: str
    picked: int
    refused: int
    token: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Unwelcome:
    """A mailbox of a contact that asks for another token than it is shown.

    Attributes:
        label: the contact's, as it stands.
        token_told: they told one.
        waiting: parcels that cannot be left there.
    """

    contact: int
    label: str
    card: MailboxCard
    token_told: bool
    waiting: int


# --- Ours -------------------------------------------------------------------------------------------------------------


def add_own(db: sqlite3.Connection, now: int, card: MailboxCard, token: bytes = b"") -> OwnMailbox:
    """Have post for us picked up at a mailbox from now on, and contacts told of it. One that is ours stays it.

    Args:
        token: what it asks depositors for; without, one that is ours keeps the one that it has.

    Raises:
        TooManyMailboxes: there are 8 already.
    """
    ours = own(db)
    for each in ours:
        if each.card == card:
            ask(db, now)
            return set_token(db, now, each.id, token) if token else each
    if len(ours) >= OWN_MAX:
        raise TooManyMailboxes(f"{OWN_MAX} mailboxes are the most: remove one first")
    mailbox = _known(db, card)
    db.execute(
        "INSERT INTO own_mailboxes (mailbox, added_at, asked_at, token) VALUES (?, ?, ?, ?)", (mailbox, now, now, token)
    )
    _changed(db, now)
    return get_own(db, mailbox)


def set_token(db: sqlite3.Connection, now: int, mailbox: int, token: bytes) -> OwnMailbox:
    """Have contacts told another token for one of ours, or none.

    Raises:
        NoSuchMailbox: it is none of ours.
    """
    if get_own(db, mailbox).token != token:
        db.execute("UPDATE own_mailboxes SET token = ? WHERE mailbox = ?", (token, mailbox))
        _changed(db, now)
    return get_own(db, mailbox)


def remove_own(db: sqlite3.Connection, now: int, mailbox: int) -> None:
    """Pick nothing up at a mailbox any more, and tell contacts so.

    Raises:
        NoSuchMailbox: it is none of ours.
    """
    get_own(db, mailbox)
    db.execute("DELETE FROM own_mailboxes WHERE mailbox = ?", (mailbox,))
    _changed(db, now)
    _sweep(db)


def own(db: sqlite3.Connection) -> list[OwnMailbox]:
    """Return our mailboxes, in the order in which they were added."""
    return [
        OwnMailbox(row[0], MailboxCard.parse(row[1]), *row[2:])
        for row in db.execute(
            "SELECT m.id, m.card, o.added_at, o.asked_at, o.tried_at, o.looked_at, o.trouble, o.picked, o.refused,"
            " o.token FROM own_mailboxes o JOIN mailboxes m ON m.id = o.mailbox ORDER BY o.added_at, m.id"
        )
    ]


def get_own(db: sqlite3.Connection, mailbox: int) -> OwnMailbox:
    """Return one of ours.

    Raises:
        NoSuchMailbox: it is none.
    """
    for each in own(db):
        if each.id == mailbox:
            return each
    raise NoSuchMailbox(f"there is no mailbox {mailbox}: see `mailbox list`")


def find_own(db: sqlite3.Connection, name: str) -> OwnMailbox:
    """Return the one of ours that a person means: by its number, its card, its address, or the beginning of its id.

    Raises:
        NoSuchMailbox: none, or several.
    """
    ours = own(db)
    found = [each for each in ours if name in (str(each.id), each.card.text, each.card.url)]
    found = found or [each for each in ours if len(name) >= 4 and each.card.public.id.hex().startswith(name.lower())]
    if len(found) != 1:
        raise NoSuchMailbox("no mailbox of yours, or several, are called so: see `mailbox list` for their numbers")
    return found[0]


def ask(db: sqlite3.Connection, now: int) -> None:
    """Have all of ours looked into now by whoever carries."""
    db.execute("UPDATE own_mailboxes SET asked_at = max(?, tried_at + 1)", (now,))


def looked(
    db: sqlite3.Connection, now: int, mailbox: int, *, trouble: str = "", picked: int = 0, refused: int = 0
) -> None:
    """Write down that one of ours was looked into, or why it could not be."""
    db.execute(
        "UPDATE own_mailboxes SET tried_at = max(?1, asked_at), trouble = ?2, picked = picked + ?3,"
        " refused = refused + ?4, looked_at = CASE WHEN ?2 = '' THEN ?1 ELSE looked_at END WHERE mailbox = ?5",
        (now, trouble, picked, refused, mailbox),
    )


def serial(db: sqlite3.Connection) -> int:
    """Return the number of the present list of ours; 0 if there never was one."""
    return int(status.get(db, _SERIAL) or 0)


# --- Contacts' --------------------------------------------------------------------------------------------------------


def heard(
    db: sqlite3.Connection, now: int, contact: int, number: int, listed: tuple[Listed, ...], nickname: str = ""
) -> bool:
    """Take what a contact tells of their mailboxes; False if it is no newer than what they told before.

    Raises:
        NoSuchContact: they are gone.
    """
    known = contacts.get(db, contact)
    row = db.execute("SELECT serial FROM cards_heard WHERE contact = ?", (contact,)).fetchone()
    if number >= 1 << 63 or (row is not None and number <= row[0]):
        return False
    db.execute("REPLACE INTO cards_heard VALUES (?, ?)", (contact, number))
    _set(db, contact, listed[:CARDS_MAX])
    if nickname and nickname != known.nickname:
        db.execute("UPDATE contacts SET nickname = ? WHERE id = ?", (nickname, contact))
    feed.add(db, now, Kind.CONTACT, contact=contact)
    return True


def set_first(db: sqlite3.Connection, contact: int, card: MailboxCard, token: bytes = b"") -> None:
    """Write down a mailbox of a contact that somebody else than they told us of; what they tell comes before it.

    Args:
        token: what it asks depositors for; without, one that is known keeps the one that it has.

    Raises:
        NoSuchContact: they are gone.
    """
    contacts.check(db, contact)
    if db.execute("SELECT 1 FROM cards_heard WHERE contact = ?", (contact,)).fetchone() is None:
        known = {each.card: each.token for each in of_contact(db, contact)}
        token = token or known.pop(card, b"")
        others = (Listed(each, shown) for each, shown in known.items() if each != card)
        _set(db, contact, (*others, Listed(card, token))[-CARDS_MAX:])


def of_contact(db: sqlite3.Connection, contact: int) -> list[Place]:
    """Return a contact's mailboxes, in the order that they want."""
    return [
        Place(row[0], MailboxCard.parse(row[1]), row[2])
        for row in db.execute(
            "SELECT m.id, m.card, c.token FROM contact_mailboxes c JOIN mailboxes m ON m.id = c.mailbox"
            " WHERE c.contact = ? ORDER BY c.place",
            (contact,),
        )
    ]


def unwelcome(db: sqlite3.Connection, contact: int | None = None) -> list[Unwelcome]:
    """Return the mailboxes of a contact, or of all, that refused what we left for want of a token that they take."""
    return [
        Unwelcome(row[0], row[1], MailboxCard.parse(row[2]), bool(row[3]), row[4])
        for row in db.execute(
            "SELECT p.contact, c.label, m.card, length(b.token), count(*) FROM parcels p"
            " JOIN mailboxes m ON m.id = p.mailbox JOIN contacts c ON c.id = p.contact"
            " JOIN contact_mailboxes b ON b.contact = p.contact AND b.mailbox = p.mailbox"
            " WHERE p.state = 'waiting' AND (?2 IS NULL OR p.contact = ?2) GROUP BY p.contact, p.mailbox"
            " HAVING max(coalesce(p.reason, -1) = ?1) ORDER BY p.contact, b.place",
            (Reason.TOKEN, contact),
        )
    ]


def get(db: sqlite3.Connection, mailbox: int) -> Place:
    """Return a mailbox by its row, without a token: those are contacts'.

    Raises:
        NoSuchMailbox: there is none.
    """
    row = db.execute("SELECT id, card FROM mailboxes WHERE id = ?", (mailbox,)).fetchone()
    if row is None:
        raise NoSuchMailbox(f"there is no mailbox {mailbox}")
    return Place(row[0], MailboxCard.parse(row[1]))


# --- Telling them of ours ---------------------------------------------------------------------------------------------

STRANGER: Final = (
    "c.origin = 'introduction' AND c.verified_at IS NULL AND NOT EXISTS"
    " (SELECT 1 FROM messages s WHERE s.contact = c.id AND s.outgoing = 1)"
)
"""A contact `c` who introduced themselves and whom we never answered: nothing goes to their mailboxes, which would show
them our address, and they are not told where our post lies."""


def to_tell(db: sqlite3.Connection) -> list[tuple[int, int]]:
    """Return ``(contact, tries)`` of those who have not acknowledged the present list of ours."""
    number = serial(db)
    if not number:
        return []
    return [
        (row[0], row[1])
        for row in db.execute(
            "SELECT c.id, CASE WHEN t.serial = ?1 THEN t.tries ELSE 0 END FROM contacts c"  # noqa: S608
            " LEFT JOIN cards_told t ON t.contact = c.id"
            f" WHERE c.blocked = 0 AND coalesce(t.settled, -1) < ?1 AND NOT ({STRANGER})",
            (number,),
        )
    ]


def told(db: sqlite3.Connection, contact: int, number: int) -> None:
    """Count that a list of ours was sent to a contact who was online."""
    if contacts.exists(db, contact):
        db.execute(
            "INSERT INTO cards_told (contact, serial, tries) VALUES (?1, ?2, 1) ON CONFLICT (contact) DO UPDATE SET"
            " tries = CASE WHEN serial = ?2 THEN tries + 1 ELSE 1 END, serial = ?2",
            (contact, number),
        )


def tell_settled(db: sqlite3.Connection, contact: int, number: int) -> None:
    """Write down that a contact has acknowledged a list of ours."""
    if contacts.exists(db, contact):
        db.execute(
            "INSERT INTO cards_told (contact, serial, settled) VALUES (?1, ?2, ?2) ON CONFLICT (contact) DO UPDATE SET"
            " settled = max(settled, ?2)",
            (contact, number),
        )


# --- Within -----------------------------------------------------------------------------------------------------------


def _known(db: sqlite3.Connection, card: MailboxCard) -> int:
    db.execute("INSERT OR IGNORE INTO mailboxes (card) VALUES (?)", (card.text,))
    return int(db.execute("SELECT id FROM mailboxes WHERE card = ?", (card.text,)).fetchone()[0])


def _set(db: sqlite3.Connection, contact: int, listed: tuple[Listed, ...]) -> None:
    before = {each.id: each.token for each in of_contact(db, contact)}
    db.execute("DELETE FROM contact_mailboxes WHERE contact = ?", (contact,))
    for place, each in enumerate(listed):
        mailbox = _known(db, each.card)
        db.execute("INSERT INTO contact_mailboxes VALUES (?, ?, ?, ?)", (contact, place, mailbox, each.token))
        if before.get(mailbox, each.token) != each.token:
            # Why it was refused holds no more: with this token it has not been tried.
            db.execute(
                "UPDATE parcels SET reason = NULL WHERE contact = ? AND mailbox = ? AND state = 'waiting'",
                (contact, mailbox),
            )
    _sweep(db)


def _changed(db: sqlite3.Connection, now: int) -> None:
    # By the time, so that a profile that was restored from an old backup does not use a number for the second time.
    status.put(db, now, _SERIAL, str(max(now, serial(db) + 1)))


def _sweep(db: sqlite3.Connection) -> None:
    db.execute(
        "DELETE FROM mailboxes WHERE NOT EXISTS (SELECT 1 FROM own_mailboxes o WHERE o.mailbox = mailboxes.id)"
        " AND NOT EXISTS (SELECT 1 FROM contact_mailboxes c WHERE c.mailbox = mailboxes.id)"
        " AND NOT EXISTS (SELECT 1 FROM parcels p WHERE p.mailbox = mailboxes.id)"
    )
