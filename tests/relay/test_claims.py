"""Two sessions of one id: the table, and the line of those who wait."""

from itertools import product

import pytest

from keys.identity import PublicIdentity
from relay.claims import TABLE, Holder, Queue, Verdict, decide
from tests.relay.harness import identity

ALICE = identity(1).public
OTHER_X = PublicIdentity(ALICE.x_pub[:8] + bytes(23) + b"\x01", ALICE.ed_pub)
OTHER_ED = PublicIdentity(ALICE.x_pub, identity(2).public.ed_pub)
ID = ALICE.id


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(product(Holder, (True, False)))


@pytest.mark.parametrize(
    ("holder", "proven", "newcomer", "verdict"),
    [
        (None, False, ALICE, Verdict.ADMIT),
        (ALICE, False, ALICE, Verdict.REPLACE),
        (ALICE, True, ALICE, Verdict.PROBE),
        (ALICE, False, OTHER_X, Verdict.REFUSE),
        (ALICE, True, OTHER_X, Verdict.REFUSE),
        (ALICE, False, OTHER_ED, Verdict.REFUSE),
        (ALICE, True, OTHER_ED, Verdict.REFUSE),
    ],
)
def test_every_row(holder: PublicIdentity | None, proven: bool, newcomer: PublicIdentity, verdict: Verdict) -> None:
    assert decide(holder, proven, newcomer) is verdict


def test_the_keys_are_compared_and_not_the_objects() -> None:
    assert decide(ALICE, True, PublicIdentity(ALICE.x_pub, ALICE.ed_pub)) is Verdict.PROBE


def test_a_line_is_first_come_first_served() -> None:
    queue: Queue[str] = Queue(3)
    assert not queue.waiting(ID)
    assert queue.first(ID) is None
    assert queue.join(ID, "a")
    assert queue.join(ID, "b")
    assert queue.waiting(ID)
    assert queue.first(ID) == "a"
    assert queue.leave(ID, "a")
    assert queue.first(ID) == "b"


def test_a_full_line_takes_nobody() -> None:
    queue: Queue[str] = Queue(2)
    assert queue.join(ID, "a")
    assert queue.join(ID, "b")
    assert not queue.join(ID, "c")
    assert queue.leave(ID, "a")
    assert queue.join(ID, "c")
    assert not queue.leave(ID, "c")
    assert queue.first(ID) == "b"


def test_each_id_has_a_line_of_its_own() -> None:
    queue: Queue[str] = Queue(1)
    assert queue.join(ID, "a")
    assert queue.join(identity(2).id, "b")
    assert not queue.leave(ID, "b")
    assert queue.first(identity(2).id) == "b"


def test_stepping_out_of_the_middle_is_nobody_elses_turn() -> None:
    queue: Queue[object] = Queue(3)
    first, second, third = object(), object(), object()
    for each in (first, second, third):
        queue.join(ID, each)
    assert not queue.leave(ID, second)
    assert queue.first(ID) is first
    assert queue.leave(ID, first)
    assert queue.first(ID) is third


def test_who_does_not_stand_in_line_cannot_leave_it() -> None:
    queue: Queue[str] = Queue(3)
    assert not queue.leave(ID, "a")
    queue.join(ID, "a")
    assert not queue.leave(ID, "b")
    assert queue.first(ID) == "a"


def test_an_empty_line_leaves_nothing_behind() -> None:
    queue: Queue[str] = Queue(3)
    queue.join(ID, "a")
    queue.leave(ID, "a")
    assert not queue.waiting(ID)
    assert queue._lines == {}


def test_a_line_is_listed_in_its_order() -> None:
    queue: Queue[str] = Queue(3)
    assert queue.line(b"id") == ()
    for newcomer in ("first", "second", "third", "fourth"):
        queue.join(b"id", newcomer)
    assert queue.line(b"id") == ("first", "second", "third")
    queue.leave(b"id", "second")
    assert queue.line(b"id") == ("first", "third")
    assert len(queue) == 1
    queue.leave(b"id", "first")
    queue.leave(b"id", "third")
    assert len(queue) == 0
