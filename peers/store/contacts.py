"""The people whom we know: their keys, our name for them, and how far their keys can be trusted."""

import sqlite3
import unicodedata
from dataclasses import dataclass
from typing import Final, Literal

from keys.identity import ID_SIZE, PublicIdentity
from keys.invite import display_name
from peers.store import feed
from peers.store.errors import Ambiguous, BadLabel, KeysDiffer, NoSuchContact, TooManyStrangers
from peers.store.feed import Kind

Origin = Literal["invite", "introduction", "import"]

LABEL_MAX: Final = 128
"""Most characters of a label."""
STRANGERS_MAX: Final = 500
"""Most contacts who introduced themselves and whom we never answered: whoever knows our id can add one."""
_SHOWN: Final = 5
_ID_PREFIX_MIN: Final = 4
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters, marks and signs that draw nothing; Braille's empty cell is one."""


@dataclass(frozen=True, slots=True)
class ContactRow:
    """A contact as the store has it."""

    id: int
    public: PublicIdentity
    nickname: str
    label: str
    origin: Origin
    added_at: int
    verified_at: int | None
    blocked: bool
    knows_us: bool
    extended: bool
    online: bool
    seen_at: int | None

    @property
    def verified(self) -> bool:
        """Whether the safety numbers were compared. Until then the keys are as good as the way by which they came."""
        return self.verified_at is not None

    @property
    def trust(self) -> str:
        """``verified``; ``invited``: the keys came in an invite or a backup; ``unverified``: the relay told them."""
        if self.verified:
            return "verified"
        return "unverified" if self.origin == "introduction" else "invited"

    def __repr__(self) -> str:
        return f"ContactRow({self.id})"


_COLUMNS: Final = (
    "id, x_pub, ed_pub, nickname, label, origin, added_at, verified_at, blocked, knows_us, extended, online, seen_at"
)


def _row(row: sqlite3.Row) -> ContactRow:
    return ContactRow(
        row["id"],
        PublicIdentity(row["x_pub"], row["ed_pub"]),
        row["nickname"],
        row["label"],
        row["origin"],
        row["added_at"],
        row["verified_at"],
        bool(row["blocked"]),
        bool(row["knows_us"]),
        bool(row["extended"]),
        bool(row["online"]),
        row["seen_at"],
    )


def add(
    db: sqlite3.Connection,
    now: int,
    public: PublicIdentity,
    *,
    nickname: str = "",
    label: str | None = None,
    origin: Origin = "invite",
) -> ContactRow:
    """Add a contact, or return the one with these keys.

    One that introduced itself before becomes one by invite when its invite, with the same keys, is added.

    Raises:
        KeysDiffer: there is a contact with the same id, or one of these keys, and otherwise another key.
        BadLabel: a label was asked for that cannot be used or is somebody else's.
        TooManyStrangers: an introduction, and 500 others were never answered.
    """
    found = db.execute(
        f"SELECT {_COLUMNS} FROM contacts WHERE peer_id = ? OR x_pub = ? OR ed_pub = ?",  # noqa: S608
        (public.id, public.x_pub, public.ed_pub),
    ).fetchall()
    if found:
        known = _row(found[0])
        if len(found) > 1 or known.public != public:
            raise KeysDiffer(known.label)
        if origin != "introduction" and known.origin == "introduction":
            db.execute("UPDATE contacts SET origin = ? WHERE id = ?", (origin, known.id))
            feed.add(db, now, Kind.CONTACT, contact=known.id)
        if nickname and nickname != known.nickname:
            # What they call themselves now; what we call them stays.
            db.execute("UPDATE contacts SET nickname = ? WHERE id = ?", (nickname, known.id))
            feed.add(db, now, Kind.CONTACT, contact=known.id)
        if label is not None and label != known.label:
            rename(db, now, known.id, label)
        return get(db, known.id)
    if origin == "introduction":
        _check_strangers(db)
    label = free_label(db, nickname, public) if label is None else _checked_label(db, label)
    row = db.execute(
        "INSERT INTO contacts (x_pub, ed_pub, peer_id, nickname, label, label_key, origin, added_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (public.x_pub, public.ed_pub, public.id, nickname, label, label_key(label), origin, now),
    ).fetchone()
    feed.add(db, now, Kind.CONTACT, contact=row[0], detail="new")
    return get(db, row[0])


