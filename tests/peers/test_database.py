"""The database of a store: what is committed, what is undone, who waits for whom, and its log."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from peers.database import Database, DatabaseError, Schema
from tests.peers.numbers import ONE, insert, values
from tests.support.clients import WAIT, run_async

if TYPE_CHECKING:
    from pathlib import Path


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
        ONE.application_id,
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
