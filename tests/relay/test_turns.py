"""What is done once per turn of the event loop: flushes, slices of seals, steps of tasks."""

from collections.abc import Iterator
from typing import Final, cast

import pytest

from relay.session import Session
from relay.turns import Turns
from tests.relay.loop import Loop, Steps

SLICE: Final = 4.0


class Fake:
    """A session, as far as turns go: it says what is done with it."""

    def __init__(self, log: list[str], name: str, work: int = 0) -> None:
        self.dirty = False
        self.working = False
        self.left = work
        self._log = log
        self._name = name

    def flush(self) -> None:
        self._log.append(f"flush {self._name}")

    def work(self) -> bool:
        self._log.append(f"work {self._name}")
        self.left -= 1
        return self.left > 0

    @property
    def session(self) -> Session:
        return cast("Session", self)


class Rig:
    """A loop, turns whose clock moves by one at each look, and a log."""

    def __init__(self, slice_: float = SLICE) -> None:
        self.loop = Loop()
        self.turns = Turns(self.loop.asyncio, slice_, Steps(1.0))
        self.log: list[str] = []

    def fake(self, name: str, work: int = 0) -> Fake:
        return Fake(self.log, name, work)

    def steps(self, name: str, count: int) -> Iterator[None]:
        for step in range(count):
            self.log.append(f"{name}{step}")
            yield

    def turn(self) -> list[str]:
        """Run one turn and return what was done in it."""
        self.loop.turn()
        log, self.log[:] = list(self.log), []
        return log


@pytest.fixture
def rig() -> Rig:
    return Rig()


def idle(rig: Rig) -> bool:
    return rig.turns.idle


def test_nothing_is_scheduled_before_there_is_something_to_do(rig: Rig) -> None:
    assert idle(rig)
    assert not rig.loop.ready


def test_sessions_are_flushed_once_in_the_order_they_were_touched(rig: Rig) -> None:
    first, second = rig.fake("first"), rig.fake("second")
    rig.turns.touch(second.session)
    rig.turns.touch(first.session)
    assert [first.dirty, second.dirty] == [True, True]
    assert not idle(rig)
    assert len(rig.loop.ready) == 1
    assert rig.turn() == ["flush second", "flush first"]
    assert [first.dirty, second.dirty] == [False, False]
    assert idle(rig)


def test_a_touch_during_a_flush_is_flushed_in_the_same_turn(rig: Rig) -> None:
    late = rig.fake("late")

    class Touching(Fake):
        def flush(self) -> None:
            super().flush()
            rig.turns.touch(late.session)

    rig.turns.touch(Touching(rig.log, "early").session)
    assert rig.turn() == ["flush early", "flush late"]


def test_what_is_sealed_is_written_in_the_same_turn(rig: Rig) -> None:
    class Sealing(Fake):
        def work(self) -> bool:
            rig.turns.touch(self.session)
            return super().work()

    rig.turns.work(Sealing(rig.log, "a").session)
    assert rig.turn() == ["work a", "flush a"]
    # Touching scheduled nothing of its own: the turn was under way.
    rig.loop.run()
    assert rig.turns.idle


def test_work_goes_round(rig: Rig) -> None:
    a, b = rig.fake("a", work=3), rig.fake("b", work=1)
    rig.turns.work(a.session)
    rig.turns.work(b.session)
    assert rig.turn() == ["work a", "work b", "work a", "work a"]
    assert not a.working


def test_a_session_stands_in_line_once(rig: Rig) -> None:
    a = rig.fake("a")
    rig.turns.work(a.session)
    rig.turns.work(a.session)
    assert rig.turn() == ["work a"]
    rig.turns.work(a.session)
    assert rig.turn() == ["work a"]


def test_tasks_take_turns_with_each_other_and_come_before_work(rig: Rig) -> None:
    """So that what several tasks find for one session is sealed as one."""
    rig.turns.work(rig.fake("a", work=2).session)
    rig.turns.task(rig.steps("x", 1))
    rig.turns.task(rig.steps("y", 1))
    assert rig.turn() == ["x0", "y0", "work a", "work a"]
    assert rig.turn() == []
    assert idle(rig)


def test_tasks_leave_half_of_the_time_to_work(rig: Rig) -> None:
    rig.turns.work(rig.fake("a", work=100).session)
    rig.turns.task(rig.steps("x", 100))
    rig.turns.task(rig.steps("y", 100))
    assert rig.turn() == ["x0", "y0", "work a", "work a"]
    assert rig.turn() == ["x1", "y1", "work a", "work a"]


def test_a_slice_is_honoured_and_flushes_are_not_held_up_by_it(rig: Rig) -> None:
    rig.turns.work(rig.fake("a", work=10).session)
    rig.turns.touch(rig.fake("waiting").session)
    assert rig.turn() == ["work a"] * 4 + ["flush waiting"]
    assert not idle(rig)
    assert rig.turn() == ["work a"] * 4
    assert rig.turn() == ["work a"] * 2
    assert idle(rig)


def test_at_least_one_thing_of_each_kind_is_done_in_a_turn() -> None:
    rig = Rig(slice_=0.5)
    rig.turns.task(rig.steps("x", 2))
    rig.turns.work(rig.fake("a", work=2).session)
    assert rig.turn() == ["x0", "work a"]
    assert rig.turn() == ["x1", "work a"]


def test_others_run_between_two_slices(rig: Rig) -> None:
    rig.turns.task(rig.steps("x", 4))
    rig.loop.call_soon(rig.log.append, "other")
    assert rig.turn() == ["x0", "x1", "other"]
    rig.loop.call_soon(rig.log.append, "another")
    assert rig.turn() == ["x2", "x3", "another"]


def test_a_task_may_add_tasks(rig: Rig) -> None:
    def adding() -> Iterator[None]:
        rig.turns.task(rig.steps("x", 1))
        yield

    rig.turns.task(adding())
    rig.loop.run()
    assert rig.log == ["x0"]
    assert rig.turns.idle


def test_a_task_without_steps(rig: Rig) -> None:
    rig.turns.task(iter(()))
    assert rig.turn() == []
    assert rig.turns.idle


def test_running_at_once_leaves_nothing_to_do(rig: Rig) -> None:
    a = rig.fake("a")
    rig.turns.touch(a.session)
    rig.turns.run()
    assert rig.turns.idle
    assert rig.turn() == ["flush a"]


def test_the_clock_is_looked_at_only_where_something_waits() -> None:
    loop, clock = Loop(), Steps(1.0)
    turns = Turns(loop.asyncio, SLICE, clock)
    log: list[str] = []
    turns.touch(Fake(log, "a").session)
    loop.run()
    assert log == ["flush a"]
    assert clock.now == 0.0


def test_a_turn_that_is_late_and_one_that_is_the_last() -> None:
    rig = Rig(slice_=2.0)
    assert [rig.turns.late() for _ in range(4)] == [False, False, False, True]
    rig.turn()
    assert not rig.turns.late(), "a new turn has its own time"
    rig.turns.postpone_no_more()
    assert [rig.turns.late() for _ in range(9)] == [False] * 9
