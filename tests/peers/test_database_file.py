"""The file of a database: made, opened and upgraded, copied, and shared by several processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from peers.database import Database, DatabaseError, Schema, copy_database
from tests.peers.numbers import ONE, TWO, insert, mode, values
from tests.support.clients import WAIT, run_async

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Barrier

# Forked from a server that has imported this once: several hundred processes in some seconds.
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.db"


# --- Opening ----------------------------------------------------------------------------------------------------------


@run_async
async def test_it_is_closed_to_others_whatever_the_umask(path: Path) -> None:
    old = os.umask(0o000)
    try:
        async with Database.open(path, ONE) as database:
            await database.write(insert, 1)
            assert {mode(each) for each in path.parent.iterdir()} == {0o600}
            copy_database(path, path.with_name("copy"))
    finally:
        os.umask(old)
    assert {mode(each) for each in path.parent.iterdir()} == {0o600}


@run_async
async def test_an_upgrade_keeps_a_copy_of_what_was_before(path: Path) -> None:
    async with Database.open(path, ONE) as database:
        await asyncio.gather(*(database.submit(insert, i) for i in range(5)))
    async with Database.open(path, TWO) as database:
        rows = await database.read(lambda db: db.execute("SELECT value, square FROM numbers").fetchall())
        assert [tuple(row) for row in rows] == [(i, i * i) for i in range(5)]
        await database.write(insert, 5)
        assert await database.read(lambda db: db.execute("SELECT square FROM numbers WHERE value = 5").fetchone()[0])
    backup = path.with_name("some.db.v1.backup")
    assert mode(backup) == 0o600
    async with Database.open(backup, ONE) as database:
        assert await database.read(values) == list(range(5))


@run_async
async def test_an_upgrade_happens_whole_or_not_at_all(path: Path) -> None:
    async with Database.open(path, ONE) as database:
        await database.write(insert, 1)
    broken = Schema(
        ONE.application_id,
        (*ONE.steps, "DELETE FROM numbers;\nCREATE TABLE other (x);\nINSERT INTO missing VALUES (1);\n"),
    )
    with pytest.raises(DatabaseError):
        Database.open(path, broken)
    async with Database.open(path, TWO) as database:
        assert await database.read(values) == [1]


@run_async
async def test_a_newer_one_is_refused_and_left_alone(path: Path) -> None:
    async with Database.open(path, TWO) as database:
        await database.write(insert, 1)
    with pytest.raises(DatabaseError, match="version 2, and this program knows 1: install a newer"):
        Database.open(path, ONE)
    async with Database.open(path, TWO) as database:
        assert await database.read(values) == [1]


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="another program's"):
        Database.open(path, ONE)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("content", "told"), [(b"no database at all, but long enough to be looked at\n" * 30, "no SQLite database")]
)
def test_what_is_no_database_is_refused_and_left_alone(path: Path, content: bytes, told: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match=told):
        Database.open(path, ONE)
    assert path.read_bytes() == content


def test_a_link_or_directory_in_its_place_is_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(DatabaseError, match="symbolic link"):
        Database.open(path, ONE)
    assert not target.exists()
    path.unlink()
    path.mkdir()
    with pytest.raises(DatabaseError, match="cannot be opened"):
        Database.open(path, ONE)
    with pytest.raises(DatabaseError, match="No such file"):
        Database.open(tmp_path / "missing" / "some.db", ONE)


def test_half_a_statement_is_a_fault_of_the_schema(path: Path) -> None:
    with pytest.raises(ValueError, match="not a whole statement"):
        Database.open(path, Schema(ONE.application_id, ("CREATE TABLE a (x);\nCREATE TABLE b (",)))


@run_async
async def test_opening_it_again_keeps_the_locks_of_the_first(path: Path) -> None:
    """Closing any descriptor of a file drops the locks of the process on it (POSIX): a second opening must not."""

    async def locked() -> bool:
        command = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0); c.execute('BEGIN IMMEDIATE')"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", command, str(path), stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait() != 0

    with closing(sqlite3.connect(path, isolation_level=None)) as first:
        for statement in (*ONE.steps, f"PRAGMA application_id = {ONE.application_id}", "PRAGMA user_version = 1"):
            first.execute(statement)  # not WAL, whose locks are on another file
        first.execute("BEGIN EXCLUSIVE")
        assert await locked()
        with suppress(DatabaseError), pytest.MonkeyPatch.context() as patched:
            patched.setattr("peers.database_file._BUSY", 0.1)
            database = Database.open(path, ONE)
            await database.close()
        assert await locked()


# --- Copies -----------------------------------------------------------------------------------------------------------


@run_async
async def test_a_copy_is_whole_and_never_in_the_place_of_something(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with Database.open(path, ONE) as database:
        await asyncio.gather(*(database.submit(insert, i) for i in range(500)))
        copy_database(path, copy)
        await database.write(insert, 1000)
        with pytest.raises(DatabaseError, match="exists"):
            copy_database(path, copy)
    async with Database.open(copy, ONE) as database:
        assert await database.read(values) == list(range(500))
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatabaseError, match="exists"):
        copy_database(path, link)
    with pytest.raises(DatabaseError, match="No such file"):
        copy_database(tmp_path / "missing", tmp_path / "copy2.db")
    assert set(os.listdir(tmp_path)) == {"some.db", "copy.db", "link.db"}  # noqa: PTH208


def test_a_copy_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"not a data base at all " * 100)
    with pytest.raises(DatabaseError):
        copy_database(path, tmp_path / "copy.db")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


# --- Several processes ------------------------------------------------------------------------------------------------


def _open_at_once(path: str, version: int, barrier: Barrier, told: SimpleQueue[str]) -> None:
    barrier.wait(WAIT)
    try:
        database = Database.open(Path(path), Schema(TWO.application_id, TWO.steps[:version]))
    except BaseException as error:  # noqa: BLE001 - the parent asserts on it
        told.put(repr(error))
        return
    asyncio.run(database.close())
    told.put("opened")


@pytest.mark.parametrize("first", [0, 1])
def test_several_that_open_at_once_make_or_upgrade_it_once(tmp_path: Path, first: int) -> None:
    for attempt in range(6):
        path = tmp_path / f"{attempt}.db"
        if first:
            database = Database.open(path, ONE)
            asyncio.run(database.close())
        barrier, told = _CONTEXT.Barrier(4), _CONTEXT.SimpleQueue()
        processes = [
            _CONTEXT.Process(target=_open_at_once, args=(str(path), 2, barrier, told), daemon=True) for _ in range(4)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(WAIT)
            assert process.exitcode == 0
        assert [told.get() for _ in processes] == ["opened"] * 4
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (2,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _write_for_ever(path: str, start: int, descriptor: Any) -> None:
    async def write() -> None:
        async with Database.open(Path(path), ONE) as database:
            value = start

            async def one(value: int) -> None:
                await database.write(insert, value)
                os.write(descriptor.fileno(), b"%d\n" % value)

            while True:
                await asyncio.gather(*(one(value + i) for i in range(20)))
                value += 20

    asyncio.run(write())


def test_a_kill_loses_nothing_that_write_returned_for(path: Path) -> None:
    """Several rounds: each starts with what the one before left behind, and kills two that write at the same time."""
    asyncio.run(Database.open(path, ONE).close())
    told: set[int] = set()
    for round_ in range(4):
        pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(2)]
        processes = [
            _CONTEXT.Process(
                target=_write_for_ever, args=(str(path), (10 * round_ + i) * 100_000, pipes[i][1]), daemon=True
            )
            for i in range(2)
        ]
        for process in processes:
            process.start()
        texts = []
        for reader, writer in pipes:
            writer.close()
            texts.append(os.read(reader.fileno(), 4096))  # both have written something
        for process in processes:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        for (reader, _), text in zip(pipes, texts, strict=True):
            more = text
            while part := os.read(reader.fileno(), 65536):
                more += part
            told |= {int(line) for line in more.split(b"\n")[:-1]}
            reader.close()
        for process in processes:
            process.join(WAIT)
            assert process.exitcode == -signal.SIGKILL
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            kept = {row[0] for row in connection.execute("SELECT value FROM numbers")}
        assert told
        assert told <= kept
