"""Lines for sessions under pseudonyms: which there are, and what is in them."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.journal import Journal, duration
from relay.limits import Limits
from relay.pseudonyms import Pseudonyms
from tests.relay.harness import Lab, Peer
from tests.wire.pair import Counted
from wire import commands as c

Lines = list[Any]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with capture_logs() as captured:
        yield captured


def lab(limits: Limits | None = None) -> Lab:
    made = Lab(limits)
    made.core.journal = Journal(made.loop.now, Pseudonyms(Counted("names")), lambda: 86400.0)
    return made


def test_without_it_no_session_is_logged(lines: Lines) -> None:
    relay = Lab()
    for peer in relay.connect(1, 2):
        peer.close()
    relay.run()
    assert lines == []


def test_a_session_from_start_to_end(lines: Lines) -> None:
    relay = lab()
    (alice,) = relay.connect(1)
    relay.advance(15)
    alice.close()
    relay.run()
    started, ended = lines
    assert started == {"event": "session_started", "log_level": "info", "client": started["client"]}
    assert ended == {
        "event": "session_ended",
        "log_level": "info",
        "client": started["client"],
        "reason": "client",
        "lasted": "under 1 min",
        "malformed": 0,
        "slowed": False,
    }
    assert re.fullmatch("[a-z2-7]{8}", started["client"])


def test_a_client_that_comes_back_is_known_and_others_are_others(lines: Lines) -> None:
    relay = lab()
    for number in (1, 2, 1):
        (peer,) = relay.connect(number)
        peer.transport.die()
        relay.run()
    first, second, third = (line["client"] for line in lines if line["event"] == "session_started")
    assert first == third != second


def assert_proven(relay: Lab, peer: Peer) -> None:
    peer.say(c.Subscribe(()))
    relay.run()
    assert peer.session.opened_wire.proven


def test_a_refused_handshake_is_told_once_under_the_name_of_who_tried(lines: Lines) -> None:
    relay = lab()
    (alice,) = relay.connect(1)
    assert_proven(relay, alice)
    second = Peer(relay, alice.identity).open()
    relay.run()
    relay.tick(10)
    assert second.over
    refused = [line for line in lines if line["event"] == "session_refused"]
    assert [(line["client"], line["reason"]) for line in refused] == [(lines[0]["client"], "id_in_use")]


def test_connections_that_name_nobody_are_not_logged(lines: Lines) -> None:
    relay = lab()
    relay.peer(1).message(bytes(200))
    stranger = relay.peer(2)
    stranger.transport.die()
    relay.run()
    assert not [line for line in lines if line["event"].startswith("session")]


def test_who_sends_too_fast_or_nonsense_can_be_told(lines: Lines) -> None:
    relay = lab(Limits(frames_per_second=1, frames_burst=2))
    (alice,) = relay.connect(1)
    for _ in range(5):
        alice.message(b"nonsense")
    relay.run()
    relay.advance(60)
    alice.transport.die()
    relay.run()
    ended = lines[-1]
    assert ended["slowed"] is True
    assert ended["malformed"] == 5
    assert relay.core.journal is not None
    assert not relay.core.journal._slowed


def test_lines_beyond_the_rate_are_counted_and_left_out(lines: Lines) -> None:
    class Client:
        id = bytes(8)

    journal = Journal(0.0, Pseudonyms(Counted("names")), lambda: 0.0)
    for _ in range(1500):
        journal.started(Client(), 0.0)
    assert len(lines) == 1000
    journal.started(Client(), 1.0)
    assert lines[-1]["left_out"] == 500
    journal.started(Client(), 1.0)
    assert "left_out" not in lines[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "under 10 s"), (9.9, "under 10 s"), (10, "under 1 min"), (3599, "under 1 h"), (1e6, "1 d or more")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
