"""With whom an agent may talk. Decided when it starts, by keys: no label that changes later lets anybody in."""

from collections.abc import Iterable, Sequence

from keys.identity import PublicIdentity
from peers.profile import ProfileError
from peers.store import Connection, contacts
from peers.store.contacts import ContactRow
from peers.store.errors import NoSuchContact


class Access:
    """Who is allowed. Made by :func:`grant`.

    Attributes:
        human: the contact who answers for the operator; not one to talk with, unless allowed as well.
    """

    def __init__(self, allowed: Iterable[ContactRow] | None, human: ContactRow | None) -> None:
        self._keys = None if allowed is None else {row.public for row in allowed}
        self.human = human

    def allows(self, public: PublicIdentity) -> bool:
        """Whether the owner of these keys is one to talk with."""
        return self._keys is None or public in self._keys

    def everyone(self, db: Connection) -> list[ContactRow]:
        """Return those who are allowed and not blocked, by label."""
        return [row for row in contacts.everyone(db) if not row.blocked and self.allows(row.public)]

    def find(self, db: Connection, name: str) -> ContactRow:
        """Return the one of that label or id.

        Raises:
            NoSuchContact: there is none, or none that is allowed: which of the two is not the agent's concern.
        """
        found = _exactly(self.everyone(db), name)
        if found is None:
            raise NoSuchContact("there is no contact of that name that you may talk with: see list_contacts")
        return found


def grant(db: Connection, allow: Sequence[str], human: str | None, *, everybody: bool) -> Access:
    """Look up whom an operator allows, by whole labels or ids.

    Raises:
        NoSuchContact: somebody who is named is not there, or blocked.
        ProfileError: nobody is allowed, or the human's keys are not known well enough to take orders.
    """
    if not (allow or everybody or human):
        raise ProfileError("an agent that may talk with nobody is of no use: name contacts by --allow LABEL")
    if allow and everybody:
        raise ProfileError("--allow-all allows more than each --allow: use one of the two")
    rows = [row for row in contacts.everyone(db) if not row.blocked]
    allowed = None if everybody else [_named(rows, name) for name in allow]
    person = None if human is None else _named(rows, human)
    if person is not None and person.trust == "unverified":
        raise ProfileError(
            "the keys of the contact who is to answer for you came from the relay alone, and it could pose as them:"
            " compare safety numbers first, with `verify`"
        )
    return Access(allowed, person)


def _named(rows: Sequence[ContactRow], name: str) -> ContactRow:
    found = _exactly(rows, name)
    if found is None:
        raise NoSuchContact(f"there is no contact {name!r} that is not blocked: give the whole label, see `contacts`")
    return found


def _exactly(rows: Sequence[ContactRow], name: str) -> ContactRow | None:
    """Not the beginning of a label, as people may type it: another contact may come to be meant by it."""
    key = name.strip().casefold()
    by_label = [row for row in rows if row.label.casefold() == key]
    by_id = [row for row in rows if row.public.id.hex() == key]
    return next(iter(by_label + by_id), None)
