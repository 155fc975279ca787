"""Messages: their states, and what a peer is still to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peers.store import contacts, feed, jobs, messages, unsettled
from peers.store.errors import BadText, Blocked, NoSuchMessage
from peers.store.feed import Kind
from peers.store.message_rows import ChangeRow, MessageRow, State
from tests.peers.store.stores import add
from wire.peer_commands import TEXT_MAX

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from peers.store.contacts import ContactRow

N1, N2, N3 = (bytes([i]) * 24 for i in (1, 2, 3))


@pytest.fixture
def bob(db: sqlite3.Connection) -> ContactRow:
    return add(db)


def say(db: sqlite3.Connection, bob: ContactRow, text: str = "hello") -> MessageRow:
    return messages.compose(db, 1, bob.id, text)


def sent(db: sqlite3.Connection, bob: ContactRow, text: str = "hello") -> MessageRow:
    row = say(db, bob, text)
    unsettled.mark_sent(db, 2, [row.id])
    return messages.get(db, row.id)


def hear(db: sqlite3.Connection, bob: ContactRow, text: str = "hello", uuid: bytes | None = None) -> MessageRow:
    row = messages.receive(db, 1, bob.id, uuid or messages.uuid(), text)
    assert row is not None
    return row


def to_tell(db: sqlite3.Connection, bob: ContactRow) -> list[tuple[int, str]]:
    return [(change.message.id, change.kind) for change in unsettled.changes_to_send(db, bob.id, 100)]


def told(db: sqlite3.Connection, after: int = 0) -> list[tuple[Kind, str]]:
    return [(event.kind, event.detail) for event in feed.read(db, after)]


# --- Ours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"), [("", "empty"), (" \n", "empty"), ("x" * (TEXT_MAX + 1), "65537 bytes"), ("\ud800", "UTF-8")]
)
def test_what_cannot_be_sent_is_not_kept(db: sqlite3.Connection, bob: ContactRow, text: str, why: str) -> None:
    row = say(db, bob)
    for attempt in (lambda: say(db, bob, text), lambda: messages.edit(db, 1, row.id, text)):
        with pytest.raises(BadText, match=why):
            attempt()
    assert [row.text for row in messages.history(db, bob.id)] == ["hello"]


def test_nothing_is_written_to_who_is_blocked(db: sqlite3.Connection, bob: ContactRow) -> None:
    contacts.set_blocked(db, 1, bob.id, blocked=True)
    with pytest.raises(Blocked):
        say(db, bob)
    contacts.set_blocked(db, 2, bob.id, blocked=False)
    assert say(db, bob, "x" * TEXT_MAX).state is State.QUEUED


def test_uuids_are_of_version_4() -> None:
    raw = messages.uuid(lambda size: b"\xff" * size)
    assert raw.hex() == "ffffffffffff4fffbfffffffffffffff"


def test_the_way_of_a_message(db: sqlite3.Connection, bob: ContactRow) -> None:
    row = say(db, bob)
    states = [row.state]
    steps: tuple[Callable[[], object], ...] = (
        lambda: unsettled.mark_sent(db, 2, [row.id]),
        lambda: unsettled.mark_queued(db, 3, [row.id]),
        lambda: unsettled.mark_sent(db, 4, [row.id]),
        lambda: unsettled.acknowledged(db, 5, bob.id, row.uuid),
        lambda: unsettled.mark_queued(db, 6, [row.id]),  # a late refusal of an earlier packet
        lambda: unsettled.mark_sent(db, 7, [row.id]),
        lambda: unsettled.acknowledged(db, 8, bob.id, row.uuid, read=True),
        lambda: unsettled.acknowledged(db, 9, bob.id, row.uuid),
        lambda: unsettled.mark_failed(db, 10, row.id),
    )
    for step in steps:
        step()
        states.append(messages.get(db, row.id).state)
    assert [state.name for state in states] == [
        "QUEUED",
        "SENT",
        "QUEUED",
        "SENT",
        *["DELIVERED"] * 3,
        *["READ"] * 3,
    ]
    now = messages.get(db, row.id)
    assert (now.delivered_at, now.read_at) == (5, 8)
    details = [detail for kind, detail in told(db) if kind is Kind.STATE]
    assert details == ["sent", "queued", "sent", "delivered", "read"]


def test_to_be_read_is_to_be_delivered(db: sqlite3.Connection, bob: ContactRow) -> None:
    row = sent(db, bob)
    unsettled.acknowledged(db, 5, bob.id, row.uuid, read=True)
    now = messages.get(db, row.id)
    assert (now.state, now.delivered_at, now.read_at) == (State.READ, 5, 5)


def test_what_failed_stays_failed(db: sqlite3.Connection, bob: ContactRow) -> None:
    row = sent(db, bob)
    unsettled.mark_failed(db, 3, row.id)
    unsettled.acknowledged(db, 4, bob.id, row.uuid, read=True)
    assert messages.get(db, row.id).state is State.FAILED
    assert unsettled.to_send(db, bob.id, 10) == []


def test_only_its_recipient_acknowledges_a_message(db: sqlite3.Connection, bob: ContactRow) -> None:
    row, eve = sent(db, bob), add(db, "Eve")
    theirs = hear(db, bob)
    before = feed.last(db)
    unsettled.acknowledged(db, 3, eve.id, row.uuid)
    unsettled.acknowledged(db, 3, bob.id, theirs.uuid, read=True)
    unsettled.acknowledged(db, 3, bob.id, messages.uuid())
    assert messages.get(db, row.id).state is State.SENT
    assert (messages.get(db, theirs.id).state, messages.get(db, theirs.id).read_at) == (State.DELIVERED, None)
    assert feed.last(db) == before


def test_what_is_to_be_sent(db: sqlite3.Connection, bob: ContactRow) -> None:
    rows = [say(db, bob, str(i)) for i in range(5)]
    hear(db, bob)
    unsettled.mark_sent(db, 2, [rows[0].id, rows[1].id])
    unsettled.acknowledged(db, 3, bob.id, rows[0].uuid)
    messages.delete(db, 4, rows[3].id, for_both=False)
    assert [row.text for row in unsettled.to_send(db, bob.id, 10)] == ["1", "2", "4"]
    assert [row.text for row in unsettled.to_send(db, bob.id, 2)] == ["1", "2"]
    assert [row.text for row in unsettled.to_send(db, bob.id, 10, after=rows[1].id)] == ["2", "4"]
    newest = unsettled.newest_to_send(db, bob.id)
    assert newest is not None
    assert newest.text == "4"
    assert unsettled.newest_to_send(db, add(db, "Eve").id) is None


def test_for_whom_there_is_something(db: sqlite3.Connection) -> None:
    rows = [add(db, name) for name in ("message", "change", "job", "nothing", "all was acknowledged")]
    say(db, rows[0])
    messages.mark_read(db, 1, rows[1].id, hear(db, rows[1]).id)
    jobs.add(db, 1, rows[2].id, "introduce")
    hear(db, rows[3])
    unsettled.acknowledged(db, 3, rows[4].id, sent(db, rows[4]).uuid)
    assert unsettled.contacts_to_send(db) == {row.id for row in rows[:3]}


# --- Edits and deletions of ours ------------------------------------------------------------------------------


def test_what_never_left_us_is_edited_and_deleted_here_alone(db: sqlite3.Connection, bob: ContactRow) -> None:
    edited, deleted = say(db, bob), say(db, bob)
    messages.edit(db, 2, edited.id, "other words")
    messages.delete(db, 3, deleted.id, for_both=True)
    assert to_tell(db, bob) == []
    assert [row.text for row in unsettled.to_send(db, bob.id, 10)] == ["other words"]


def test_what_may_have_arrived_is_told(db: sqlite3.Connection, bob: ContactRow) -> None:
    row = sent(db, bob)
    unsettled.mark_queued(db, 3, [row.id])  # the relay said so, but an earlier packet may have come through
    messages.edit(db, 4, row.id, "other words")
    assert to_tell(db, bob) == []  # it is sent with its new words; the edit waits for its acknowledgement
    unsettled.acknowledged(db, 5, bob.id, row.uuid)
    assert to_tell(db, bob) == [(row.id, "edit")]
    messages.delete(db, 6, row.id, for_both=True)
    assert to_tell(db, bob) == [(row.id, "delete")]
    messages.delete(db, 7, row.id, for_both=False)
    assert to_tell(db, bob) == [(row.id, "delete")]
    with pytest.raises(NoSuchMessage, match="not deleted"):
        messages.edit(db, 8, row.id, "back again")


def test_a_deletion_does_not_wait_for_an_acknowledgement(db: sqlite3.Connection, bob: ContactRow) -> None:
    row = sent(db, bob)
    messages.edit(db, 3, row.id, "other words")
    messages.delete(db, 4, row.id, for_both=True)
    assert to_tell(db, bob) == [(row.id, "delete")]
    assert unsettled.to_send(db, bob.id, 10) == []


def test_deleting_here_alone_tells_nobody(db: sqlite3.Connection, bob: ContactRow) -> None:
    row = sent(db, bob)
    unsettled.acknowledged(db, 3, bob.id, row.uuid)
    messages.edit(db, 4, row.id, "other words")
    messages.delete(db, 5, row.id, for_both=False)
    now = messages.get(db, row.id)
    assert (now.text, now.deleted_at, now.state) == ("", 5, State.DELIVERED)
    assert to_tell(db, bob) == []


def only_change(db: sqlite3.Connection, bob: ContactRow) -> ChangeRow:
    (change,) = unsettled.changes_to_send(db, bob.id, 10)
    return change


def test_an_answer_to_an_older_change_settles_nothing(db: sqlite3.Connection, bob: ContactRow) -> None:
    row = sent(db, bob)
    unsettled.acknowledged(db, 3, bob.id, row.uuid)
    revisions = []
    for words in ("one", "two", "three"):
        messages.edit(db, 4, row.id, words)
        revisions.append(only_change(db, bob).revision)
    assert len(set(revisions)) == 3
    unsettled.change_tried(db, row.id, revisions[0])
    assert only_change(db, bob).tries == 0
    for revision in revisions[:2]:
        unsettled.changes_settled(db, [(row.id, revision)])
    assert only_change(db, bob).revision == revisions[2]
    unsettled.change_tried(db, row.id, revisions[2])
    assert only_change(db, bob).tries == 1
    unsettled.changes_settled(db, [(row.id, revisions[2])])
    assert to_tell(db, bob) == []
    # It was sent twice, and the second answer comes only when there is a new change.
    messages.edit(db, 5, row.id, "four")
    unsettled.changes_settled(db, [(row.id, revisions[2])])
    assert to_tell(db, bob) == [(row.id, "edit")]


def test_nobody_elses_words_can_be_changed_here(db: sqlite3.Connection, bob: ContactRow) -> None:
    theirs = hear(db, bob)
    call = messages.compose(db, 1, bob.id, "photo.jpg", kind="file")
    for message in (theirs.id, call.id, 999):
        with pytest.raises(NoSuchMessage):
            messages.edit(db, 2, message, "other words")
    with pytest.raises(NoSuchMessage, match="your own"):
        messages.delete(db, 2, theirs.id, for_both=True)
    messages.delete(db, 2, theirs.id, for_both=False)
    assert messages.get(db, theirs.id).text == ""
    assert messages.unread(db) == {}


# --- Theirs ---------------------------------------------------------------------------------------------------


def test_a_message_is_kept_once(db: sqlite3.Connection, bob: ContactRow) -> None:
    first = hear(db, bob)
    assert messages.receive(db, 2, bob.id, first.uuid, "other words") is None
    messages.delete(db, 3, first.id, for_both=False)
    assert messages.receive(db, 4, bob.id, first.uuid, "hello") is None
    assert messages.get(db, first.id).text == ""
    # Uuids are chosen by their authors: the same one of somebody else, or of ours, is another message.
    hear(db, add(db, "Eve"), "mine", uuid=first.uuid)


def test_an_edit_happens_once_and_never_for_others(db: sqlite3.Connection, bob: ContactRow) -> None:
    row, eve = hear(db, bob), add(db, "Eve")
    assert not messages.receive_edit(db, 2, eve.id, N1, row.uuid, "Eve was here")
    assert messages.receive_edit(db, 3, bob.id, N1, row.uuid, "second")
    assert messages.receive_edit(db, 4, bob.id, N2, row.uuid, "third")
    assert messages.receive_edit(db, 5, bob.id, N1, row.uuid, "second")  # a replay, which is only acknowledged
    now = messages.get(db, row.id)
    assert (now.text, now.edited_at) == ("third", 4)
    ours = sent(db, bob, "ours")
    assert not messages.receive_edit(db, 6, bob.id, N3, ours.uuid, "not theirs to change")
    assert messages.get(db, ours.id).text == "ours"


def test_an_edit_that_comes_too_early_is_told_again(db: sqlite3.Connection, bob: ContactRow) -> None:
    uuid = messages.uuid()
    assert not messages.receive_edit(db, 1, bob.id, N1, uuid, "new")
    hear(db, bob, "old", uuid=uuid)
    assert messages.receive_edit(db, 2, bob.id, N1, uuid, "new")
    assert [row.text for row in messages.history(db, bob.id)] == ["new"]


def test_what_is_no_text_has_no_words_to_change(db: sqlite3.Connection, bob: ContactRow) -> None:
    row = messages.receive(db, 1, bob.id, messages.uuid(), "photo.jpg", "file")
    assert row is not None
    assert messages.receive_edit(db, 2, bob.id, N1, row.uuid, "../../passwd")  # else they would tell it for ever
    assert messages.get(db, row.id) == row


def test_a_deletion_holds_before_and_after_the_message(db: sqlite3.Connection, bob: ContactRow) -> None:
    row, uuid = hear(db, bob), messages.uuid()
    messages.receive_delete(db, 2, bob.id, N1, row.uuid)
    messages.receive_delete(db, 3, bob.id, N2, uuid)
    assert messages.receive(db, 4, bob.id, uuid, "too late") is None
    for which in (row.uuid, uuid):
        assert messages.receive_edit(db, 5, bob.id, N3, which, "nor this")
    assert all(row.text == "" and row.deleted_at is not None for row in messages.history(db, bob.id))
    assert messages.unread(db) == {}
    ours, eve = sent(db, bob), add(db, "Eve")
    messages.receive_delete(db, 6, eve.id, N1, ours.uuid)
    messages.receive_delete(db, 6, bob.id, bytes(24), ours.uuid)
    assert messages.get(db, ours.id).deleted_at is None


# --- What was read ----------------------------------------------------------------------------------------------


def test_reading_is_told_once(db: sqlite3.Connection, bob: ContactRow) -> None:
    rows = [hear(db, bob, str(i)) for i in range(4)]
    call = messages.receive(db, 1, bob.id, messages.uuid(), "", "call")
    assert call is not None
    assert messages.unread(db) == {bob.id: 5}
    assert messages.mark_read(db, 7, bob.id, rows[1].id) == 2
    assert messages.mark_read(db, 8, bob.id, rows[1].id) == 0
    assert to_tell(db, bob) == [(rows[0].id, "read"), (rows[1].id, "read")]
    messages.receive_delete(db, 9, bob.id, N1, rows[2].uuid)
    assert messages.mark_read(db, 9, bob.id, call.id, tell=True) == 2
    assert to_tell(db, bob) == [(rows[i].id, "read") for i in (0, 1, 3)]
    assert messages.unread(db) == {}
    assert (messages.get(db, rows[0].id).state, messages.get(db, rows[0].id).read_at) == (State.READ, 7)


def test_reading_need_not_be_told(db: sqlite3.Connection, bob: ContactRow) -> None:
    row = hear(db, bob)
    assert messages.mark_read(db, 7, bob.id, row.id, tell=False) == 1
    assert to_tell(db, bob) == []


# --- History ----------------------------------------------------------------------------------------------------


def test_history_in_pages(db: sqlite3.Connection, bob: ContactRow) -> None:
    eve = add(db, "Eve")
    ids = []
    for i in range(10):
        ids.append(hear(db, bob, str(i)).id)
        hear(db, eve, "other")

    def page(**how: int) -> list[int]:
        return [row.id for row in messages.history(db, bob.id, **how)]

    assert page() == ids
    assert page(limit=3) == ids[-3:]
    assert page(limit=3, before=ids[-3]) == ids[-6:-3]
    assert page(limit=3, after=ids[0]) == ids[1:4]
    assert page(after=ids[0], before=ids[4]) == ids[1:4]
    assert {contact: row.id for contact, row in messages.latest(db).items()} == {bob.id: ids[-1], eve.id: ids[-1] + 1}
    with pytest.raises(NoSuchMessage):
        messages.get(db, 999)
    assert repr(messages.get(db, ids[0])) == f"MessageRow({ids[0]})"


def test_looking_for_what_is_to_be_sent_costs_no_more_in_a_long_history(
    db: sqlite3.Connection, bob: ContactRow
) -> None:
    """It is looked for at every turn of a carrier."""

    def cost() -> int:
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        db.set_progress_handler(count, 10)
        assert unsettled.contacts_to_send(db) == {bob.id}
        assert len(to_tell(db, bob)) == 1
        db.set_progress_handler(None, 0)
        return steps

    db.execute("BEGIN")
    messages.mark_read(db, 1, bob.id, hear(db, bob).id)
    say(db, bob)
    short = cost()
    for number in range(3000):
        row = sent(db, bob, f"text {number}")
        unsettled.acknowledged(db, 3, bob.id, row.uuid)
        say(db, bob, f"waits {number}")
    assert cost() < 3 * short + 100
