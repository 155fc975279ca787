"""Mailboxes and parcels: the rules alone."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from keys.identity import Identity
from keys.invite import MailboxCard
from peers.database import Database, Schema
from peers.store import contacts, mailboxes, messages, open_store, owing, parcels, restored, unsettled
from peers.store.errors import NoSuchMailbox, NotAStore, TooManyMailboxes
from peers.store.parcels import Draft
from peers.store.schema import SCHEMA
from tests.peers.store.stores import add, somebody
from wire.mailbox_codes import Reason
from wire.peer_commands import ChangeAck, DeliveryAck
from wire.peer_mailboxes import Listed

if TYPE_CHECKING:
    from pathlib import Path

    from peers.store.contacts import ContactRow
    from peers.store.parcels import Todo

HOUR = 3_600_000
UUID = bytes(range(16))


def card(number: int) -> MailboxCard:
    return MailboxCard(Identity.generate().public, f"https://box{number}.example")


def friend(db: sqlite3.Connection, boxes: int = 3) -> ContactRow:
    row = add(db)
    contacts.met(db, row.id, extended=True)
    mailboxes.heard(db, 1, row.id, 1, tuple(Listed(card(number)) for number in range(boxes)))
    return row


def drafts(todo: Todo, nonce: bytes = bytes(24)) -> list[Draft]:
    return [Draft(todo, mailbox, nonce, bytes([at]) * 32, b"sealed") for at, mailbox in enumerate(todo.mailboxes, 1)]


def leave(db: sqlite3.Connection, todo: Todo, *, kept: bool = True) -> list[int]:
    """Make the parcels of a todo, and have mailboxes keep them; returns their rows."""
    parcels.put(db, 5, drafts(todo))
    rows = [row[0] for row in db.execute("SELECT id FROM parcels WHERE state = 'waiting' ORDER BY id")]
    for row in rows:
        assert parcels.tried(db, row)
        if kept:
            parcels.kept(db, 6, row, 1000 * HOUR)
    return rows


def states(db: sqlite3.Connection) -> list[tuple[str, str]]:
    return [tuple(row) for row in db.execute("SELECT what, state FROM parcels ORDER BY id")]


def test_ours_are_told_by_growing_numbers(db: sqlite3.Connection) -> None:
    assert (mailboxes.serial(db), mailboxes.own(db)) == (0, [])
    first = mailboxes.add_own(db, 50, card(1))
    assert mailboxes.serial(db) == 50
    second = mailboxes.add_own(db, 50, card(2))
    assert mailboxes.serial(db) == 51
    assert mailboxes.add_own(db, 60, first.card).id == first.id
    assert mailboxes.serial(db) == 51
    for name in (str(second.id), second.card.url, second.card.text, second.card.public.id.hex()[:6]):
        assert mailboxes.find_own(db, name).id == second.id
    for name in ("99", "", "abc"):
        with pytest.raises(NoSuchMailbox):
            mailboxes.find_own(db, name)
    mailboxes.remove_own(db, 40, first.id)
    assert mailboxes.serial(db) == 52
    assert [own.id for own in mailboxes.own(db)] == [second.id]
    assert db.execute("SELECT count(*) FROM mailboxes").fetchone()[0] == 1
    for number in range(7):
        mailboxes.add_own(db, 70, card(number))
    with pytest.raises(TooManyMailboxes):
        mailboxes.add_own(db, 70, card(9))


def test_another_token_is_another_list(db: sqlite3.Connection) -> None:
    own = mailboxes.add_own(db, 50, card(1), b"one")
    assert (own.token, mailboxes.serial(db)) == (b"one", 50)
    assert mailboxes.add_own(db, 60, own.card).token == b"one"
    assert mailboxes.set_token(db, 60, own.id, b"one").token == b"one"
    assert mailboxes.serial(db) == 50
    assert mailboxes.add_own(db, 60, own.card, b"two").token == b"two"
    assert mailboxes.serial(db) == 60
    assert mailboxes.set_token(db, 60, own.id, b"").token == b""
    assert mailboxes.serial(db) == 61
    with pytest.raises(NoSuchMailbox):
        mailboxes.set_token(db, 70, 99, b"x")
    assert "token" not in repr(own)


def test_a_token_that_is_refused(db: sqlite3.Connection) -> None:
    row, other, box = friend(db, 0), add(db, "Carol"), card(1)
    mailboxes.heard(db, 1, other.id, 1, (Listed(box, b"hers"),))
    mailboxes.heard(db, 1, row.id, 2, (Listed(box, b"old"),))
    for text in ("one", "two"):
        messages.compose(db, 1, row.id, text)
    for todo in parcels.texts(db, 3):
        leave(db, todo, kept=False)
    mailbox = parcels.busy(db)[0]
    parcel = parcels.next_of(db, mailbox, frozenset())
    assert parcel is not None
    assert (parcel.token, "old" in repr(parcel)) == (b"old", False)
    assert mailboxes.unwelcome(db) == []
    parcels.refused(db, parcel.id, Reason.TOKEN, final=False)
    parcels.put_off(db, mailbox, row.id)
    assert [(each.contact, each.token_told, each.waiting) for each in mailboxes.unwelcome(db)] == [(row.id, True, 2)]
    assert mailboxes.unwelcome(db, other.id) == []
    turned_away = frozenset({(row.id, b"old")})
    assert parcels.next_of(db, mailbox, turned_away) is None
    # With the same token it stays refused; with another one it is tried at once.
    mailboxes.heard(db, 1, row.id, 3, (Listed(box, b"old"),))
    assert len(mailboxes.unwelcome(db)) == 1
    mailboxes.heard(db, 1, row.id, 4, (Listed(box, b"new"),))
    assert (mailboxes.unwelcome(db), parcels.busy(db)) == ([], [mailbox])
    parcel = parcels.next_of(db, mailbox, turned_away)
    assert parcel is not None
    assert parcel.token == b"new"
    assert parcels.pending(db, 1)


def test_a_look_that_was_asked_for_is_due_until_it_was_tried(db: sqlite3.Connection) -> None:
    own = mailboxes.add_own(db, 10, card(1))
    assert own.asked_at > own.tried_at
    mailboxes.looked(db, 5, own.id, trouble="away")  # the clock went back
    own = mailboxes.get_own(db, own.id)
    assert (own.asked_at > own.tried_at, own.looked_at, own.trouble) == (False, None, "away")
    mailboxes.ask(db, 3)
    assert mailboxes.get_own(db, own.id).asked_at > own.tried_at
    mailboxes.looked(db, 20, own.id, picked=3, refused=1)
    own = mailboxes.get_own(db, own.id)
    assert (own.looked_at, own.trouble, own.picked, own.refused) == (20, "", 3, 1)


def test_an_old_list_of_a_contact_is_not_believed(db: sqlite3.Connection) -> None:
    row, cards = add(db), [card(1), card(2)]
    assert mailboxes.heard(db, 1, row.id, 5, (Listed(cards[0]),))
    assert not mailboxes.heard(db, 1, row.id, 5, (Listed(cards[1]),))
    assert not mailboxes.heard(db, 1, row.id, 4, ())
    assert not mailboxes.heard(db, 1, row.id, 1 << 63, ())
    assert [place.card for place in mailboxes.of_contact(db, row.id)] == [cards[0]]
    mailboxes.set_first(db, row.id, cards[1])  # somebody else's word does not count beside theirs
    assert [place.card for place in mailboxes.of_contact(db, row.id)] == [cards[0]]
    assert mailboxes.heard(db, 1, row.id, 6, ())
    assert mailboxes.of_contact(db, row.id) == []
    assert db.execute("SELECT count(*) FROM mailboxes").fetchone()[0] == 0


def test_a_mailbox_of_a_contact_that_somebody_else_told_us_of(db: sqlite3.Connection) -> None:
    row, one, two = add(db), card(1), card(2)
    for told, token in ((one, b"one"), (two, b""), (one, b""), (two, b"two"), (two, b"second")):
        mailboxes.set_first(db, row.id, told, token)
    found = mailboxes.of_contact(db, row.id)
    assert [(place.card, place.token) for place in found] == [(one, b"one"), (two, b"second")]


def test_who_is_told_of_ours(db: sqlite3.Connection) -> None:
    known = add(db)
    stranger = contacts.add(db, 1, somebody(), nickname="Eve", origin="introduction")
    blocked = add(db, "Mallory")
    contacts.set_blocked(db, 1, blocked.id, blocked=True)
    assert mailboxes.to_tell(db) == []
    mailboxes.add_own(db, 7, card(1))
    assert mailboxes.to_tell(db) == [(known.id, 0)]
    messages.compose(db, 1, stranger.id, "who are you?")
    assert mailboxes.to_tell(db) == [(known.id, 0), (stranger.id, 0)]
    mailboxes.told(db, known.id, 7)
    mailboxes.told(db, known.id, 7)
    mailboxes.tell_settled(db, stranger.id, 7)
    assert mailboxes.to_tell(db) == [(known.id, 2)]
    mailboxes.add_own(db, 8, card(2))
    assert mailboxes.to_tell(db) == [(known.id, 0), (stranger.id, 0)]
    mailboxes.tell_settled(db, stranger.id, 7)  # a late answer to the old list
    assert len(mailboxes.to_tell(db)) == 2


def test_a_text_is_left_in_each_of_three_and_counted(db: sqlite3.Connection) -> None:
    row = friend(db, 5)
    said = messages.compose(db, 1, row.id, "hello")
    (todo,) = parcels.texts(db, 3)
    assert len(todo.mailboxes) == 3
    assert parcels.pending(db, said.id)
    made = leave(db, todo)
    assert parcels.texts(db, 3) == []
    assert (messages.get(db, said.id).left, messages.get(db, said.id).standing, parcels.lying(db)) == (3, "left", 1)
    assert not parcels.pending(db, said.id)
    assert db.execute("SELECT count(*) FROM parcels WHERE content IS NOT NULL").fetchone()[0] == 0
    details = [e[0] for e in db.execute("SELECT detail FROM events WHERE kind = 'state'")]
    assert details == ["left"] * 3
    unsettled.acknowledged(db, 9, row.id, said.uuid)
    parcels.settle(db, 10)
    assert states(db) == [("text", "dropping")] * 3
    assert messages.get(db, said.id).standing == "delivered"
    for parcel in made:
        parcels.gone(db, parcel)
    assert parcels.busy(db) == []


def test_what_was_never_sent_is_not_dropped_and_what_ended_is_left_again(db: sqlite3.Connection) -> None:
    row = friend(db, 1)
    said = messages.compose(db, 1, row.id, "hello")
    (todo,) = parcels.texts(db, 3)
    parcels.put(db, 5, drafts(todo))
    messages.delete(db, 6, said.id, for_both=False)
    parcels.settle(db, 7)
    assert states(db) == []
    said = messages.compose(db, 8, row.id, "again")
    (todo,) = parcels.texts(db, 3)
    (made,) = leave(db, todo)
    parcels.settle(db, 999 * HOUR)
    assert states(db) == [("text", "kept")]
    parcels.settle(db, 1000 * HOUR)
    assert (states(db), len(parcels.texts(db, 3))) == ([], 1)
    assert not parcels.tried(db, made)


def test_new_words_take_the_place_of_the_old(db: sqlite3.Connection) -> None:
    row = friend(db, 1)
    said = messages.compose(db, 1, row.id, "old")
    (todo,) = parcels.texts(db, 3)
    leave(db, todo)
    messages.edit(db, 7, said.id, "new")
    parcels.settle(db, 8)
    assert states(db) == [("text", "dropping")]
    assert parcels.pending(db, said.id)
    (again,) = parcels.texts(db, 3)
    assert (again.revision, again.message and again.message.text) == (7, "new")
    assert parcels.put(db, 9, drafts(todo)) == 0  # what was sealed before the edit is not kept
    assert parcels.put(db, 9, drafts(again)) == 1
    mailbox = again.mailboxes[0]
    order = []
    while (parcel := parcels.next_of(db, mailbox, frozenset())) is not None:
        order.append(parcel.dropping)
        parcels.gone(db, parcel.id)
    assert order == [True, False]


def test_a_parcel_that_is_dropped_while_it_leaves_is_dropped(db: sqlite3.Connection) -> None:
    row = friend(db, 1)
    said = messages.compose(db, 1, row.id, "hello")
    (todo,) = parcels.texts(db, 3)
    (made,) = leave(db, todo, kept=False)
    unsettled.acknowledged(db, 9, row.id, said.uuid)
    parcels.settle(db, 10)
    parcels.kept(db, 11, made, 5000)
    assert states(db) == [("text", "dropping")]


def test_a_mailbox_that_they_use_no_longer(db: sqlite3.Connection) -> None:
    """What lies there is dropped, and left where they look now; but not in ever more places."""
    row = friend(db, 1)
    messages.compose(db, 1, row.id, "hello")
    for serial in range(2, 40):
        for todo in parcels.texts(db, 3):
            leave(db, todo)
        mailboxes.heard(db, 1, row.id, serial, (Listed(card(serial)),))
        parcels.settle(db, 8)
    assert set(states(db)) == {("text", "dropping")}
    assert len(states(db)) == parcels.COPIES_MAX
    for mailbox in parcels.busy(db):
        parcel = parcels.next_of(db, mailbox, frozenset())
        assert parcel is not None
        parcels.gone(db, parcel.id)
    assert len(parcels.texts(db, 3)) == 1


def test_a_mailbox_that_is_forgotten_while_a_parcel_for_it_is_sealed(db: sqlite3.Connection) -> None:
    bob = friend(db, 1)
    messages.compose(db, 1, bob.id, "hello")
    owing.owe(db, bob.id, DeliveryAck.command, UUID)
    (todo,), (debt,) = parcels.texts(db, 3), parcels.debts(db, 3)
    mailboxes.heard(db, 2, bob.id, 2, (Listed(card(7)),))
    assert parcels.put(db, 5, drafts(todo)) == 0
    parcels.put_debt(db, 5, debt, drafts(replace(todo, what="acks", message=None)))
    assert owing.creditors(db) == [bob.id]
    (again,) = parcels.texts(db, 3)
    assert parcels.put(db, 6, drafts(again)) == 1
    (debt,) = parcels.debts(db, 3)
    parcels.put_debt(db, 6, debt, drafts(replace(again, what="acks", message=None), bytes(23) + b"1"))
    assert owing.creditors(db) == []


def test_changes_are_settled_by_the_nonce_of_the_right_contact(db: sqlite3.Connection) -> None:
    row, other = friend(db, 2), friend(db, 1)
    said = messages.compose(db, 1, row.id, "hello")
    unsettled.mark_sent(db, 1, [said.id])
    unsettled.acknowledged(db, 1, row.id, said.uuid)
    messages.edit(db, 2, said.id, "bye")
    (todo,) = parcels.changes(db, 3)
    nonce = b"n" * 24
    parcels.put(db, 3, drafts(todo, nonce))
    assert parcels.changes(db, 3) == []
    for who, what in ((other.id, nonce), (row.id, b"x" * 24)):
        parcels.answered(db, who, what)
        assert unsettled.change_tries(db, said.id) is not None
    parcels.answered(db, row.id, nonce)
    assert unsettled.change_tries(db, said.id) is None
    parcels.settle(db, 4)
    assert states(db) == []


def test_a_contact_with_too_much_waiting_gets_no_more_and_the_others_do(db: sqlite3.Connection) -> None:
    row = friend(db, 1)
    for number in range(3 * parcels.WINDOW + 5):
        messages.compose(db, 1, row.id, str(number))
    todos = parcels.texts(db, 3)
    assert len(todos) == 3 * parcels.WINDOW
    for todo in todos:
        parcels.put(db, 2, drafts(todo))
    assert parcels.texts(db, 3) == []
    messages.compose(db, 1, friend(db, 1).id, "other")
    assert len(parcels.texts(db, 3)) == 1


def test_refusals(db: sqlite3.Connection) -> None:
    row = friend(db, 1)
    said = messages.compose(db, 1, row.id, "hello")
    (todo,) = parcels.texts(db, 3)
    (made,) = leave(db, todo, kept=False)
    assert parcels.pending(db, said.id)
    parcels.put_off(db, todo.mailboxes[0])
    assert not parcels.pending(db, said.id)
    assert parcels.next_of(db, todo.mailboxes[0], frozenset({(row.id, b"")})) is None
    assert parcels.next_of(db, todo.mailboxes[0], frozenset()) is not None
    parcels.refused(db, made, Reason.TOO_BIG, final=True)
    assert (states(db), parcels.texts(db, 3), parcels.busy(db)) == ([("text", "refused")], [], [])


def test_what_is_owed_goes_together_and_once(db: sqlite3.Connection) -> None:
    row = friend(db, 1)
    for _ in range(2):
        owing.owe(db, row.id, DeliveryAck.command, UUID)
        owing.owe(db, row.id, ChangeAck.command, bytes(24))
    theirs = messages.receive(db, 1, row.id, UUID, "hi")
    assert theirs is not None
    messages.mark_read(db, 2, row.id, theirs.id)
    (debt,) = parcels.debts(db, 3)
    assert (debt.acks.delivered, debt.acks.read, debt.acks.changed) == ((UUID,), (UUID,), (bytes(24),))
    todo = parcels.Todo(row.id, "acks", 0, debt.mailboxes)
    parcels.put_debt(db, 3, debt, drafts(todo))
    assert (parcels.debts(db, 3), owing.creditors(db)) == ([], [])
    assert unsettled.changes_to_send(db, row.id, 10) == []
    (made,) = (each[0] for each in db.execute("SELECT id FROM parcels"))
    parcels.kept(db, 4, made, 1)
    assert states(db) == []  # nobody answers it, and nobody takes it back


def test_nothing_is_owed_by_mailbox_to_a_stranger(db: sqlite3.Connection) -> None:
    stranger = contacts.add(db, 1, somebody(), nickname="Eve", origin="introduction")
    mailboxes.heard(db, 1, stranger.id, 1, (Listed(card(1)),))
    mailboxes.add_own(db, 1, card(2))
    owing.owe(db, stranger.id, DeliveryAck.command, UUID)
    assert (parcels.debts(db, 3), parcels.cards(db, 3)) == ([], [])
    contacts.set_verified(db, 1, stranger.id, verified=True)
    assert len(parcels.debts(db, 3)) == 1


def test_what_is_owed_is_bounded(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owing, "OWED_MAX", 100)
    row = friend(db)
    for number in range(owing.OWED_MAX + 10):
        owing.owe(db, row.id, DeliveryAck.command, number.to_bytes(16, "big"))
    owed = owing.owed_to(db, row.id, 10_000)
    assert (len(owed), int.from_bytes(owed[0][2], "big")) == (owing.OWED_MAX, 10)


def test_a_contact_is_removed_with_all_of_it(db: sqlite3.Connection) -> None:
    row = friend(db)
    messages.compose(db, 1, row.id, "hello")
    (todo,) = parcels.texts(db, 3)
    leave(db, todo)
    owing.owe(db, row.id, DeliveryAck.command, UUID)
    contacts.remove(db, 9, row.id)
    for table in ("parcels", "owed", "contact_mailboxes", "cards_heard", "cards_told"):
        assert db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0  # noqa: S608
    assert parcels.put(db, 9, drafts(todo)) == 0


def test_a_profile_of_the_first_version_is_upgraded(tmp_path: Path) -> None:
    """With what was said, what is to be sent and what is known of people."""
    path = tmp_path / "store.db"
    first = Schema(SCHEMA.application_id, SCHEMA.steps[:1])

    def fill(db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT INTO contacts (x_pub, ed_pub, peer_id, nickname, label, label_key, origin, added_at)"
            " VALUES (?1, ?2, substr(?1, 1, 8), 'Bob', 'Bob', 'bob', 'invite', 1)",
            (b"x" * 32, b"e" * 32),
        )
        for number, state in enumerate((2, 0)):
            db.execute(
                "INSERT INTO messages (contact, uuid, outgoing, kind, text, at, state)"
                " VALUES (1, ?, 1, 'text', ?, 1, ?)",
                (bytes([number]) * 16, f"said {number}", state),
            )

    async def run() -> None:
        async with Database.open(path, first) as old:
            await old.write(fill)
        async with open_store(path) as store:
            assert (await store.read(_version), _version_of(path.with_name("store.db.v1.backup"))) == (2, 1)
            rows = await store.read(messages.history, 1)
            assert [(row.text, row.standing) for row in rows] == [("said 0", "delivered"), ("said 1", "queued")]
            await store.write(mailboxes.heard, 1, 1, 1, (Listed(card(1)),))
            (todo,) = await store.read(parcels.texts, 3)
            assert todo.message is not None
            assert todo.message.text == "said 1"
            assert await store.write(parcels.put, 1, drafts(todo)) == 1

    asyncio.run(run())


def test_a_backup_with_a_token_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def fill(token: bytes) -> bytes:
        async with open_store(path) as store:
            own = await store.write(mailboxes.add_own, 1, card(1))
            await store.write(mailboxes.set_token, 1, own.id, token)
            return (await store.read(mailboxes.own))[0].token

    assert asyncio.run(fill(b"right")) == b"right"
    restored.settle(path, 1)
    asyncio.run(fill(b"\x1b[2J"))
    with pytest.raises(NotAStore):
        restored.settle(path, 1)


def test_a_backup_with_a_card_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def fill(text: str) -> None:
        async with open_store(path) as store:
            await store.write(lambda db: db.execute("INSERT INTO mailboxes (card) VALUES (?)", (text,)).fetchall())

    asyncio.run(fill(card(1).text))
    restored.settle(path, 1)
    asyncio.run(fill("M0file:///etc/passwd"))
    with pytest.raises(NotAStore):
        restored.settle(path, 1)


def _version(db: Any) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return _version(db)
