"""The database of a store: what is committed, what is undone, and who waits for whom."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import stat
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from peers.database import Database, DatabaseError, Schema, copy_database
from tests.support.clients import WAIT, run_async

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Barrier

_ID: Final = 0x74657374
_ONE: Final = "CREATE TABLE numbers (value INTEGER PRIMARY KEY) STRICT;\n"
_TWO: Final = """
ALTER TABLE numbers ADD COLUMN square INTEGER;
CREATE TRIGGER squared AFTER INSERT ON numbers BEGIN
    UPDATE numbers SET square = value * value WHERE value = new.value;
END;
UPDATE numbers SET square = value * value;
"""
ONE: Final = Schema(_ID, (_ONE,))
TWO: Final = Schema(_ID, (_ONE, _TWO))

# Forked from a server that has imported this once: several hundred processes in some seconds.
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def insert(db: sqlite3.Connection, value: int) -> int:
    db.execute("INSERT INTO numbers (value) VALUES (?)", (value,))
    return value


def values(db: sqlite3.Connection) -> list[int]:
    return [row[0] for row in db.execute("SELECT value FROM numbers ORDER BY value")]


async def held(database: Database) -> asyncio.Event:
    """Hold the writer until the event is set, so that what is put in line meanwhile waits together."""
    holding, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(_db: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(holding.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(WAIT)

    database.submit(hold)
    await holding.wait()
    return release


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.db"


# --- Writing and reading ----------------------------------------------------------------------------------------------


@run_async
async def test_what_is_written_is_there_for_readers_and_after_a_restart(path: Path) -> None:
    async with Database.open(path, ONE) as database:
        assert await database.write(insert, 1) == 1
        assert await database.read(values) == [1]
    async with Database.open(path, ONE) as database:
        assert await database.read(values) == [1]


@run_async
async def test_one_job_that_fails_undoes_itself_alone(path: Path) -> None:
    def fails(db: sqlite3.Connection, value: int) -> None:
        insert(db, value)
        raise ValueError("told to whoever asked")

    async with Database.open(path, ONE) as database:
        futures: list[asyncio.Future[Any]] = [
            database.submit(fails, i) if i % 3 == 1 else database.submit(insert, i) for i in range(30)
        ]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [i for i, result in enumerate(results) if isinstance(result, ValueError)] == list(range(1, 30, 3))
        assert await database.read(values) == [i for i in range(30) if i % 3 != 1]


@run_async
async def test_jobs_run_in_their_order_and_see_each_other(path: Path) -> None:
    seen: list[list[int]] = []

    def look(db: sqlite3.Connection) -> None:
        seen.append(values(db))

    async with Database.open(path, ONE) as database:
        futures: list[asyncio.Future[Any]] = []
        for i in range(5):
            futures += [database.submit(insert, i), database.submit(look)]
        await asyncio.gather(*futures)
    assert seen == [list(range(i + 1)) for i in range(5)]


class Odd(BaseException):
    """No Exception, as SystemExit is none."""


@pytest.mark.parametrize("error", [Odd, SystemExit, asyncio.CancelledError, StopIteration])
@run_async
async def test_no_job_ends_the_writer(path: Path, error: type[BaseException]) -> None:
    def fails(db: sqlite3.Connection) -> None:
        insert(db, 1)
        raise error

    async with Database.open(path, ONE) as database:
        future = database.submit(fails)
        behind = database.submit(insert, 2)
        async with asyncio.timeout(WAIT):
            assert await behind == 2
            await asyncio.wait([future])
        with pytest.raises(RuntimeError if error is StopIteration else error):
            future.result()
        assert await database.read(values) == [2]


@run_async
async def test_a_job_that_nobody_waits_for_is_done_all_the_same(path: Path) -> None:
    async with Database.open(path, ONE) as database:
        future = database.submit(insert, 1)
        future.cancel()
        await database.write(insert, 2)
        assert await database.read(values) == [1, 2]


@run_async
async def test_a_commit_that_fails_tells_all_of_its_group(path: Path) -> None:
    """A check that is put off to the commit fails there, and nothing of the group is kept."""
    schema = Schema(
        _ID,
        (
            "CREATE TABLE numbers (value INTEGER PRIMARY KEY,"
            " next INTEGER REFERENCES numbers DEFERRABLE INITIALLY DEFERRED) STRICT;\n",
        ),
    )

    def dangling(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO numbers VALUES (1, 2)")

    async with Database.open(path, schema) as database:
        release = await held(database)
        futures: list[asyncio.Future[Any]] = [
            database.submit(insert, 7),
            database.submit(dangling),
            database.submit(insert, 8),
        ]
        release.set()
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(result) for result in results] == [DatabaseError] * 3
        assert await database.read(values) == []
        assert await database.write(insert, 9) == 9  # and the next group is none the worse


@run_async
async def test_writes_that_wait_together_share_a_commit(path: Path) -> None:
    statements: list[str] = []
    async with Database.open(path, ONE) as database:
        release = await held(database)
        database._writer.set_trace_callback(statements.append)
        futures = [database.submit(insert, i) for i in range(600)]
        release.set()
        await asyncio.gather(*futures)
        assert len(await database.read(values)) == 600
    # One of them belongs to what held the writer; the others are groups of at most 256.
    assert statements.count("COMMIT") == 1 + 3


@run_async
async def test_readers_cannot_write_and_see_one_moment(path: Path) -> None:
    went, come = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def twice(db: sqlite3.Connection) -> tuple[list[int], list[int]]:
        before = values(db)
        loop.call_soon_threadsafe(went.set)
        asyncio.run_coroutine_threadsafe(come.wait(), loop).result(WAIT)
        return before, values(db)

    async with Database.open(path, ONE) as database:
        with pytest.raises(DatabaseError):
            await database.read(insert, 1)
        reading = asyncio.create_task(database.read(twice))
        await went.wait()
        await database.write(insert, 1)
        come.set()
        assert await reading == ([], [])
        assert await database.read(values) == [1]


@run_async
async def test_errors_of_sqlite_do_not_quote_what_was_stored(path: Path) -> None:
    def secret(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO numbers (value) VALUES ('what nobody may read')")

    async with Database.open(path, ONE) as database:
        with pytest.raises(DatabaseError) as caught:
            await database.write(secret)
    assert "nobody" not in str(caught.value)
    assert str(path) in str(caught.value)


@run_async
async def test_a_reader_that_cannot_open_today_can_tomorrow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    async with Database.open(path, ONE) as database:
        with monkeypatch.context() as patched:
            patched.setattr("peers.database.connect", fails)
            with pytest.raises(DatabaseError):
                await database.read(values)
        assert await database.read(values) == []


@run_async
async def test_closing_finishes_what_waits_and_then_nothing_goes(path: Path) -> None:
    database = Database.open(path, ONE)
    futures = [database.submit(insert, i) for i in range(600)]
    await database.close()
    await database.close()
    assert await asyncio.gather(*futures) == list(range(600))
    for call in (database.write(insert, 1), database.read(values)):
        with pytest.raises(DatabaseError, match="closed"):
            await call
    assert not list(path.parent.glob("*-wal"))


# --- Noticing changes -------------------------------------------------------------------------------------------------


@run_async
async def test_changes_of_this_and_of_other_connections_are_noticed(path: Path) -> None:
    async with Database.open(path, ONE) as database, Database.open(path, ONE) as other:
        version = await database.changed(-1)
        assert await database.changed(version, within=0.0) == version
        for writer in (database, other):
            waiting = asyncio.create_task(database.changed(version))
            await writer.write(insert, version)
            async with asyncio.timeout(WAIT):
                assert await waiting != version
            version = database.version()


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
    broken = Schema(_ID, (_ONE, "DELETE FROM numbers;\nCREATE TABLE other (x);\nINSERT INTO missing VALUES (1);\n"))
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
        Database.open(path, Schema(_ID, ("CREATE TABLE a (x);\nCREATE TABLE b (",)))


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
        for statement in (*ONE.steps, f"PRAGMA application_id = {_ID}", "PRAGMA user_version = 1"):
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
        database = Database.open(Path(path), Schema(_ID, (_ONE, _TWO)[:version]))
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


# --- The log ----------------------------------------------------------------------------------------------------------


def no_checkpoints(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA wal_autocheckpoint = 0")


@run_async
async def test_the_log_is_begun_anew_beside_a_writer_that_never_rests(path: Path) -> None:
    async with Database.open(path, ONE) as database:
        await database.write(no_checkpoints)
        numbers = iter(range(1_000_000))
        for _ in range(300):
            await database.write(insert, next(numbers))
        busy = True

        async def writes() -> None:
            while busy:
                await database.write(insert, next(numbers))

        writing = [asyncio.create_task(writes()) for _ in range(4)]
        before = path.with_name(f"{path.name}-wal").stat().st_size
        await database.empty_log(100)
        busy = False
        await asyncio.gather(*writing)
        await database.write(insert, next(numbers))
        # What was written since stands at the beginning of the file, which is no shorter for it.
        head = path.with_name(f"{path.name}-wal").read_bytes()[:32]
        assert path.with_name(f"{path.name}-wal").stat().st_size >= before
        assert int.from_bytes(head[12:16], "big") >= 1  # how often it was begun
        count = len(await database.read(values))
    async with Database.open(path, ONE) as database:
        assert len(await database.read(values)) == count


@run_async
async def test_a_short_log_is_left_as_it_is(path: Path) -> None:
    async with Database.open(path, ONE) as database:
        release = await held(database)
        await database.empty_log(1_000_000)  # does not wait for the writer
        release.set()
        await database.write(insert, 1)


@run_async
async def test_the_log_of_a_database_that_is_closed(path: Path) -> None:
    async with Database.open(path, ONE) as database:
        pass
    with pytest.raises(DatabaseError, match="is closed"):
        await database.empty_log(1)