def get(db: sqlite3.Connection, contact: int) -> ContactRow:
    """Return a contact by its row.

    Raises:
        NoSuchContact: it is gone.
    """
    row = db.execute(f"SELECT {_COLUMNS} FROM contacts WHERE id = ?", (contact,)).fetchone()  # noqa: S608
    if row is None:
        raise NoSuchContact("that contact was removed")
    return _row(row)


def check(db: sqlite3.Connection, contact: int) -> None:
    """Raise NoSuchContact if a contact is gone."""
    if not exists(db, contact):
        raise NoSuchContact("that contact was removed")


def exists(db: sqlite3.Connection, contact: int) -> bool:
    """Tell whether a contact is still there: another process may remove it while their packets come."""
    return db.execute("SELECT 1 FROM contacts WHERE id = ?", (contact,)).fetchone() is not None


def everyone(db: sqlite3.Connection) -> list[ContactRow]:
    """Return all contacts, by label."""
    return [_row(row) for row in db.execute(f"SELECT {_COLUMNS} FROM contacts ORDER BY label_key")]  # noqa: S608


def find(db: sqlite3.Connection, name: str) -> ContactRow:
    """Return the contact that a person means: by its label (case does not matter), the beginning of one, or the
    beginning (4 hex digits or more) of its id.

    Raises:
        NoSuchContact, Ambiguous: none, or several; the text names those that come near.
    """
    contacts = everyone(db)
    key = label_key(name)
    for contact in contacts:
        if label_key(contact.label) == key:
            return contact
    by_id = len(key) >= _ID_PREFIX_MIN
    near = [c for c in contacts if key and label_key(c.label).startswith(key)]
    near = near or [c for c in contacts if by_id and c.public.id.hex().startswith(key)]
    if not near:
        raise NoSuchContact("there is no contact of that name: see `contacts`, and `add` for their invite")
    if len(near) > 1:
        labels = ", ".join(c.label for c in near[:_SHOWN]) + (", …" if len(near) > _SHOWN else "")
        raise Ambiguous(f"several contacts begin so: {labels}")
    return near[0]


def rename(db: sqlite3.Connection, now: int, contact: int, label: str) -> None:
    """Give a contact another label.

    Raises:
        BadLabel: it cannot be used, or is somebody else's.
        NoSuchContact: the contact is gone.
    """
    get(db, contact)
    label = _checked_label(db, label, but=contact)
    db.execute("UPDATE contacts SET label = ?, label_key = ? WHERE id = ?", (label, label_key(label), contact))
    feed.add(db, now, Kind.CONTACT, contact=contact)


def set_verified(db: sqlite3.Connection, now: int, contact: int, *, verified: bool) -> None:
    """Write down that the safety numbers were compared, or that this is no longer believed.

    Raises:
        NoSuchContact: the contact is gone.
    """
    get(db, contact)
    db.execute("UPDATE contacts SET verified_at = ? WHERE id = ?", (now if verified else None, contact))
    feed.add(db, now, Kind.CONTACT, contact=contact)


def set_blocked(db: sqlite3.Connection, now: int, contact: int, *, blocked: bool) -> None:
    """Take nothing from a contact any more, or again. They are not told.

    Raises:
        NoSuchContact: the contact is gone.
    """
    get(db, contact)
    db.execute("UPDATE contacts SET blocked = ?, online = 0 WHERE id = ?", (blocked, contact))
    feed.add(db, now, Kind.CONTACT, contact=contact)


