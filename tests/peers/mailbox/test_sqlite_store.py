"""The file: who may open it, what is left in it of what was deleted, and what happens when the disk is full."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from peers.database import Database, DatabaseError, DatabaseFull, Schema
from peers.mailbox.rules import DAY, Refused
from peers.mailbox.sqlite_rows import NUMBER_MAX
from peers.mailbox.sqlite_store import SqliteStore
from peers.mailbox.store import StoreError, StoreFull
from peers.mailbox.tending import tend
from tests.peers.mailbox.lab import BOB, CAROL, Box, asked, check_sums, content, contents, limits
from tests.support.clients import run_async
from wire import mailbox_commands as asks
from wire.mailbox_codes import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from peers.mailbox.clock import Moment
    from peers.mailbox.core import Mailbox


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@run_async
async def test_the_file_is_its_owners(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await box.deposit(asked(1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path)}
        assert set(modes) == {"box.db", "box.db-wal", "box.db-shm", "box.db.lock"}
        assert set(modes.values()) == {0o600}


@run_async
async def test_one_mailbox_to_a_file(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db"):
        with pytest.raises(StoreError, match=r"another mailbox uses .*; end it first"):
            await SqliteStore.open(tmp_path / "box.db", limits())
    async with Box(tmp_path / "box.db"):
        pass


@run_async
async def test_files_that_are_no_mailboxes(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="no SQLite database"):
        await SqliteStore.open(tmp_path / "text.db", limits())
    other = Database.open(tmp_path / "other.db", Schema(1, ("CREATE TABLE t (a);",)))
    await other.close()
    with pytest.raises(StoreError, match="another program's database"):
        await SqliteStore.open(tmp_path / "other.db", limits())
    with pytest.raises(StoreError, match="cannot open"):
        await SqliteStore.open(tmp_path / "nowhere" / "box.db", limits())


@run_async
async def test_what_was_deleted_is_gone_from_the_disk(tmp_path: Path) -> None:
    """Large and small, acknowledged, dropped, ended; and the recipient's key with the last of it."""
    async with Box(tmp_path / "box.db") as box:
        secrets = [bytes((40 + at,)) * 1024 for at in range(4)]
        large = b"large file" * 26214 + bytes(4)
        for number, deposit in enumerate(secrets):
            await box.deposit(asked(number, deposit=deposit, ttl=60 if number == 3 else 0))
        await box.deposit(asked(9, deposit=large))
        await box.deposit(asked(10, CAROL))
        lease = await box.fetch(limit=3)
        await box.acknowledge(lease)
        await box.says(asks.Drop(1, BOB.public.x_pub, (9).to_bytes(32, "little")))
        box.passes(7200)
        await box.tend()
        await box.store.tidy(box.tick)
        left = b"".join(path.read_bytes() for path in files(tmp_path))
        assert content(10) in left
        assert CAROL.public.x_pub in left
        for deposit in secrets:
            assert deposit[:64] not in left
        assert b"large file" * 4 not in left
        assert BOB.public.x_pub not in left


