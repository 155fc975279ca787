"""Whatever comes, in whatever order and however often: a store ends as a plain model of the rules does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from peers.store import contacts, feed, messages, unsettled
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.store.stores import add, new_store

if TYPE_CHECKING:
    from peers.store.message_rows import MessageRow

UUIDS = st.integers(0, 3).map(lambda i: bytes([i]) * 16)
NONCES = st.integers(0, 7).map(lambda i: bytes([i]) * 24)
TEXTS = st.sampled_from(["one", "two", "three"])
PEERS = st.integers(0, 1)


@dataclass
class Theirs:
    text: str
    deleted: bool = False


@dataclass
class Ours:
    text: str
    state: State = State.QUEUED
    exposed: bool = False
    deleted: bool = False
    change: str = ""
    settled: set[int] = field(default_factory=set)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.db = new_store()
        self.peers = [add(self.db, name).id for name in ("Bob", "Eve")]
        self.theirs: list[dict[bytes, Theirs]] = [{}, {}]
        self.nonces: list[set[bytes]] = [set(), set()]
        self.ours: dict[int, tuple[int, bytes, Ours]] = {}
        self.now = 0

    def tick(self) -> int:
        self.now += 1
        return self.now

    # --- What comes

    @rule(peer=PEERS, uuid=UUIDS, text=TEXTS)
    def receive(self, peer: int, uuid: bytes, text: str) -> None:
        row = messages.receive(self.db, self.tick(), self.peers[peer], uuid, text)
        assert (row is not None) == (uuid not in self.theirs[peer])
        self.theirs[peer].setdefault(uuid, Theirs(text))

    @rule(peer=PEERS, nonce=NONCES, uuid=UUIDS, text=TEXTS)
    def receive_edit(self, peer: int, nonce: bytes, uuid: bytes, text: str) -> None:
        done = messages.receive_edit(self.db, self.tick(), self.peers[peer], nonce, uuid, text)
        known = self.theirs[peer].get(uuid)
        if nonce in self.nonces[peer]:
            assert done
        elif known is None:
            assert not done
        else:
            assert done
            self.nonces[peer].add(nonce)
            if not known.deleted:
                known.text = text

    @rule(peer=PEERS, nonce=NONCES, uuid=UUIDS)
    def receive_delete(self, peer: int, nonce: bytes, uuid: bytes) -> None:
        messages.receive_delete(self.db, self.tick(), self.peers[peer], nonce, uuid)
        if nonce not in self.nonces[peer]:
            self.nonces[peer].add(nonce)
            known = self.theirs[peer].setdefault(uuid, Theirs(""))
            known.deleted, known.text = True, ""

    @rule(peer=PEERS, by=PEERS, read=st.booleans(), data=st.data())
    @precondition(lambda self: self.ours)
    def acknowledge(self, peer: int, by: int, read: bool, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(sorted(self.ours)))
        of, uuid, ours = self.ours[message]
        unsettled.acknowledged(self.db, self.tick(), self.peers[by], uuid, read=read)
        if of == by:
            ours.state = max(ours.state, State.READ if read else State.DELIVERED)

    # --- What is done here

    @rule(peer=PEERS, text=TEXTS)
    def compose(self, peer: int, text: str) -> None:
        row = messages.compose(self.db, self.tick(), self.peers[peer], text)
        self.ours[row.id] = (peer, row.uuid, Ours(text))

    @rule(data=st.data())
    @precondition(lambda self: self.ours)
    def send(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(sorted(self.ours)))
        _, _, ours = self.ours[message]
        still = unsettled.mark_sent(self.db, self.tick(), [message])
        leaves = ours.state < State.DELIVERED and not ours.deleted
        assert [row.text for row in still.values()] == ([ours.text] if leaves else [])
        if leaves:
            ours.state, ours.exposed = State.SENT, True

    @rule(data=st.data())
    @precondition(lambda self: self.ours)
    def refused(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(sorted(self.ours)))
        _, _, ours = self.ours[message]
        unsettled.mark_queued(self.db, self.tick(), [message])
        if ours.state is State.SENT:
            ours.state = State.QUEUED

    @rule(data=st.data(), text=TEXTS)
    @precondition(lambda self: any(not ours.deleted for _, _, ours in self.ours.values()))
    def edit(self, data: st.DataObject, text: str) -> None:
        message = data.draw(st.sampled_from([i for i, (_, _, ours) in sorted(self.ours.items()) if not ours.deleted]))
        _, _, ours = self.ours[message]
        messages.edit(self.db, self.tick(), message, text)
        ours.text = text
        if ours.exposed:
            ours.change = "edit"

    @rule(data=st.data(), for_both=st.booleans())
    @precondition(lambda self: self.ours)
    def delete(self, data: st.DataObject, for_both: bool) -> None:
        message = data.draw(st.sampled_from(sorted(self.ours)))
        _, _, ours = self.ours[message]
        messages.delete(self.db, self.tick(), message, for_both=for_both)
        ours.deleted, ours.text = True, ""
        if for_both and ours.exposed:
            ours.change = "delete"
        elif not for_both and ours.change != "delete":
            ours.change = ""

    @rule(data=st.data(), stale=st.booleans())
    @precondition(lambda self: self.ours)
    def settle(self, data: st.DataObject, stale: bool) -> None:
        message = data.draw(st.sampled_from(sorted(self.ours)))
        _, _, ours = self.ours[message]
        row = self.db.execute("SELECT revision FROM changes WHERE message = ?", (message,)).fetchone()
        if stale:
            unsettled.changes_settled(self.db, [(message, revision) for revision in ours.settled])
        elif row is not None:
            assert row[0] not in ours.settled
            ours.settled.add(row[0])
            unsettled.changes_settled(self.db, [(message, row[0])])
            ours.change = ""

    @rule(peer=PEERS)
    def read(self, peer: int) -> None:
        contact = self.peers[peer]
        unread = messages.unread(self.db).get(contact, 0)
        assert messages.mark_read(self.db, self.tick(), contact, 2**40, tell=False) == unread

    # --- What always holds

    @invariant()
    def as_the_model_says(self) -> None:
        for peer, contact in enumerate(self.peers):
            rows = messages.history(self.db, contact, limit=10_000)
            theirs = {row.uuid: Theirs(row.text, row.deleted_at is not None) for row in rows if not row.outgoing}
            assert theirs == self.theirs[peer]
            ours = {row.id: row for row in rows if row.outgoing}
            expected = {message: model for message, (of, _, model) in self.ours.items() if of == peer}
            assert ours.keys() == expected.keys()
            for message, model in expected.items():
                self.compare(ours[message], model)
            waiting = [m for m, model in expected.items() if model.state < State.DELIVERED and not model.deleted]
            assert [row.id for row in unsettled.to_send(self.db, contact, 10_000)] == waiting

    def compare(self, row: MessageRow, model: Ours) -> None:
        assert (row.text, row.state, row.deleted_at is not None) == (model.text, model.state, model.deleted)
        found = self.db.execute("SELECT kind FROM changes WHERE message = ?", (row.id,)).fetchone()
        assert ("" if found is None else found[0]) == model.change

    @invariant()
    def each_message_was_told_once(self) -> None:
        told = [event.message for event in feed.read(self.db, 0, 10_000) if event.kind is Kind.MESSAGE]
        assert len(told) == len(set(told))
        rows = [row for contact in self.peers for row in messages.history(self.db, contact, limit=10_000)]
        # What was deleted before it came was never here.
        assert set(told) >= {row.id for row in rows if row.deleted_at is None}
        assert set(told) <= {row.id for row in rows}

    @invariant()
    def the_index_agrees_with_the_texts(self) -> None:
        self.db.execute("INSERT INTO messages_text (messages_text, rank) VALUES ('integrity-check', 1)")
        for word in ("one", "two", "three"):
            expected = {
                row.id for contact in self.peers for row in messages.history(self.db, contact) if row.text == word
            }
            assert {row.id for row in messages.search(self.db, word, limit=10_000)} == expected

    def teardown(self) -> None:
        contacts.remove(self.db, self.tick(), self.peers[0])
        assert messages.history(self.db, self.peers[0]) == []
        self.db.close()


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStore = StoreMachine.TestCase
