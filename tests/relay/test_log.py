"""Logging: reasons and places, never what a client sent."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from relay import log


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    output = capsys.readouterr()
    assert output.out == ""
    return [json.loads(line) for line in output.err.splitlines()]


def failing(secret: str) -> Exception:
    """Return an error that went through this function, with a secret in its text and in a variable."""
    try:
        int(f"the client said {secret}")
    except ValueError as error:
        return error
    raise AssertionError


def test_lines_are_json_with_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    structlog.get_logger().info("stopping", sessions=3)
    (line,) = lines(capsys)
    assert (line["event"], line["sessions"], line["level"]) == ("stopping", 3, "info")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("level", list(log.LEVELS))
def test_what_is_below_the_level_is_not_logged(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(level)
    logger = structlog.get_logger()
    for each in log.LEVELS:
        getattr(logger, each)(each)
    levels = list(log.LEVELS)
    assert [line["event"] for line in lines(capsys)] == levels[levels.index(level) :]


def test_on_a_terminal_lines_are_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    log.configure("info")
    structlog.get_logger().info("stopping")
    assert "stopping" in capsys.readouterr().err


def test_where_names_places_and_no_values() -> None:
    places = log.where(failing("5ec7e7"))
    assert len(places) == 1
    assert "test_log.py:" in places[0]
    assert places[0].endswith(" failing")
    assert "5ec7e7" not in "".join(places)


def test_an_error_in_the_loop_is_logged_without_what_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    loop = asyncio.new_event_loop()
    try:
        context = {
            "message": "Exception in callback",
            "exception": failing("5ec7e7"),
            "handle": object(),
            "data": "5ec7",
        }
        log.log_loop_error(loop, context)
        log.log_loop_error(loop, {"message": "something else"})
    finally:
        loop.close()
    first, second = lines(capsys)
    assert first["error"] == "ValueError"
    assert "failing" in first["where"][0]
    assert "5ec7" not in json.dumps(first)
    assert (second["error"], second["where"], second["message"]) == (None, [], "something else")
    assert {line["level"] for line in (first, second)} == {"error"}
