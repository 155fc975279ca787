"""Contacts: whose keys are whose, and that no two look the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.identity import Identity, PublicIdentity
from peers.store import contacts, feed, jobs, messages
from peers.store.contacts import LABEL_MAX, STRANGERS_MAX, ContactRow, label_key
from peers.store.errors import Ambiguous, BadLabel, KeysDiffer, NoSuchContact, TooManyStrangers
from peers.store.feed import Kind
from tests.peers.store.stores import add, new_store, somebody

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable


def labels(db: sqlite3.Connection) -> list[str]:
    return [row.label for row in contacts.everyone(db)]


# --- Keys -------------------------------------------------------------------------------------------------------------


def test_the_same_keys_are_the_same_contact(db: sqlite3.Connection) -> None:
    public = somebody()
    first = contacts.add(db, 1, public, nickname="Bob")
    assert contacts.add(db, 2, public) == first
    again = contacts.add(db, 3, public, nickname="Robert")
    assert (again.id, again.nickname) == (first.id, "Robert")
    assert (again.label, again.added_at, again.trust) == ("Bob", 1, "invited")
    after = feed.last(db)
    contacts.add(db, 4, public, nickname="Robert", origin="introduction")
    assert feed.last(db) == after


def test_other_keys_under_the_same_id_are_refused_and_nothing_changes(db: sqlite3.Connection) -> None:
    bob = add(db)
    before = contacts.everyone(db), feed.last(db)
    x_pub = bob.public.x_pub[:8] + somebody().x_pub[8:]
    for other in (
        PublicIdentity(bob.public.x_pub, somebody().ed_pub),
        PublicIdentity(somebody().x_pub, bob.public.ed_pub),
        PublicIdentity(x_pub, somebody().ed_pub),  # the id alone
    ):
        for origin in ("invite", "introduction", "import"):
            with pytest.raises(KeysDiffer, match="the contact Bob has the same id") as caught:
                contacts.add(db, 2, other, nickname="Mallory", origin=origin)
            assert caught.value.label == "Bob"
    assert (contacts.everyone(db), feed.last(db)) == before


def test_keys_of_two_contacts_together_are_nobodys(db: sqlite3.Connection) -> None:
    one, two = add(db, "One"), add(db, "Two")
    with pytest.raises(KeysDiffer):
        contacts.add(db, 1, PublicIdentity(one.public.x_pub, two.public.ed_pub))


def test_an_invite_raises_the_trust_of_who_introduced_themselves(db: sqlite3.Connection) -> None:
    public = somebody()
    stranger = contacts.add(db, 1, public, nickname="Bob", origin="introduction")
    assert stranger.trust == "unverified"
    assert contacts.add(db, 2, public, origin="introduction").trust == "unverified"
    assert contacts.add(db, 3, public, label="Robert").trust == "invited"
    assert contacts.add(db, 4, public, origin="introduction").trust == "invited"
    assert labels(db) == ["Robert"]


def test_verification_is_written_down_and_taken_back(db: sqlite3.Connection) -> None:
    bob = add(db)
    contacts.set_verified(db, 7, bob.id, verified=True)
    assert (contacts.get(db, bob.id).trust, contacts.get(db, bob.id).verified_at) == ("verified", 7)
    contacts.set_verified(db, 8, bob.id, verified=False)
    assert contacts.get(db, bob.id).trust == "invited"


def test_strangers_are_bounded_and_answered_ones_are_none(db: sqlite3.Connection) -> None:
    rows = [contacts.add(db, 0, somebody(), origin="introduction") for _ in range(STRANGERS_MAX)]
    with pytest.raises(TooManyStrangers):
        contacts.add(db, 0, somebody(), origin="introduction")
    assert contacts.add(db, 0, rows[0].public, origin="introduction") == rows[0]  # somebody whom we know
    add(db)  # an invite is no stranger
    messages.compose(db, 0, rows[0].id, "Hello")
    contacts.add(db, 0, somebody(), origin="introduction")
    with pytest.raises(TooManyStrangers):
        contacts.add(db, 0, somebody(), origin="introduction")
    contacts.set_verified(db, 0, rows[1].id, verified=True)
    contacts.add(db, 0, somebody(), origin="introduction")
    contacts.remove(db, 0, rows[2].id)
    contacts.add(db, 0, somebody(), origin="introduction")


# --- Labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nickname",
    [
        "Bob",
        "bob",
        " Bob\t",
        "B\u200bob",  # zero width space
        "Bob\u00ad",  # soft hyphen
        "Ｂｏｂ",  # full width
        "Bob\ufe0f",  # variation selector
        "\u202eBob",
        "Bob\u3164",  # Hangul filler
        "Bob\x1b",
        "Bob␟info",
    ],
)
def test_a_stranger_who_looks_like_a_friend_gets_another_label(db: sqlite3.Connection, nickname: str) -> None:
    add(db, "Bob")
    stranger = contacts.add(db, 1, somebody(), nickname=nickname, origin="introduction")
    assert stranger.label.endswith("-2")
    assert contacts.find(db, "bob").trust == "invited"


def test_composed_and_decomposed_letters_are_the_same(db: sqlite3.Connection) -> None:
    jose = add(db, "Jos\u00e9")
    assert contacts.find(db, "JOSE\u0301") == jose
    assert add(db, "Jose\u0301").label == "Jose\u0301-2"


@pytest.mark.parametrize("nickname", ["", "   ", "\u200b\u200b", "\u3164", "\x07", "\u2800"])
def test_who_has_no_name_that_can_be_seen_is_called_by_id(db: sqlite3.Connection, nickname: str) -> None:
    row = add(db, nickname)
    assert row.label == row.public.id.hex()
    with pytest.raises(BadLabel, match="can be seen"):
        contacts.rename(db, 1, row.id, nickname)


def test_labels_that_are_asked_for_are_given_or_refused(db: sqlite3.Connection) -> None:
    bob, eve = add(db, "Bob"), add(db, "Eve")
    for label in ("bob", "BOB ", "B\u200bob"):
        with pytest.raises(BadLabel, match="another contact"):
            contacts.rename(db, 1, eve.id, label)
        with pytest.raises(BadLabel, match="another contact"):
            contacts.add(db, 1, somebody(), label=label)
    with pytest.raises(BadLabel, match="128"):
        contacts.rename(db, 1, bob.id, "x" * (LABEL_MAX + 1))
    contacts.rename(db, 1, bob.id, "BOB")  # one's own may change its case
    contacts.rename(db, 1, eve.id, "  The \n evil\x1b[31m  one ")
    assert labels(db) == ["BOB", "The evil[31m one"]


@given(st.lists(st.text(max_size=200), max_size=12))
def test_any_nicknames_give_labels_that_differ_and_can_be_found(nicknames: list[str]) -> None:
    db = new_store()
    rows = []
    for nickname in nicknames:
        try:
            nickname.encode()
        except UnicodeEncodeError:
            continue
        rows.append(add(db, nickname))
    keys = {label_key(row.label) for row in rows}
    assert len(keys) == len(rows)
    for row in rows:
        assert 0 < len(row.label) <= LABEL_MAX
        assert row.label.isprintable() or not row.label.isascii()
        assert contacts.find(db, row.label) == row
        assert contacts.find(db, row.public.id.hex()) == row


def test_finding_by_beginnings(db: sqlite3.Connection) -> None:
    anna, annette, bob = add(db, "Anna"), add(db, "Annette"), add(db, "Bob")
    assert contacts.find(db, "anna") == anna  # the whole label comes before the beginning of another
    assert contacts.find(db, "annE") == annette
    with pytest.raises(Ambiguous, match="Anna, Annette"):
        contacts.find(db, "ann")
    assert contacts.find(db, bob.public.id.hex()[:6].upper()) == bob
    for name in ("", "  ", "x", bob.public.id.hex()[:3] + "zz", "\u200b"):
        with pytest.raises(NoSuchContact):
            contacts.find(db, name)


# --- Changes ----------------------------------------------------------------------------------------------------------


def test_numbers_are_never_given_twice(db: sqlite3.Connection) -> None:
    """Who remembers a removed contact by its number must not find somebody else."""
    gone = add(db)
    contacts.remove(db, 1, gone.id)
    assert add(db).id > gone.id
    job = jobs.add(db, 1, add(db).id, "introduce")
    jobs.done(db, job)
    assert not jobs.waits(db, job)
    assert jobs.add(db, 1, add(db).id, "wake") > job
    assert not jobs.waits(db, job)


def test_removing_takes_all_that_was_said(db: sqlite3.Connection) -> None:
    bob, eve = add(db, "Bob"), add(db, "Eve")
    for row in (bob, eve):
        messages.compose(db, 1, row.id, "a secret")
        messages.receive(db, 1, row.id, messages.uuid(), "another secret")
        messages.receive_delete(db, 1, row.id, b"n" * 24, messages.uuid())
        jobs.add(db, 1, row.id, "introduce")
    contacts.remove(db, 2, bob.id)
    assert labels(db) == ["Eve"]
    assert len(messages.search(db, "secret")) == 2
    assert [contact for _, contact, _ in jobs.waiting(db)] == [eve.id]
    for table in ("messages", "nonces", "jobs"):
        assert db.execute(f"SELECT count(*) FROM {table} WHERE contact = ?", (bob.id,)).fetchone()[0] == 0  # noqa: S608
    left = [event for event in feed.read(db, 0) if event.contact == bob.id]
    assert [(event.kind, event.detail) for event in left] == [(Kind.CONTACT, "removed")]


@pytest.mark.parametrize(
    "change",
    [
        lambda db, contact: contacts.rename(db, 1, contact, "X"),
        lambda db, contact: contacts.set_verified(db, 1, contact, verified=True),
        lambda db, contact: contacts.set_blocked(db, 1, contact, blocked=True),
        lambda db, contact: contacts.remove(db, 1, contact),
        lambda db, contact: messages.compose(db, 1, contact, "X"),
    ],
)
def test_what_is_asked_of_somebody_who_is_gone_is_refused(
    db: sqlite3.Connection, change: Callable[[sqlite3.Connection, int], object]
) -> None:
    bob = add(db)
    contacts.remove(db, 1, bob.id)
    before = feed.last(db)
    with pytest.raises(NoSuchContact):
        change(db, bob.id)
    assert feed.last(db) == before


def presence(db: sqlite3.Connection, after: int) -> list[tuple[int | None, str]]:
    return [(event.contact, event.detail) for event in feed.read(db, after) if event.kind is Kind.PRESENCE]


def test_presence_is_told_when_it_changes(db: sqlite3.Connection) -> None:
    bob, eve = add(db, "Bob"), add(db, "Eve")
    contacts.set_blocked(db, 1, eve.id, blocked=True)
    after = feed.last(db)
    both = (bob.public.x_pub, eve.public.x_pub, Identity.generate().public.x_pub)
    for _ in range(2):
        contacts.set_online(db, 5, both, online=True)
    assert presence(db, after) == [(bob.id, "online")]
    contacts.nobody_online(db, 6)
    contacts.nobody_online(db, 7)
    assert presence(db, after) == [(bob.id, "online"), (bob.id, "offline")]
    row = contacts.get(db, bob.id)
    assert (row.online, row.seen_at) == (False, 6)
    contacts.set_online(db, 8, both, online=True)
    contacts.set_blocked(db, 9, bob.id, blocked=True)
    assert not contacts.get(db, bob.id).online


def test_what_they_know_of_us_grows_and_can_be_forgotten(db: sqlite3.Connection) -> None:
    def known(row: ContactRow) -> tuple[bool, bool]:
        now = contacts.get(db, row.id)
        return now.knows_us, now.extended

    bob = add(db)
    assert known(bob) == (False, False)
    contacts.met(db, bob.id)
    assert known(bob) == (True, False)
    contacts.met(db, bob.id, extended=True)
    contacts.met(db, bob.id)
    assert known(bob) == (True, True)


def test_a_contact_shows_nothing_of_itself_in_logs(db: sqlite3.Connection) -> None:
    assert repr(add(db, "Bob")) == "ContactRow(1)"