def remove(db: sqlite3.Connection, now: int, contact: int) -> None:
    """Remove a contact with all that was said. They may introduce themselves again: block those who must not.

    Raises:
        NoSuchContact: they are gone already.
    """
    get(db, contact)
    db.execute("DELETE FROM contacts WHERE id = ?", (contact,))
    db.execute("DELETE FROM events WHERE contact = ?", (contact,))
    feed.add(db, now, Kind.CONTACT, contact=contact, detail="removed")


def met(db: sqlite3.Connection, contact: int, *, extended: bool = False) -> None:
    """Write down that a packet of theirs opened: they have our keys; with `extended`, that they know our codes too."""
    db.execute(
        "UPDATE contacts SET knows_us = 1, extended = max(extended, ?) WHERE id = ? AND (knows_us = 0 OR extended < ?)",
        (extended, contact, extended),
    )


def set_online(db: sqlite3.Connection, now: int, x_pubs: tuple[bytes, ...], *, online: bool) -> None:
    """Write down what the relay told of the presence of these keys' owners."""
    for x_pub in x_pubs:
        row = db.execute(
            "UPDATE contacts SET online = ?, seen_at = ? WHERE x_pub = ? AND online != ? AND blocked = 0 RETURNING id",
            (online, now, x_pub, online),
        ).fetchone()
        if row is not None:
            feed.add(db, now, Kind.PRESENCE, contact=row[0], detail="online" if online else "offline")


def nobody_online(db: sqlite3.Connection, now: int) -> None:
    """Forget the presence of all: there is no connection that could tell."""
    for row in db.execute(
        "UPDATE contacts SET online = 0, seen_at = ? WHERE online = 1 RETURNING id", (now,)
    ).fetchall():
        feed.add(db, now, Kind.PRESENCE, contact=row[0], detail="offline")


def shown_label(text: str) -> str:
    """Return a label or nickname as it is kept as a label: without what acts on a terminal, white space gathered."""
    return " ".join(display_name(text).split())


def label_key(label: str) -> str:
    """Return a label as it is compared: what looks the same to people counts as the same.

    Case, compatible forms of letters (NFKC) and signs that cannot be seen do not matter. Letters of different scripts
    that look alike do: for those the trust of a contact is shown beside its label.
    """
    seen = "".join(c for c in unicodedata.normalize("NFKC", label) if not _invisible(c))
    return " ".join(unicodedata.normalize("NFKC", seen.casefold()).split())


def _invisible(character: str) -> bool:
    return (
        unicodedata.category(character) in _UNSEEN
        or character in _BLANK
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0000" <= character <= "\U000e0fff"
    )


def _check_strangers(db: sqlite3.Connection) -> None:
    (count,) = db.execute(
        "SELECT count(*) FROM contacts WHERE origin = 'introduction' AND verified_at IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM messages WHERE messages.contact = contacts.id AND outgoing = 1)"
    ).fetchone()
    if count >= STRANGERS_MAX:
        raise TooManyStrangers(f"{STRANGERS_MAX} people introduced themselves and were never answered")


def _checked_label(db: sqlite3.Connection, label: str, but: int | None = None) -> str:
    label = shown_label(label)
    if not label_key(label):
        raise BadLabel("a label has at least one character that can be seen")
    if len(label) > LABEL_MAX:
        raise BadLabel(f"a label has {LABEL_MAX} characters at most")
    row = db.execute("SELECT id FROM contacts WHERE label_key = ?", (label_key(label),)).fetchone()
    if row is not None and row[0] != but:
        raise BadLabel("another contact has that label")
    return label


def free_label(db: sqlite3.Connection, nickname: str, public: PublicIdentity) -> str:
    """Return a label that nobody has, made of a name or, where nothing of it can be seen, of the id."""
    base = shown_label(nickname)[: LABEL_MAX - 8].rstrip()
    if not label_key(base):
        base = public.id.hex()[: 2 * ID_SIZE]
    label, number = base, 1
    # A stranger who calls himself as a friend is called must not be taken for the friend.
    while db.execute("SELECT 1 FROM contacts WHERE label_key = ?", (label_key(label),)).fetchone():
        number += 1
        label = f"{base}-{number}"
    return label
