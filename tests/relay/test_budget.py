"""The bytes that all stalled queues together may hold."""

from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.limits import KIB, Limits
from relay.outbox import Budget, Outbox

LIMITS: Final = Limits(flush_size=64 * KIB, queue_size=1024 * KIB, queue_share=256 * KIB, queue_total=1536 * KIB)
STEP: Final = 64 * KIB


def budget(limits: Limits = LIMITS) -> Budget[str, str]:
    return Budget(limits)


def stalled(budget: Budget[str, str], name: str, size: int, now: float = 0.0) -> Outbox[str]:
    """Return an outbox of which the transport holds `size` bytes."""
    box: Outbox[str] = Outbox(LIMITS.flush_size)
    box.force(bytes(size), "sender")
    box.take(size)
    budget.stall(box, name, size, now)
    return box


def fill(budget: Budget[str, str], box: Outbox[str], size: int) -> None:
    assert budget.fits(box, size)
    box.force(bytes(size), "sender")


def test_a_stalled_outbox_counts_and_a_resumed_one_does_not() -> None:
    all_ = budget()
    box = stalled(all_, "a", 1000)
    assert (all_.used, box.granted, box.untaken, list(all_.stalled)) == (1000, 1000, 1000, [box])
    all_.resume(box)
    assert (all_.used, box.granted, box.in_transport, list(all_.stalled)) == (0, 0, 0, [])
    assert box.room == LIMITS.flush_size


def test_resuming_twice_or_what_was_never_stalled_changes_nothing() -> None:
    all_ = budget()
    box = stalled(all_, "a", 1000)
    stalled(all_, "b", 500)
    all_.resume(box)
    all_.resume(box)
    all_.resume(Outbox(LIMITS.flush_size))
    assert all_.used == 500


def test_what_was_queued_before_the_stall_counts_too() -> None:
    all_ = budget()
    box: Outbox[str] = Outbox(LIMITS.flush_size)
    box.force(bytes(300), "sender")
    all_.stall(box, "a", 700, 0.0)
    assert all_.used == box.granted == 1000
    assert not box.put(b"x", "sender")


def test_the_outbox_itself_knows_that_it_is_stalled() -> None:
    all_ = budget()
    boxes = [stalled(all_, "a", 10), stalled(all_, "b", 10)]
    all_.resume(boxes[0])
    assert [box.stalled for box in boxes] == [False, True]


def test_stalling_marks_the_time() -> None:
    all_ = budget()
    box = stalled(all_, "a", 1000, now=5.0)
    assert box.age(12.0) == 7.0


def test_room_is_given_in_steps_so_that_the_next_frames_need_not_ask() -> None:
    all_ = budget()
    box = stalled(all_, "a", 1000)
    fill(all_, box, 200)
    assert box.granted == all_.used == 1200 + STEP
    assert box.put(bytes(STEP), "sender")
    assert not box.put(b"x", "sender")


def test_a_step_does_not_lead_beyond_the_share_or_the_bound() -> None:
    all_ = budget()
    box = stalled(all_, "a", 1000)
    fill(all_, box, LIMITS.queue_share - 1000)
    assert box.granted == LIMITS.queue_share
    fill(all_, box, LIMITS.queue_size - LIMITS.queue_share - 10)
    assert box.granted == LIMITS.queue_size


@pytest.mark.parametrize(("more", "within"), [(0, True), (1, False)])
def test_the_bound_of_one_recipient(more: int, within: bool) -> None:
    all_ = budget()
    box = stalled(all_, "a", 1000)
    assert all_.within_bound(box, LIMITS.queue_size - 1000 + more) is within


def test_the_total_is_used_to_the_last_byte() -> None:
    all_ = budget()
    first, second = stalled(all_, "a", 100), stalled(all_, "b", 100)
    fill(all_, first, LIMITS.queue_size - 100)
    fill(all_, second, LIMITS.queue_total - LIMITS.queue_size - 101)
    assert all_.used == LIMITS.queue_total - 1
    assert not all_.exceeded
    assert all_.fits(second, 1)
    second.force(b"x", "sender")
    assert not all_.fits(second, 1)


