"""What the process says when it starts."""

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.admission import Admission
from relay.limits import Limits
from relay.settings import Settings
from relay.voice import say_what_is_on, what_is_on

Lines = list[Any]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with capture_logs() as captured:
        yield captured


def started(settings: Settings, admin_at: str = "", *, push: bool = False) -> None:
    say_what_is_on(what_is_on(settings, Admission(), push=push, admin_at=admin_at), settings)


def test_one_line_says_what_is_on(lines: Lines) -> None:
    settings = Settings(
        port=0, notice="Down on Sunday", log_pseudonyms=True, limits=Limits(subscriptions=7, claim_wait=1)
    )
    started(settings, "127.0.0.1:9600", push=True)
    (line,) = lines
    assert line["event"] == "started"
    assert line["limits"] == {"subscriptions": 7, "claim_wait": 1}
    assert (line["admin"], line["push"], line["notice"], line["pseudonyms"]) == ("127.0.0.1:9600", True, True, True)
    assert line["files"] > 0
    # It stands beside later events, and is no place for texts.
    assert "Sunday" not in str(line)


def test_what_is_off_is_said_to_be(lines: Lines) -> None:
    started(Settings(port=0))
    (line,) = lines
    assert (line["admin"], line["push"], line["notice"], line["pseudonyms"]) == ("off", False, False, False)
    assert line["limits"] == {}


@pytest.mark.parametrize("where", ["127.0.0.1:9600", "127.1.2.3:9600", "[::1]:9600", "localhost:9600"])
def test_a_listener_on_this_machine_is_no_reason_to_warn(where: str, lines: Lines) -> None:
    started(Settings(port=0), where)
    assert [line["event"] for line in lines] == ["started"]


@pytest.mark.parametrize("where", ["0.0.0.0:9600", "[::]:9600", "192.0.2.1:9600", "metrics.example:9600"])
def test_metrics_for_others_are_warned_of(where: str, lines: Lines) -> None:
    started(Settings(port=0), where)
    assert [(line["event"], line["log_level"]) for line in lines] == [("started", "info"), ("admin_exposed", "warning")]
    assert lines[1]["admin"] == where
