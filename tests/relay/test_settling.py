"""How limits that end sessions come into force."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.limits import MIB, Limits
from relay.settling import SHORTER, Settling

OLD = Limits(queue_total=256 * MIB)


def test_what_ends_nobody_is_in_force_at_once() -> None:
    names = [field.name for field in fields(Limits) if field.name not in {*SHORTER, "queue_total", "partial_total"}]
    wanted = OLD
    for name in names:
        wanted = replace(wanted, **{name: max(1, getattr(OLD, name) // 2)})
    settling = Settling(OLD, wanted, 0.0)
    assert settling.in_force(0.0, 0, 0) == wanted
    assert settling.settled


def test_longer_deadlines_and_larger_totals_are_in_force_at_once() -> None:
    wanted = replace(OLD, queue_total=OLD.queue_total * 2, partial_total=OLD.partial_total * 2)
    wanted = replace(wanted, **{name: getattr(OLD, name) * 2 for name in SHORTER})
    settling = Settling(OLD, wanted, 0.0)
    assert settling.in_force(0.0, OLD.queue_total, OLD.partial_total) == wanted
    assert settling.settled


def test_a_shorter_deadline_counts_from_the_change_on() -> None:
    wanted = replace(OLD, ping_after=5.0, silent_after=10.0, queue_age=20.0)
    settling = Settling(OLD, wanted, 100.0)
    assert settling.in_force(100.0, 0, 0) == replace(OLD, ping_after=5.0)
    assert settling.in_force(109.9, 0, 0).silent_after == 60.0
    assert settling.in_force(110.0, 0, 0) == replace(OLD, ping_after=5.0, silent_after=10.0)
    assert not settling.settled
    assert settling.in_force(120.0, 0, 0) == wanted
    assert settling.settled


def test_a_smaller_total_follows_the_use_down_and_never_up() -> None:
    wanted = replace(OLD, queue_total=16 * MIB, partial_total=8 * MIB)
    settling = Settling(OLD, wanted, 0.0)

    def totals(queued: int, partial: int) -> tuple[int, int]:
        limits = settling.in_force(0.0, queued * MIB, partial * MIB)
        return limits.queue_total // MIB, limits.partial_total // MIB

    assert totals(100, 20) == (100, 20)
    assert totals(120, 30) == (100, 20)
    assert totals(50, 10) == (50, 10)
    assert not settling.settled
    assert totals(3, 3) == (16, 8)
    assert settling.settled


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("opening_deadline", 5),
        ("request_size", 10),
        ("silent_after", 30),
        ("closing_deadline", 2.5),
        ("partial_grace", 5),
        ("partial_deadline", 60),
        ("queue_age", 15),
    ],
)
def test_each_that_a_session_may_end_by_has_its_time(name: str, seconds: float) -> None:
    value = getattr(OLD, name)
    less: dict[str, Any] = {name: type(value)(value / 2)}
    settling = Settling(OLD, replace(OLD, **less), 0.0)
    assert settling.in_force(seconds - 0.1, 0, 0) == OLD
    assert settling.in_force(seconds, 0, 0) == replace(OLD, **less)


def test_a_request_that_is_under_way_keeps_its_size_for_as_long_as_it_may_take() -> None:
    settling = Settling(OLD, replace(OLD, request_size=4096), 0.0)
    assert settling.in_force(9.9, 0, 0).request_size == OLD.request_size
    assert settling.in_force(10.0, 0, 0).request_size == 4096


@given(
    old=st.floats(1, 100), new=st.floats(1, 100), changed=st.floats(0, 1000), since=st.floats(0, 1000),
    steps=st.lists(st.floats(0, 30), max_size=30),
)  # fmt: skip
def test_nobody_is_late_by_less_than_was_promised(
    old: float, new: float, changed: float, since: float, steps: list[float]
) -> None:
    """What began before has its old time, or the new one from the change on; what begins later the new."""
    limits = replace(OLD, queue_age=old)
    settling = Settling(limits, replace(limits, queue_age=new), changed)
    now = changed
    for step in steps:
        now += step
        in_force = settling.in_force(now, 0, 0).queue_age
        if now >= since and now - since >= in_force:
            assert now - since >= new
            assert now - since >= old or now - changed >= new
        if now - changed >= new:
            assert in_force == new
