"""Readiness: named conditions, and what is said of those that do not hold."""

from relay.ready import Condition, Ready


def test_a_new_relay_is_not_ready_until_it_listens() -> None:
    ready = Ready()
    assert not ready
    assert ready.reasons == ["started: the relay is starting"]
    ready.met(Condition.STARTED)
    assert ready
    assert ready.reasons == []


def test_every_condition_has_to_hold() -> None:
    ready = Ready()
    for condition in Condition:
        ready.met(condition)
    for condition in Condition:
        ready.lost(condition, "because")
        assert not ready
        assert not ready.holds(condition)
        assert ready.reasons == [f"{condition}: because"]
        ready.met(condition)
        assert ready.holds(condition)


def test_the_latest_reason_is_told_and_several_stand_beside_each_other() -> None:
    ready = Ready()
    ready.lost(Condition.NOT_DRAINING, "first")
    ready.lost(Condition.NOT_DRAINING, "second")
    assert sorted(ready.reasons) == ["not_draining: second", "started: the relay is starting"]


def test_meeting_a_condition_that_holds_changes_nothing() -> None:
    ready = Ready()
    ready.met(Condition.NOT_DRAINING)
    assert ready.reasons == ["started: the relay is starting"]
