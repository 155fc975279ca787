"""Figures of the process from the operating system."""

import os
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from relay import process


def test_the_figures_are_those_of_this_process() -> None:
    now, other = process.look(), psutil.Process()
    assert now.resident_bytes is not None
    assert 0.5 < now.resident_bytes / other.memory_info().rss < 2
    assert now.open_files is None or abs(now.open_files - other.num_fds()) <= 2
    assert now.cpu_seconds > 0
    assert now.max_files > 10
    began = process.started_at()
    assert began is not None
    assert abs(began - other.create_time()) < 5
    assert began < time.time()


def test_one_more_open_file_is_seen(tmp_path: Path) -> None:
    before = process.look().open_files
    with (tmp_path / "file").open("w"):
        after = process.look().open_files
    assert before is None or after == before + 1


def test_where_the_system_tells_nothing_nothing_is_claimed(tmp_path: Path) -> None:
    found = process.look(tmp_path)
    assert (found.resident_bytes, found.open_files) == (None, None)
    assert process.started_at(tmp_path) is None
    (tmp_path / "statm").write_text("nonsense")
    (tmp_path / "stat").write_text("1 (a) b")
    assert process.look(tmp_path).resident_bytes is None
    assert process.started_at(tmp_path) is None


def test_a_program_with_an_odd_name(tmp_path: Path) -> None:
    proc = tmp_path / "self"
    proc.mkdir()
    ticks = os.sysconf("SC_CLK_TCK")
    up = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    (proc / "stat").write_text(f"1 (a ) (b) R {'0 ' * 18}{(up - 120) * ticks} 0 0\n")
    began = process.started_at(proc)
    assert began is not None
    assert abs(time.time() - 120 - began) < 5