def test_a_refusal_grants_nothing() -> None:
    all_ = budget()
    first, second = stalled(all_, "a", LIMITS.queue_size), stalled(all_, "b", 300 * KIB)
    before = (all_.used, second.granted, second.room)
    assert not all_.fits(second, 212 * KIB + 1)
    assert (all_.used, second.granted, second.room) == before
    assert first.granted == LIMITS.queue_size


def test_when_the_total_is_used_up_everybody_still_has_their_share() -> None:
    all_ = budget()
    stalled(all_, "a", LIMITS.queue_size)
    stalled(all_, "b", LIMITS.queue_total - LIMITS.queue_size)
    late = stalled(all_, "c", 100)
    fill(all_, late, LIMITS.queue_share - 100)
    assert all_.exceeded
    assert late.untaken == LIMITS.queue_share
    assert not all_.fits(late, 1)


def test_a_step_of_one_does_not_use_up_the_total_for_others() -> None:
    all_ = budget()
    first = stalled(all_, "a", LIMITS.queue_size)
    second = stalled(all_, "b", LIMITS.queue_total - LIMITS.queue_size - 1000)
    third = stalled(all_, "c", 500)
    fill(all_, third, 100)
    assert third.granted == 600
    assert all_.used == first.granted + second.granted + 600 <= LIMITS.queue_total


def test_what_was_granted_and_is_not_used_can_be_taken_back() -> None:
    all_ = budget()
    boxes = [stalled(all_, name, 1000) for name in "abc"]
    for box in boxes:
        fill(all_, box, 10)
    assert all_.used == 3 * (1010 + STEP)
    all_.reclaim()
    assert [box.granted for box in boxes] == [1010] * 3
    assert [box.room for box in boxes] == [10] * 3
    assert all_.used == 3 * 1010


def test_what_is_no_longer_needed_is_given_back() -> None:
    all_ = budget()
    box = stalled(all_, "a", 1000)
    fill(all_, box, 5000)
    all_.shrunk(box, 400)
    assert all_.used == box.granted == box.untaken == 5400
    box.drop_peer_frames()
    all_.shrunk(box, 400)
    assert all_.used == box.granted == box.untaken == 400


# --- Who gives way ---------------------------------------------------------------------------------------------------


def test_nobody_gives_way_where_nobody_is_stalled() -> None:
    assert budget().heaviest(0.0) is None


def test_of_equal_age_the_largest_gives_way() -> None:
    all_ = budget()
    stalled(all_, "a", 1000)
    large = stalled(all_, "b", 1001)
    stalled(all_, "c", 10)
    assert all_.heaviest(0.0) is large
    assert all_.heaviest(60.0) is large


def test_of_equal_size_the_oldest_gives_way() -> None:
    all_ = budget()
    stalled(all_, "a", 1000, now=10.0)
    old = stalled(all_, "b", 1000, now=0.0)
    assert all_.heaviest(20.0) is old


def test_a_small_one_that_waits_long_outweighs_a_large_one_that_just_stalled() -> None:
    all_ = budget()
    small = stalled(all_, "a", 1000, now=0.0)
    large = stalled(all_, "b", 10_000, now=10.0)
    assert all_.heaviest(10.0) is small
    stalled(all_, "c", 1, now=0.0)
    all_.resume(small)
    assert all_.heaviest(10.0) is large


def test_taking_single_bytes_does_not_make_one_lighter() -> None:
    all_ = budget()
    dripping = stalled(all_, "a", 1000, now=0.0)
    for second in range(1, 21):
        all_.shrunk(dripping, 1000 - second)
        dripping.mark(float(second))
    stalled(all_, "b", 1000, now=10.0)
    assert all_.heaviest(20.0) is dripping


def test_nobody_gives_way_with_what_is_their_share() -> None:
    all_ = budget()
    within = stalled(all_, "a", LIMITS.queue_share, now=0.0)
    assert all_.heaviest(1000.0, beyond_share=True) is None
    beyond = stalled(all_, "b", LIMITS.queue_share + 1, now=1000.0)
    assert all_.heaviest(1000.0, beyond_share=True) is beyond
    assert all_.heaviest(1000.0) is within


# --- Whatever happens ------------------------------------------------------------------------------------------------

