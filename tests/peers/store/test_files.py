"""The rules of files in a store, without anybody who carries."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from peers.store import contacts, feed, file_rows, file_steps, files, messages, unsettled
from peers.store.errors import BadFile, Blocked, NoSuchMessage
from peers.store.feed import Kind
from peers.store.file_steps import OFFERS, Policy, Taken
from peers.store.message_rows import State
from wire.peer_commands import CancelReason, FileOffer, Pull

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from peers.store.file_rows import FileRow

ROOMY = Policy(auto_accept=1000, room=10**9)


@pytest.fixture
def bob(db: sqlite3.Connection) -> int:
    return contacts.add(db, 1, Identity.generate().public, nickname="Bob").id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"x" * 100)
    return path


def offered(size: int = 100, *, pull: bool = True, chunk: int = 4096, name: str = "a.txt") -> FileOffer:
    digest = Pull(messages.uuid(), chunk, bytes(32)) if pull else None
    return FileOffer(messages.uuid(), name, "text/plain", size, digest)


def receive(
    db: sqlite3.Connection, contact: int, offer: FileOffer, policy: Policy = ROOMY, nonce: bytes | None = None
) -> tuple[Taken, FileRow | None]:
    return file_steps.receive_offer(db, 2, contact, nonce or os.urandom(24), offer, policy)


def taken(db: sqlite3.Connection, contact: int, offer: FileOffer, policy: Policy = ROOMY) -> FileRow:
    what, row = receive(db, contact, offer, policy)
    assert what is Taken.NEW
    assert row is not None
    return row


def details(db: sqlite3.Connection, message: int) -> list[str]:
    return [event.detail for event in feed.read(db, 0) if event.kind is Kind.FILE and event.message == message]


# --- Ours -------------------------------------------------------------------------------------------------------------


def test_an_offer_is_a_message(db: sqlite3.Connection, bob: int, path: Path) -> None:
    row = files.offer(db, 1, bob, path)
    assert (row.name, row.mime, row.size, row.state) == ("report.pdf", "application/pdf", 100, "offered")
    assert files.content_path(path.parent / "elsewhere", row) == path.resolve()
    message = messages.get(db, row.message)
    assert (message.kind, message.text, message.state) == ("file", "report.pdf", State.QUEUED)
    assert details(db, row.message) == ["offered"]
    assert unsettled.to_send(db, bob, 10) == []  # it is no text
    assert file_steps.to_offer(db, bob) == []  # not before its digest is known
    assert file_steps.to_digest(db) == row
    file_steps.digested(db, row.message, bytes(32))
    assert file_steps.to_digest(db) is None
    assert [each.message for each in file_steps.to_offer(db, bob)] == [row.message]


def test_what_cannot_be_sent_is_not_offered(db: sqlite3.Connection, bob: int, path: Path) -> None:
    os.mkfifo(path.parent / "pipe")
    for bad in (path.parent, path.parent / "missing", path.parent / "pipe", path.parent / "nul\0"):
        with pytest.raises(BadFile):
            files.offer(db, 1, bob, bad)
    huge = path.parent / "huge"
    with huge.open("wb") as file:
        file.truncate((1 << 40) + 1)
    with pytest.raises(BadFile, match="are the most"):
        files.offer(db, 1, bob, huge)
    contacts.set_blocked(db, 1, bob, blocked=True)
    with pytest.raises(Blocked):
        files.offer(db, 1, bob, path)
    assert messages.history(db, bob) == []


def test_a_link_is_followed_once(db: sqlite3.Connection, bob: int, path: Path) -> None:
    link = path.parent / "link.txt"
    link.symlink_to(path)
    row = files.offer(db, 1, bob, link)
    assert row.name == "link.txt"
    assert row.source == str(path.resolve())


def test_an_acknowledged_file_is_done_and_stays_so(db: sqlite3.Connection, bob: int, path: Path) -> None:
    row = files.offer(db, 1, bob, path)
    file_steps.digested(db, row.message, bytes(32))
    assert row.message in unsettled.mark_sent(db, 1, [row.message])
    wanted = file_steps.wanted(db, 1, bob, row.file_id, some=False)
    assert wanted is not None
    assert wanted.state == "offered"
    wanted = file_steps.wanted(db, 1, bob, row.file_id, some=True)
    assert wanted is not None
    assert wanted.state == "moving"
    assert file_steps.acknowledged(db, 1, bob, row.uuid) == row.message
    assert (files.get(db, row.message).state, files.get(db, row.message).moved) == ("done", 100)
    assert messages.get(db, row.message).state is State.DELIVERED
    assert unsettled.mark_sent(db, 1, [row.message]) == {}
    assert file_steps.cancelled(db, 1, bob, os.urandom(24), row.file_id, 0) == []
    with pytest.raises(BadFile, match="too late"):
        files.cancel(db, 1, row.message)
    assert details(db, row.message) == ["offered", "moving", "done"]


def test_a_failed_file_fails_its_message_and_no_acknowledgement_mends_it(
    db: sqlite3.Connection, bob: int, path: Path
) -> None:
    row = files.offer(db, 1, bob, path)
    file_steps.digested(db, row.message, bytes(32))
    unsettled.mark_sent(db, 1, [row.message])
    files.cancel(db, 1, row.message)
    assert file_steps.to_tell(db) == [files.get(db, row.message)]
    assert messages.get(db, row.message).state is State.FAILED
    file_steps.acknowledged(db, 1, bob, row.uuid)
    assert files.get(db, row.message).state == "failed"
    assert messages.get(db, row.message).state is State.FAILED
    file_steps.told(db, row.message)
    assert file_steps.to_tell(db) == []


def test_nobody_is_told_of_a_file_that_never_left(db: sqlite3.Connection, bob: int, path: Path) -> None:
    row = files.offer(db, 1, bob, path)
    files.cancel(db, 1, row.message)
    assert file_steps.to_tell(db) == []


def test_one_sent_unasked_is_sent_so_often_and_then_fails(db: sqlite3.Connection, bob: int, path: Path) -> None:
    row = files.offer(db, 1, bob, path)
    assert file_steps.pushing(db, 1, row.message, 2) is not None
    assert file_steps.pushing(db, 1, row.message, 2) is not None
    assert file_steps.pushing(db, 1, row.message, 2) is None
    assert files.get(db, row.message).reason == CancelReason.GIVEN_UP
    assert messages.get(db, row.message).state is State.FAILED


# --- Theirs -----------------------------------------------------------------------------------------------------------


def test_what_is_small_is_taken_and_what_is_big_waits_for_a_yes(db: sqlite3.Connection, bob: int) -> None:
    small, big = taken(db, bob, offered(1000)), taken(db, bob, offered(1001))
    assert (small.state, big.state) == ("moving", "offered")
    assert [row.message for row in file_steps.to_receive(db)] == [small.message]
    assert files.accept(db, 3, big.message).state == "moving"
    assert files.accept(db, 3, big.message).state == "moving"
    files.refuse(db, 3, big.message)
    assert files.get(db, big.message).reason == CancelReason.REFUSED
    with pytest.raises(BadFile, match="refused by the receiver"):
        files.accept(db, 3, big.message)
    assert file_rows.to_discard(db) == [big.message]


def test_a_big_one_that_does_not_wait_is_refused(db: sqlite3.Connection, bob: int) -> None:
    row = taken(db, bob, offered(1001, pull=False))
    assert (row.state, row.reason) == ("failed", CancelReason.REFUSED)


def test_no_room(db: sqlite3.Connection, bob: int) -> None:
    row = taken(db, bob, offered(100), Policy(1000, 99))
    assert (row.state, row.reason) == ("failed", CancelReason.NO_ROOM)
    assert file_steps.to_tell(db) == [row]
    # There may be room by the time that somebody says yes.
    assert taken(db, bob, offered(1001), Policy(1000, 99)).state == "offered"


def test_an_offer_is_kept_once_whatever_became_of_it(db: sqlite3.Connection, bob: int) -> None:
    offer, nonce = offered(), os.urandom(24)
    _, row = receive(db, bob, offer, nonce=nonce)
    assert row is not None
    for again in (nonce, os.urandom(24)):
        what, same = receive(db, bob, offer, nonce=again)
        assert what is Taken.KNOWN
        assert same is not None
        assert same.message == row.message
    messages.delete(db, 3, row.message, for_both=False)
    what, same = receive(db, bob, offer)
    assert what is Taken.KNOWN
    assert same is not None
    assert (same.state, same.reason, same.name) == ("failed", CancelReason.REFUSED, "")
    assert len(messages.history(db, bob)) == 1


def test_one_sent_unasked_comes_back_to_life_when_it_is_sent_again_but_not_when_it_is_replayed(
    db: sqlite3.Connection, bob: int
) -> None:
    offer, nonce = offered(pull=False), os.urandom(24)
    _, row = receive(db, bob, offer, nonce=nonce)
    assert row is not None
    file_steps.fail(db, 3, row.message, CancelReason.GIVEN_UP, tell=True)
    _, replayed = receive(db, bob, offer, nonce=nonce)
    assert replayed is not None
    assert replayed.state == "failed"
    _, again = receive(db, bob, offer)
    assert again is not None
    assert (again.message, again.state, again.reason) == (row.message, "moving", None)
    assert file_rows.to_discard(db) == []
    files.refuse(db, 4, row.message)
    _, refused = receive(db, bob, offer)
    assert refused is not None
    assert refused.state == "failed"  # a no is a no


def test_so_many_may_be_open(db: sqlite3.Connection, bob: int) -> None:
    rows = [taken(db, bob, offered(5000)) for _ in range(OFFERS)]
    assert receive(db, bob, offered()) == (Taken.REFUSED, None)
    carol = contacts.add(db, 1, Identity.generate().public, nickname="Carol").id
    taken(db, carol, offered())
    files.refuse(db, 1, rows[0].message)
    taken(db, bob, offered())


def test_chunks_that_make_no_sense_are_refused(db: sqlite3.Connection, bob: int) -> None:
    assert receive(db, bob, offered(10**6, chunk=1)) == (Taken.REFUSED, None)
    assert receive(db, bob, offered(1 << 40, chunk=1024)) == (Taken.REFUSED, None)
    assert taken(db, bob, offered(1, chunk=1)).state == "moving"
    assert taken(db, bob, offered(1 << 40, chunk=32768)).state == "offered"


def test_strangers_have_one_allowance_for_all_their_files(db: sqlite3.Connection) -> None:
    stranger = contacts.add(db, 1, Identity.generate().public, nickname="Mallory", origin="introduction").id
    assert taken(db, stranger, offered(600)).state == "moving"
    assert taken(db, stranger, offered(600)).state == "offered"
    assert taken(db, stranger, offered(400, pull=False)).state == "moving"
    assert taken(db, stranger, offered(1, pull=False)).state == "failed"
    messages.compose(db, 1, stranger, "who are you?")
    assert taken(db, stranger, offered(600)).state == "moving"


def test_names_and_types_are_made_safe_before_they_are_kept(db: sqlite3.Connection, bob: int) -> None:
    offer = replace(offered(name="../../\x1b[2Jevil\u202e.txt"), mime="text/plain\r\nX: y")
    row = taken(db, bob, offer)
    assert row.name == "[2Jevil.txt"
    assert row.mime == "application/octet-stream"


def test_a_file_taken_back_before_it_came_is_as_good_as_delivered(db: sqlite3.Connection, bob: int) -> None:
    offer = offered()
    assert offer.pull is not None
    messages.receive_delete(db, 1, bob, os.urandom(24), offer.pull.uuid)
    assert receive(db, bob, offer) == (Taken.GONE, None)
    messages.receive(db, 1, bob, uuid := messages.uuid(), "text")
    posing = FileOffer(messages.uuid(), "a", "", 1, Pull(uuid, 4096, bytes(32)))
    assert receive(db, bob, posing) == (Taken.REFUSED, None)


def test_progress_is_written_down_until_it_is_not_wanted_any_more(db: sqlite3.Connection, bob: int) -> None:
    row = taken(db, bob, offered())
    assert file_steps.came(db, 3, row.message, b"\1" * 16, 50, 4096, tell=True)
    assert file_steps.came(db, 3, row.message, b"\2" * 16, 60, 4096, tell=False)
    assert files.get(db, row.message).moved == 60
    done = file_steps.whole(db, 4, row.message)
    assert done is not None
    assert (done.state, done.moved, done.have) == ("done", 100, None)
    assert not file_steps.came(db, 5, row.message, b"\3" * 16, 70, 4096, tell=True)
    assert file_steps.whole(db, 5, row.message) is None
    assert details(db, row.message) == ["moving", "progress", "done"]


def test_the_end_of_one_sent_unasked_tells_which_message_it_is(db: sqlite3.Connection, bob: int) -> None:
    offer, uuid = offered(pull=False), messages.uuid()
    row = taken(db, bob, offer)
    assert not row.ended
    ended = file_steps.ended(db, 3, bob, offer.file_id, uuid)
    assert ended is not None
    assert (ended.uuid, ended.ended) == (uuid, True)
    other = file_steps.ended(db, 3, bob, offer.file_id, messages.uuid())  # the first word counts
    assert other is not None
    assert other.uuid == uuid
    assert file_steps.ended(db, 3, bob, messages.uuid(), uuid) is None
    pulled = offered()
    taken(db, bob, pulled)
    assert file_steps.ended(db, 3, bob, pulled.file_id, messages.uuid()) is None


def test_the_same_message_offered_under_another_id_is_there_once(db: sqlite3.Connection, bob: int) -> None:
    first, second, third, uuid = offered(pull=False), offered(pull=False), offered(pull=False), messages.uuid()
    taken(db, bob, first)
    file_steps.ended(db, 3, bob, first.file_id, uuid)  # some chunks were lost, so it is not whole
    newer = taken(db, bob, second)
    ended = file_steps.ended(db, 3, bob, second.file_id, uuid)
    assert ended is not None
    assert ended.message == newer.message
    assert [row.message for row in files.list_of(db, bob)] == [newer.message]
    file_steps.whole(db, 4, newer.message)
    duplicate = taken(db, bob, third)
    ended = file_steps.ended(db, 5, bob, third.file_id, uuid)  # our acknowledgement was lost
    assert ended is not None
    assert (ended.message, ended.state) == (newer.message, "done")
    assert [row.message for row in files.list_of(db, bob)] == [newer.message]
    assert duplicate.message in file_rows.to_discard(db)


def test_an_end_that_poses_as_a_text_is_refused(db: sqlite3.Connection, bob: int) -> None:
    messages.receive(db, 1, bob, uuid := messages.uuid(), "text")
    offer = offered(pull=False)
    row = taken(db, bob, offer)
    assert file_steps.ended(db, 3, bob, offer.file_id, uuid) is None
    assert files.get(db, row.message).state == "failed"
    assert messages.history(db, bob)[0].text == "text"


def test_a_cancellation_counts_once(db: sqlite3.Connection, bob: int) -> None:
    offer, nonce = offered(pull=False), os.urandom(24)
    row = taken(db, bob, offer)
    assert file_steps.cancelled(db, 3, bob, nonce, offer.file_id, 200) == [row.message]
    assert files.get(db, row.message).reason == CancelReason.GIVEN_UP
    assert files.get(db, row.message).why
    receive(db, bob, offer)
    assert files.get(db, row.message).state == "moving"
    assert file_steps.cancelled(db, 3, bob, nonce, offer.file_id, 0) == []
    assert files.get(db, row.message).state == "moving"


def test_deleting_the_message_ends_the_file_and_discards_what_is_stored(
    db: sqlite3.Connection, bob: int, path: Path
) -> None:
    theirs, ours = taken(db, bob, offered()), files.offer(db, 1, bob, path)
    done = taken(db, bob, offered())
    file_steps.whole(db, 3, done.message)
    for row in (theirs, ours, done):
        messages.delete(db, 4, row.message, for_both=False)
    assert files.get(db, theirs.message).state == "failed"
    assert files.get(db, ours.message).state == "failed"
    assert file_rows.to_discard(db) == [theirs.message, done.message]
    assert files.list_of(db) == []
    file_rows.discarded(db, [theirs.message, done.message])
    assert file_rows.to_discard(db) == []


def test_removing_a_contact_discards_what_they_sent(db: sqlite3.Connection, bob: int, path: Path) -> None:
    theirs = taken(db, bob, offered())
    files.offer(db, 1, bob, path)
    contacts.remove(db, 3, bob)
    assert file_rows.to_discard(db) == [theirs.message]
    with pytest.raises(NoSuchMessage):
        files.get(db, theirs.message)


def test_read_is_not_told_of_a_file_before_it_is_whole(db: sqlite3.Connection, bob: int) -> None:
    row = taken(db, bob, offered())
    messages.mark_read(db, 3, bob, row.message)
    assert unsettled.changes_to_send(db, bob, 10) == []
    file_steps.whole(db, 4, row.message)
    assert [change.kind for change in unsettled.changes_to_send(db, bob, 10)] == ["read"]


def test_lists(db: sqlite3.Connection, bob: int, path: Path) -> None:
    rows = [taken(db, bob, offered()) for _ in range(3)]
    file_steps.whole(db, 3, rows[1].message)
    mine = files.offer(db, 1, bob, path)
    everything = [row.message for row in (*rows, mine)]
    assert [row.message for row in files.list_of(db)] == everything
    assert [row.message for row in files.list_of(db, bob, limit=2)] == everything[-2:]
    assert [row.message for row in files.list_of(db, bob, limit=2, before=everything[2])] == everything[:2]
    assert [row.message for row in files.list_of(db, bob, open_only=True)] == [everything[0], *everything[2:]]
    assert files.list_of(db, bob + 1) == []
    with pytest.raises(NoSuchMessage, match="is no file"):
        files.get(db, 10**6)


# --- Saving -----------------------------------------------------------------------------------------------------------


def stored(db: sqlite3.Connection, bob: int, files_dir: Path) -> FileRow:
    row = taken(db, bob, offered(100))
    files_dir.mkdir(exist_ok=True)
    done = file_steps.whole(db, 3, row.message)
    assert done is not None
    files.content_path(files_dir, done).write_bytes(b"x" * 100)
    return done


def test_saving_into_a_directory_never_overwrites(db: sqlite3.Connection, bob: int, tmp_path: Path) -> None:
    row = stored(db, bob, tmp_path / "files")
    to = tmp_path / "out"
    to.mkdir()
    (to / "a (2).txt").symlink_to(tmp_path / "nowhere")
    saved = [files.save(row, tmp_path / "files", to).name for _ in range(3)]
    assert saved == ["a.txt", "a (3).txt", "a (4).txt"]
    assert (to / "a (3).txt").read_bytes() == b"x" * 100
    assert (to / "a.txt").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "nowhere").exists()
    (to / "a.txt").write_bytes(b"mine")
    assert files.save(row, tmp_path / "files", to, overwrite=True) == to / "a.txt"
    assert (to / "a.txt").read_bytes() == b"x" * 100
    assert sorted(each.name for each in to.iterdir()) == ["a (2).txt", "a (3).txt", "a (4).txt", "a.txt"]


def test_saving_to_a_path(db: sqlite3.Connection, bob: int, tmp_path: Path) -> None:
    row = stored(db, bob, tmp_path / "files")
    assert files.save(row, tmp_path / "files", tmp_path / "b.bin") == tmp_path / "b.bin"
    with pytest.raises(BadFile, match="exists already"):
        files.save(row, tmp_path / "files", tmp_path / "b.bin")
    with pytest.raises(BadFile, match="cannot write"):
        files.save(row, tmp_path / "files", tmp_path / "missing" / "b.bin")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b.bin", "files"]


def test_what_is_not_whole_is_not_saved(db: sqlite3.Connection, bob: int, tmp_path: Path) -> None:
    waiting = taken(db, bob, offered())
    with pytest.raises(BadFile, match="its state is moving"):
        files.save(waiting, tmp_path, tmp_path / "x")
    row = stored(db, bob, tmp_path / "files")
    content = files.content_path(tmp_path / "files", row)
    content.write_bytes(b"x" * 99)
    with pytest.raises(BadFile, match="not whole any more"):
        files.save(row, tmp_path / "files", tmp_path / "x")
    content.unlink()
    with pytest.raises(BadFile, match="cannot be read"):
        files.save(row, tmp_path / "files", tmp_path / "x")
    assert not (tmp_path / "x").exists()
