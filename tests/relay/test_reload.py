"""SIGHUP: what is read again, who is told, and what is kept when something is wrong."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from relay import log
from relay.limits import Limits
from relay.reload import APPLIES, KeepOld, Reload
from relay.settings import NAMES, Settings, load

SECRET = "5ec7e7" * 10


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def records(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    def read() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        return [{name: value for name, value in line.items() if name != "timestamp"} for line in lines]

    return read


class Part:
    """Takes new settings, or refuses them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.given: list[Settings] = []

    def __call__(self, new: Settings) -> None:
        self.given.append(new)
        if self.error is not None:
            raise self.error


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


def reloading(file: Path, *parts: tuple[str, Part]) -> Reload:
    def read() -> Settings:
        return load(["--data-dir", str(file.parent)], {})

    log.configure("info")
    reload = Reload(read(), read)
    for name, part in parts:
        reload.register(name, part)
    return reload


Records = Callable[[], list[dict[str, Any]]]


def test_new_limits_and_level_come_into_force(file: Path, records: Records) -> None:
    part = Part()
    reload = reloading(file, ("limits", part))
    file.write_text("log_level = 'debug'\n[limits]\nsubscriptions = 7\n")
    assert reload()
    assert [new.limits for new in part.given] == [Limits(subscriptions=7)]
    structlog.get_logger().debug("seen")
    assert records() == [
        {
            "event": "reloaded",
            "level": "info",
            "changed": ["log_level", "limits.subscriptions"],
            "read": [],
            "kept_old": [],
        },
        {"event": "seen", "level": "debug"},
    ]


def test_a_logger_that_was_used_before_has_the_new_level_too(file: Path, records: Records) -> None:
    reload = reloading(file)
    logger = structlog.get_logger()
    logger.info("before")
    file.write_text("log_level = 'error'")
    assert reload()
    logger.warning("after")
    assert [record["event"] for record in records()] == ["before"]


def test_without_a_file_nothing_changes(file: Path, records: Records) -> None:
    part = Part()
    reload = reloading(file, ("limits", part))
    assert reload()
    assert reload()
    assert len(part.given) == 2
    assert records() == [{"event": "reloaded", "level": "info", "changed": [], "read": [], "kept_old": []}] * 2


def test_a_bad_file_changes_nothing_and_says_all_that_is_wrong(file: Path, records: Records) -> None:
    part = Part()
    reload = reloading(file, ("limits", part))
    file.write_text("prot = 1\nlog_level = 'debug'\n[limits]\nmalformed = 'x'")
    assert not reload()
    assert part.given == []
    (record,) = records()
    assert (record["event"], record["level"], record["where"]) == ("reload_refused", "error", [])
    assert [problem.partition(" ")[0] for problem in record["problems"]] == ["prot", "limits.malformed"]
    assert "line 4" in record["problems"][1]
    file.write_text("[limits]\nmalformed = 3")
    assert reload()
    assert part.given[0].limits.malformed == 3


def test_an_error_that_nobody_thought_of_does_not_end_the_relay(records: Records) -> None:
    def fail() -> Settings:
        raise ZeroDivisionError(SECRET)

    log.configure("info")
    assert not Reload(load([], {}), fail)()
    (record,) = records()
    assert record["problems"] == ["ZeroDivisionError"]
    assert any("test_reload.py" in place for place in record["where"])
    assert SECRET not in str(record)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeepOld("line 3 is no address"), "line 3 is no address"),
        (FileNotFoundError(2, "No such file or directory", "/deny.txt"), "/deny.txt: No such file or directory"),
        (OSError(5, "Input/output error"), "a file: Input/output error"),
        (ValueError(f"{SECRET} is no id"), "ValueError"),
    ],
)
def test_one_part_that_refuses_keeps_no_other_back(error: Exception, reason: str, file: Path, records: Records) -> None:
    before, after = Part(), Part()
    reload = reloading(file, ("before", before), ("lists", Part(error)), ("after", after))
    file.write_text("[limits]\nmalformed = 3")
    assert not reload()
    assert [part.given[0].limits.malformed for part in (before, after)] == [3, 3]
    kept, reloaded = records()
    assert (kept["event"], kept["level"], kept["part"], kept["reason"]) == ("reload_kept_old", "error", "lists", reason)
    assert bool(kept["where"]) == isinstance(error, ValueError)
    assert SECRET not in str(kept)
    assert reloaded["kept_old"] == ["lists"]


def test_what_needs_a_restart_is_told_until_it_is_taken_back(file: Path, records: Records) -> None:
    reload = reloading(file)
    file.write_text("port = 1\nkeys = 'other.keys'\n[limits]\nmalformed = 3")
    assert reload()
    assert records() == [
        {"event": "needs_restart", "level": "warning", "settings": ["port", "keys"]},
        {"event": "reloaded", "level": "info", "changed": ["limits.malformed"], "read": [], "kept_old": []},
    ]
    assert reload()
    assert [record["event"] for record in records()] == ["needs_restart", "reloaded"]
    file.unlink()
    assert reload()
    assert [record["event"] for record in records()] == ["reloaded"]


def test_what_sighup_does_is_known_of_settings_that_there_are() -> None:
    assert set(APPLIES) <= {leaf.key for leaf in NAMES.leaves.values()}
    assert {leaf.key for leaf in NAMES.leaves.values() if leaf.path[0] == "limits"} <= set(APPLIES)