@run_async
async def test_numbers_that_no_item_has(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await box.deposit(asked(1))
        numbers = (0, 1, NUMBER_MAX, NUMBER_MAX + 1, 2**64 - 1)
        assert (await box.says(asks.Ack(1, numbers, 0xFFFF_FFFF), BOB)).count == 0
        assert contents(await box.fetch()) == [1]


@run_async
async def test_many_numbers_in_one_ack(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await asyncio.gather(*(box.deposit(asked(number)) for number in range(400)))
        numbers: list[int] = []
        for _ in range(4):
            numbers += [item.number for item in (await box.fetch()).items]
        assert len(set(numbers)) == 256
        assert (await box.says(asks.Ack(1, (*numbers, *numbers), 0), BOB)).count == 256
        check_sums(box.path)


@run_async
async def test_room_on_the_disk_is_left(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", limits(disk_reserve=1 << 20)) as box:
        await box.deposit(asked(1))
        box.free = lambda: (1 << 20) + 1023
        with pytest.raises(Refused) as refused:
            await box.deposit(asked(2))
        assert refused.value.reason is Reason.FULL
        lease = await box.fetch()
        assert (contents(lease), lease.refusals) == ([1], 1)
        assert await box.acknowledge(lease) == 1  # deleting goes on
        box.free = lambda: (1 << 20) + 1024
        await box.deposit(asked(2))


@run_async
async def test_a_full_disk(tmp_path: Path) -> None:
    """The file may not grow any more, as on a disk without room; SQLite then gives up the whole commit."""
    async with Box(tmp_path / "box.db") as box:
        for number in range(3):
            await box.deposit(asked(number))
        database = box.store._database
        pages = await database.write(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await database.write(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        results = await asyncio.gather(
            *(box.deposit(asked(number, deposit=content(number, 1 << 16))) for number in range(10, 13)),
            return_exceptions=True,
        )
        assert [error.reason for error in results if isinstance(error, Refused)] == [Reason.FULL] * 3
        assert all(isinstance(error.__cause__, StoreFull) for error in results if isinstance(error, Refused))
        assert contents(await box.fetch()) == [0, 1, 2]
        await database.write(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
        await box.tend()
        box.passes(61)
        lease = await box.fetch()
        assert (contents(lease), lease.refusals) == ([0, 1, 2], 1)  # it is told, if not how often
        await box.acknowledge(lease)
        check_sums(box.path)


@run_async
async def test_sums_hold_through_everything(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", limits(recipient_items=5)) as box:
        await asyncio.gather(
            *(box.says(asked(number, (BOB, CAROL)[number % 2], ttl=60 * (number % 3))) for number in range(20))
        )
        check_sums(box.path)
        await box.acknowledge(await box.fetch())
        box.passes(2 * DAY / 1000)
        await box.tend()
        check_sums(box.path)


@run_async
async def test_it_is_found_by_index(tmp_path: Path) -> None:
    """With a million items, a look through all of them would be seen; with three it would not."""
    async with Box(tmp_path / "box.db") as box:
        await box.deposit(asked(1))
    with closing(sqlite3.connect(tmp_path / "box.db")) as db:
        for query, index in (
            ("SELECT id FROM items WHERE recipient = ? AND drop_digest = ?", "COVERING INDEX items_of_recipient"),
            ("SELECT id, kind FROM items WHERE recipient = ? AND expires > ? ORDER BY number", "items_of_recipient"),
            ("DELETE FROM items WHERE recipient = ? AND number = ?", "items_of_recipient"),
            ("SELECT id FROM items WHERE expires <= ? ORDER BY expires LIMIT ?", "COVERING INDEX items_by_end"),
            ("SELECT no FROM recipients WHERE refused > 0 AND refused_since <= ? LIMIT ?", "recipients_refused"),
        ):
            plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", (1, 1)[: query.count("?")]))
            assert index in plan, plan
            assert "SCAN" not in plan, plan
            assert "TEMP" not in plan, plan


@run_async
async def test_expiry_goes_by_batches_and_others_are_served_in_between(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await asyncio.gather(*(box.deposit(asked(number, ttl=60)) for number in range(500)))
        box.passes(7200)
        batches, more = [], 1
        while more:
            more = await box.mailbox.tend(box.at)
            batches.append(more)
            await box.deposit(asked(1000 + len(batches)))
        assert sum(batches) == 500
        assert max(batches) <= 64
        assert len(contents(await box.fetch())) == len(batches)


# --- Tending ----------------------------------------------------------------------------------------------------------


@run_async
async def test_tending_goes_on_after_a_failure(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await box.deposit(asked(1, ttl=60))
        box.passes(7200)
        failures: list[StoreError] = []
        told, erased = asyncio.Event(), asyncio.Event()
        expire = box.store.expire

        async def failing(now: int) -> int:
            box.store.expire = expire
            raise StoreError("not now")

        def failed(error: StoreError) -> None:
            failures.append(error)
            told.set()

        def moment(mailbox: Mailbox) -> Moment:
            if mailbox.tallies.expired:
                erased.set()
            if not failures:
                box.passes(61)
            return box.at

        box.store.expire = failing
        tending = asyncio.create_task(tend(box.mailbox, failed, moment, every=0.001))
        await told.wait()
        async with asyncio.timeout(60):
            await erased.wait()
        tending.cancel()
        assert [str(error) for error in failures] == ["not now"]
        saved = await box.store.saved_time()
        assert saved is not None
        assert saved > 1_700_000_000_000


# --- What the mailbox asks of peers.database --------------------------------------------------------------------------


@run_async
async def test_a_full_disk_has_an_error_of_its_own(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "a.db", Schema(1, ("CREATE TABLE t (a);",))) as database:
        await database.write(lambda db: db.execute("PRAGMA max_page_count = 3").fetchone())
        with pytest.raises(DatabaseFull, match="the disk is full"):
            await database.write(lambda db: db.execute("INSERT INTO t VALUES (zeroblob(100000))"))
        await database.write(lambda db: db.execute("INSERT INTO t VALUES (1)"))


@run_async
async def test_the_log_is_emptied_and_cut(tmp_path: Path) -> None:
    log = tmp_path / "a.db-wal"
    async with Database.open(tmp_path / "a.db", Schema(1, ("CREATE TABLE t (a);",))) as database:
        await database.write(lambda db: db.execute("INSERT INTO t VALUES (?)", (b"gone soon" * 9,)))
        assert await database.checkpoint()
        assert b"gone soon" in log.read_bytes()
        assert b"gone soon" in (tmp_path / "a.db").read_bytes()
        assert await database.checkpoint(cut=True)
        assert log.stat().st_size == 0
    with pytest.raises(DatabaseError, match="closed"):
        await database.checkpoint()
