"""The watch over the process: lateness of the loop, and files."""

import os
import resource
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.counters import Counters
from relay.watch import Watch, can_open_file
from tests.relay.loop import Loop

Lines = list[Any]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with capture_logs() as captured:
        yield captured


class Late:
    """A clock that is this much later than the loop thinks."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.lag = 0.0

    def __call__(self) -> float:
        return self.loop.now + self.lag


def test_lateness_is_observed_four_times_a_second() -> None:
    loop, counters = Loop(), Counters()
    clock = Late(loop)
    watch = Watch(loop.asyncio, counters, clock, lambda: True)
    watch.start()
    loop.advance(1.0)
    assert counters.loop_lag.observed == 4
    assert counters.loop_lag.total == pytest.approx(0)
    clock.lag = 0.3
    loop.advance(0.25)
    assert counters.loop_lag.total == pytest.approx(0.3)
    # Late once, and not for ever after: the next is measured from when this one came.
    loop.advance(0.25)
    assert counters.loop_lag.total == pytest.approx(0.3)
    watch.stop()
    loop.advance(5)
    assert counters.loop_lag.observed == 6


def test_running_out_of_files_is_counted_each_second_and_said_once_a_minute(lines: Lines) -> None:
    loop, counters = Loop(), Counters()
    room = True
    watch = Watch(loop.asyncio, counters, Late(loop), lambda: room)
    watch.start()
    loop.advance(10)
    assert (counters.out_of_files, lines) == (0, [])
    room = False
    loop.advance(59)
    assert counters.out_of_files == 59
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert lines == [{"event": "out_of_files", "log_level": "warning", "limit": limit}]
    loop.advance(2)
    assert len(lines) == 2
    room = True
    loop.advance(200)
    assert (counters.out_of_files, len(lines)) == (61, 2)


def test_whether_a_file_can_be_opened_is_found_out_by_opening_one() -> None:
    assert can_open_file()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        assert not can_open_file()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert can_open_file()


def test_it_leaves_no_file_open() -> None:
    before = os.dup(0)
    os.close(before)
    for _ in range(10):
        assert can_open_file()
    after = os.dup(0)
    os.close(after)
    assert before == after