SMALL: Final = Limits(flush_size=512, queue_size=4000, queue_share=1000, queue_total=10_000)
BOXES: Final = 4
boxes: Final = st.integers(0, BOXES - 1)


class Accounting(RuleBasedStateMachine):
    """Several outboxes, each with a transport that the machine plays."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.budget: Budget[str, str] = Budget(SMALL)
        self.boxes: list[Outbox[str]] = [Outbox(SMALL.flush_size) for _ in range(BOXES)]
        self.transports = [0] * BOXES

    @rule(at=boxes, size=st.integers(1, 600))
    def send(self, at: int, size: int) -> None:
        """What a session does with a frame, but for making others give way."""
        box, frame = self.boxes[at], bytes(max(size, 34))
        if box.put(frame, "peer"):
            return
        if not box.stalled:
            self.flush(at, window=1 << 30)
            box.force(frame, "peer")
        elif self.budget.within_bound(box, len(frame)):
            share = box.untaken + len(frame) <= SMALL.queue_share
            fits = self.budget.fits(box, len(frame))
            assert fits or not share
            if fits:
                box.force(frame, "peer")
                assert box.untaken <= SMALL.queue_size
                assert share or self.budget.used <= SMALL.queue_total

    @rule(at=boxes, window=st.integers(0, 700))
    def flush(self, at: int, window: int) -> None:
        """Write; a transport that does not take all of it stalls the outbox."""
        box = self.boxes[at]
        if not box.stalled and box.size:
            self.transports[at] = max(0, sum(map(len, box.take(SMALL.flush_size)[0])) - window)
            if self.transports[at]:
                self.budget.stall(box, str(at), self.transports[at], self.now)

    @rule(at=boxes, size=st.integers(1, 700))
    def taken(self, at: int, size: int) -> None:
        """The kernel takes some; the outbox resumes with the last byte."""
        box = self.boxes[at]
        if box.stalled:
            self.transports[at] = max(0, self.transports[at] - size)
            if self.transports[at] == 0:
                self.budget.resume(box)
                box.clear_marks()

    @rule(at=boxes)
    def dropped(self, at: int) -> None:
        box = self.boxes[at]
        if box.stalled:
            box.drop_peer_frames()
            self.budget.shrunk(box, self.transports[at])

    @rule(at=boxes)
    def ours(self, at: int) -> None:
        """Say something that must be said."""
        box = self.boxes[at]
        if box.stalled:
            box.force(bytes(250), None)
            self.budget.shrunk(box, self.transports[at])

    @rule(at=boxes)
    def gone(self, at: int) -> None:
        self.budget.resume(self.boxes[at])
        self.boxes[at] = Outbox(SMALL.flush_size)
        self.transports[at] = 0

    @rule()
    def reclaim(self) -> None:
        self.budget.reclaim()
        assert self.budget.used == sum(box.untaken for box in self.budget.stalled)

    @rule()
    def tick(self) -> None:
        self.now += 1.0
        for box, owner in self.budget.stalled.items():
            self.budget.shrunk(box, self.transports[int(owner)])
            box.mark(self.now)

    @invariant()
    def adds_up(self) -> None:
        stalled = [box for box in self.boxes if box.stalled]
        assert sorted(map(id, self.budget.stalled)) == sorted(map(id, stalled))
        assert self.budget.used == sum(box.granted for box in stalled)
        for box in self.boxes:
            if box.stalled:
                assert box.granted >= box.untaken
                assert box.room == box.granted - box.in_transport
            else:
                assert (box.granted, box.in_transport, box.room) == (0, 0, SMALL.flush_size)

    @invariant()
    def the_heaviest_is_stalled_and_none_is_heavier(self) -> None:
        heaviest = self.budget.heaviest(self.now)
        assert (heaviest is None) == (not self.budget.stalled)
        for box in self.budget.stalled:
            assert heaviest is not None
            assert box.untaken * (1 + box.age(self.now)) <= heaviest.untaken * (1 + heaviest.age(self.now))

    def teardown(self) -> None:
        for box in self.boxes:
            self.budget.resume(box)
        assert self.budget.used == 0
        assert not self.budget.stalled


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(deadline=None, max_examples=100, stateful_step_count=50)
