"""The queue to another node against a plain list: order, numbers, and each byte given back once."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.backplane import outgoing
from relay.backplane.outgoing import RECORD, Outgoing

BOUND = 4000
WINDOW = 1000


class Queue(Outgoing):
    """One that notes when it asks to be flushed."""

    def __init__(self) -> None:
        super().__init__(BOUND)
        self.asked = 0

    def wanted(self) -> None:
        self.asked += 1


class OutgoingMachine(RuleBasedStateMachine):
    """The model: all records that are not acknowledged, and how many of them are on their way."""

    @initialize()
    def begin(self) -> None:
        self.window, outgoing.WINDOW = outgoing.WINDOW, WINDOW  # type: ignore[misc]
        self.queue = Queue()
        self.all: list[tuple[bytes, Any]] = []
        self.sent = self.base = self.stretched = self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "window"):
            outgoing.WINDOW = self.window  # type: ignore[misc]

    def cost(self, records: list[tuple[bytes, Any]]) -> int:
        return sum(len(record) + outgoing._ENTRY for record, _ in records)

    def added(self, record: bytes, origin: object, *, put: bool, asked: int) -> None:
        room = BOUND + self.stretched - self.cost(self.all)
        assert put == (self.queue.alive and len(record) + outgoing._ENTRY <= room)
        if put:
            self.note(record, origin, asked)

    def note(self, record: bytes, origin: object, asked: int) -> None:
        # Asked for once, by the first that waits.
        assert self.queue.asked == asked + (len(self.all) == self.sent)
        self.all.append((record, origin))

    def next(self) -> bytes:
        self.count += 1
        return self.count.to_bytes(8, "big")

    @rule(size=st.integers(0, 900))
    def put_packet(self, size: int) -> None:
        sender, target, packet, asked = self.next(), self.next(), bytes(size), self.queue.asked
        put = self.queue.put_packet(sender, sender, target, packet)
        body = bytes(1) + target + sender + packet
        self.added(RECORD.pack(outgoing.FRAME, len(body)) + body, sender, put=put, asked=asked)

    @rule(size=st.integers(0, 900))
    def put_frame(self, size: int) -> None:
        record, asked = self.next() + bytes(size), self.queue.asked
        self.added(record, record, put=self.queue.put_frame(record, record), asked=asked)

    @rule(size=st.integers(0, 900))
    def put_own(self, size: int) -> None:
        body, asked = self.next() + bytes(size), self.queue.asked
        self.queue.put(7, body)
        if self.queue.alive:
            self.note(RECORD.pack(7, len(body)) + body, None, asked)

    @rule(by=st.integers(1, 2000))
    def stretch(self, by: int) -> None:
        change = -self.stretched or by
        self.queue.stretch(change)
        self.stretched += change

    @rule(most=st.integers(1, 1500))
    def take(self, most: int) -> None:
        waiting, before = self.all[self.sent :], self.cost(self.all[: self.sent])
        parts = self.queue.take(most)
        count = len(parts) // 2
        assert b"".join(parts) == b"".join(record for record, _ in waiting[:count])
        taken = waiting[:count]
        assert bool(count) == (bool(waiting) and before < WINDOW)
        # One record may go beyond, what comes before it may not.
        assert sum(len(record) for record, _ in taken[:-1]) < most
        assert not taken or before + self.cost(taken[:-1]) < WINDOW
        self.sent += count

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(-1, self.sent + 1))
        can = self.queue.acknowledge(self.base + number)
        assert can == (0 <= number <= self.sent)
        if can:
            del self.all[:number]
            self.sent -= number
            self.base += number

    @rule()
    def again(self) -> None:
        self.queue.again()
        self.sent = 0

    @rule()
    def lose_sent(self) -> None:
        told = list(self.queue.lose_sent())
        assert told == [(record, origin) for record, origin in self.all[: self.sent] if origin is not None]
        del self.all[: self.sent]
        self.sent = self.base = 0

    @precondition(lambda self: self.count > 12)
    @rule()
    def lose_all(self) -> None:
        told = list(self.queue.lose_all())
        assert told == [(record, origin) for record, origin in self.all if origin is not None]
        self.all.clear()
        self.sent = 0

    @invariant()
    def as_the_model_says(self) -> None:
        if not hasattr(self, "queue"):
            return
        queue = self.queue
        assert queue.waiting == self.cost(self.all)
        assert queue._sent_bytes == self.cost(self.all[: self.sent])
        assert queue._sent_count == self.sent
        assert queue.settled == (not self.all)
        if queue.alive:
            assert queue._room == BOUND + self.stretched - self.cost(self.all)


TestOutgoing = OutgoingMachine.TestCase
