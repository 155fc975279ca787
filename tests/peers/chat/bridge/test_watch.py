"""A file followed through restarts, truncation and rotation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.chat.bridge.lines import LINE_MAX
from peers.chat.bridge.watch import Position, Tail, Unwatchable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Follower:
    """A tail that is asked until it knows nothing more."""

    def __init__(self, path: Path, position: Position | None = None) -> None:
        self.tail = Tail(path, position)
        self.notes: list[str] = []

    def lines(self) -> list[str]:
        found: list[str] = []
        nothing = 0
        while nothing < 3:  # a rotation is believed at the second look
            batch = self.tail.look()
            nothing = nothing + 1 if batch is None else 0
            if batch is not None:
                found += [line.raw.decode() for line in batch.lines]
                self.notes += [batch.note] if batch.note else []
        return found

    def again(self, path: Path) -> Follower:
        """As after a restart."""
        self.tail.close()
        return Follower(path, Position.parse(self.tail.position.encode()))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def tail(log: Path) -> Iterator[Follower]:
    follower = Follower(log)
    yield follower
    follower.tail.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_what_is_there_the_first_time_is_not_taken(log: Path, tail: Follower) -> None:
    append(log, "old\nhalf ")
    assert tail.lines() == []
    append(log, "a line\nnew")
    assert tail.lines() == ["half a line\n"]
    append(log, "\n")
    assert tail.lines() == ["new\n"]


def test_a_file_that_comes_later_is_taken_whole(log: Path, tail: Follower) -> None:
    assert tail.lines() == []
    append(log, "first\n")
    assert tail.lines() == ["first\n"]


def test_also_if_nobody_looked_when_it_came(log: Path, tail: Follower) -> None:
    assert tail.lines() == []
    append(log, "first\n")
    assert tail.again(log).lines() == ["first\n"]


def test_a_restart_goes_on_where_it_was(log: Path, tail: Follower) -> None:
    append(log, "old\n")
    tail.lines()
    append(log, "one\ntwo\npart")
    assert tail.lines() == ["one\n", "two\n"]
    again = tail.again(log)
    assert again.lines() == []
    append(log, "ly\nthree\n")
    assert again.lines() == ["partly\n", "three\n"]
    assert again.notes == []


@pytest.mark.parametrize("restart", [False, True])
def test_rotation(log: Path, tail: Follower, tmp_path: Path, *, restart: bool) -> None:
    append(log, "one\n")
    tail.lines()
    append(log, "two\n")
    assert tail.lines() == ["two\n"]
    append(log, "three\nwithout an end")
    log.rename(tmp_path / "log.1")
    append(log, "four\n")
    follower = tail.again(log) if restart else tail
    assert follower.lines() == ["three\n", "without an end", "four\n"]
    append(log, "five\n")
    assert follower.lines() == ["five\n"]
    assert follower.notes == []


def test_who_still_writes_to_the_old_file_is_heard(log: Path, tail: Follower, tmp_path: Path) -> None:
    append(log, "one\n")
    tail.lines()
    with log.open("a") as writer:
        log.rename(tmp_path / "log.1")
        assert tail.lines() == []
        writer.write("two\n")
        writer.flush()
        assert tail.lines() == ["two\n"]
        log.touch()
        assert tail.tail.look() is None
        writer.write("three\n")
    assert tail.lines() == ["three\n"]
    append(log, "four\n")
    assert tail.lines() == ["four\n"]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("new", ["x\n", "other words, and more of them than before\n"])
def test_truncation(log: Path, tail: Follower, new: str, *, restart: bool) -> None:
    append(log, "one\n")
    tail.lines()
    append(log, "two\n")
    tail.lines()
    log.write_text(new)
    follower = tail.again(log) if restart else tail
    assert follower.lines() == [new]
    assert len(follower.notes) == 1


def test_the_inode_is_another_files_now(log: Path, tail: Follower) -> None:
    """A new file may get the inode of one that was removed; what it begins with tells."""
    append(log, "one\ntwo\n")
    tail.lines()
    position = tail.tail.position
    tail.tail.close()
    os.truncate(log, 0)
    append(log, "three\nfour\nfive\n")
    assert log.stat().st_ino == position.inode
    assert Follower(log, position).lines() == ["three\n", "four\n", "five\n"]


def test_a_line_that_is_too_long(log: Path, tail: Follower) -> None:
    log.touch()
    tail.lines()
    append(log, "x" * (3 * LINE_MAX) + "\nafter\n")
    lines = []
    while tail.tail.position.offset < log.stat().st_size:
        batch = tail.tail.look()  # None while there is more of the line, and no more than we hold
        lines += batch.lines if batch is not None else []
    assert sum(len(line.raw) for line in lines if not line.whole) == 3 * LINE_MAX + 1
    assert lines[-1].raw == b"after\n"
    assert lines[-1].whole


def test_a_link_is_followed(log: Path, tmp_path: Path, tail: Follower) -> None:
    append(tmp_path / "real", "old\n")
    log.symlink_to(tmp_path / "real")
    assert tail.lines() == []
    append(tmp_path / "real", "new\n")
    assert tail.lines() == ["new\n"]


def test_no_file(log: Path, tail: Follower) -> None:
    log.mkdir()
    with pytest.raises(Unwatchable, match="not a regular file"):
        tail.lines()


def test_a_pipe_does_not_hold_us(log: Path, tail: Follower) -> None:
    os.mkfifo(log)
    with pytest.raises(Unwatchable, match="belongs on stdin"):
        tail.lines()


@given(st.lists(st.sampled_from(["append", "part", "rotate", "restart", "look"]), max_size=30))
def test_nothing_is_lost_or_doubled(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Whatever happens, as long as each rotation is seen before the next."""
    directory = tmp_path_factory.mktemp("log")
    log = directory / "log"
    log.touch()
    follower, written, heard, rotations = Follower(log), "", "", 0
    follower.lines()
    for number, step in enumerate(steps):
        if step == "append":
            append(log, f"{number}\n")
            written += f"{number}\n"
        elif step == "part":
            append(log, f"{number} ")
            written += f"{number} "
        elif step == "rotate":
            heard += "".join(follower.lines())
            rotations += 1
            log.rename(directory / f"log.{rotations}")
            log.touch()
        elif step == "restart":
            follower = follower.again(log)
        else:
            heard += "".join(follower.lines())
    append(log, "\n")
    written += "\n"
    heard += "".join(follower.lines())
    follower.tail.close()
    assert heard == written
