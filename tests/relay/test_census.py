"""Counts of sessions by class: who is counted as what, and that nobody can be told from them."""

import json
from typing import Any

import pytest

from relay.census import Census, Report
from tests.relay.harness import Lab
from tests.relay.loop import Loop
from wire import commands as c


def take(lab: Lab, census: Census | None = None) -> Report:
    reports: list[Report] = []
    (census or Census(lab.core)).take(reports.append)
    lab.run()
    (report,) = reports
    return report


def counted(classes: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in classes.items() if count}


def test_an_empty_relay_has_every_class_at_nothing() -> None:
    report = take(Lab())
    for classes in (value for value in report.values() if isinstance(value, dict)):
        assert set(classes.values()) == {0}


def test_states() -> None:
    lab = Lab()
    alice, bob, carol = lab.connect(1, 2, 3)
    alice.say(c.Subscribe((bob.public.x_pub,)))
    lab.peer(4)
    carol.stall(0)
    carol.close()
    lab.run()
    again = lab.peer(1)
    alice.answers_pings = False
    again.open()
    lab.run()
    report = take(lab)
    assert report["connections_by_state"] == {"opening": 1, "claiming": 1, "unproven": 1, "proven": 1, "closing": 1}
    assert report["connections"] == 5
    assert report["sessions"] == 2


def test_ages_queues_and_what_is_watched() -> None:
    lab = Lab()
    (alice,) = lab.connect(1)
    lab.advance(120)
    (bob,) = lab.connect(2)
    bob.say(c.Subscribe(tuple(bytes([number]) * 32 for number in range(1, 20))))
    lab.run()
    bob.stall(0)
    alice.send_many(bob, 2, 50_000)
    lab.run()
    report = take(lab)
    assert counted(report["sessions_by_age"]) == {"under_1_min": 1, "under_10_min": 1}
    assert counted(report["sessions_by_queued_bytes"]) == {"empty": 1, "up_to_1_mib": 1}
    assert counted(report["sessions_by_watched_keys"]) == {"none": 1, "up_to_256": 1}
    assert report["sessions_not_read_from"] == 0


def test_a_report_is_kept_for_a_second_and_made_once_for_all_who_ask() -> None:
    lab = Lab()
    census = Census(lab.core)
    reports: list[Report] = []
    census.take(reports.append)
    census.take(reports.append)
    assert reports == []
    lab.run()
    assert len(reports) == 2
    assert reports[0] is reports[1]
    lab.connect(1)
    assert take(lab, census) is reports[0]
    lab.advance(1.1)
    assert take(lab, census)["sessions"] == 1


def test_many_are_counted_a_few_at_a_time_and_who_leaves_meanwhile_is_left_out() -> None:
    lab = Lab()
    peers = lab.connect(*range(1, 201))
    reports: list[Report] = []
    steps = Census(lab.core)
    steps.take(reports.append)
    task = lab.core.turns._tasks.popleft()
    turns = 0
    for _ in task:
        turns += 1
        if turns == 1:
            peers[-1].transport.die()
            _run_only(lab.loop)
    assert turns == 200 // 64
    assert reports[0]["sessions"] == 199


def _run_only(loop: Loop) -> None:
    loop.run()


def test_nobody_is_named() -> None:
    lab = Lab()
    peers = lab.connect(1, 2)
    peers[0].say(c.Subscribe((peers[1].public.x_pub,)))
    lab.run()
    report: dict[str, Any] = take(lab)
    text = json.dumps(report)
    for peer in peers:
        assert peer.id.hex() not in text
        assert "198.51.100.7" not in text
    assert all(isinstance(value, int | str | dict) for value in report.values())


def test_after_an_error_the_next_who_asks_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    lab.connect(1)
    census = Census(lab.core)
    with monkeypatch.context() as broken:
        broken.setattr("relay.census._state", lambda _: 1 / 0)
        census.take(lambda _: pytest.fail("there is no report"))
        with pytest.raises(ZeroDivisionError):
            lab.run()
    assert take(lab, census)["sessions"] == 1
