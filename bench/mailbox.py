"""The mailbox under load: deposits, and fetch + acknowledge, of 1 KiB at the core's interface, every commit synced.

    python -m bench.mailbox                    empty, then with 1,000,000 items, then their expiry: some minutes, 3 GiB
    python -m bench.mailbox --items 100000     the same, smaller
    python -m bench.mailbox --faces 0          without the program's two ways in, HTTP and a relay
    python -m bench.mailbox --json out.json
    python -m bench.mailbox --store jetstream  the store on NATS instead (bench/mailbox_jetstream.py)

One process on one core. Beside it, in the same rounds, bare SQLite: a table of blobs, the same sync, and in one commit
as many as are under way in the mailbox at a time. Ratios travel; what a disk takes for a sync does not.
At the end the same through the program (bench/mailbox_faces.py).
"""

import argparse
import asyncio
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench import mailbox_faces
from bench.machine import describe, pin
from keys.identity import Identity
from peers.mailbox import sqlite_rows as rows
from peers.mailbox.core import Caller, Mailbox
from peers.mailbox.price import PriceList
from peers.mailbox.quotas import Rate
from peers.mailbox.rules import AccessRule, Limits
from peers.mailbox.sqlite_store import SqliteStore
from peers.mailbox.store import NewItem
from peers.mailbox.tending import read_clocks
from wire.mailbox_codes import ItemKind
from wire.mailbox_commands import Ack, Deposit, Fetch

SIZE: Final = 1024
UNDER_WAY: Final = 64
FREE: Final = Rate(items=0, size=0, period=1.0)
LIMITS: Final = replace(
    Limits(),
    recipient_items=10_000,
    total_items=100_000_000,
    total_bytes=1 << 50,
    depositor=FREE,
    address=FREE,
    prices=PriceList(most=0),
)
HELD_FOR: Final = 100
"""Items for each recipient in a full store."""
_NOBODY: Final = Caller()


def recipient(number: int) -> bytes:
    """A key for the number; nobody has its secret."""
    return random.Random(number).randbytes(31) + b"\0"


async def under_way(work: Callable[[int], Awaitable[int]], seconds: float) -> float:
    """Run `work(lane)` over and over in so many lanes; return what it counted per second."""
    begin = time.perf_counter()
    end = begin + seconds
    done = [0] * UNDER_WAY

    async def lane(number: int) -> None:
        while time.perf_counter() < end:
            done[number] += await work(number)

    await asyncio.gather(*(lane(number) for number in range(UNDER_WAY)))
    return sum(done) / (time.perf_counter() - begin)


def bare(directory: Path, seconds: float, group: int) -> float:
    """Return how many inserts of such blobs per second bare SQLite does, with `group` in one commit."""
    path = directory / "bare.db"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT")
        blob, done = random.randbytes(SIZE), 0
        begin = time.perf_counter()
        while time.perf_counter() < begin + seconds:
            db.execute("BEGIN IMMEDIATE")
            for _ in range(group):
                db.execute("INSERT INTO items (content) VALUES (?)", (blob,))
            db.execute("COMMIT")
            done += group
        return done / (time.perf_counter() - begin)


class Load:
    """Depositors and recipients at the core of one mailbox."""

    def __init__(self, mailbox: Mailbox, recipients: int) -> None:
        self.mailbox = mailbox
        self.recipients = [recipient(number) for number in range(recipients)]
        self.blobs = [random.randbytes(SIZE) for _ in range(64)]

    async def deposit(self, _: int) -> int:
        to, blob = random.choice(self.recipients), random.choice(self.blobs)
        request = Deposit(1, to, 0, random.randbytes(16), blob)
        await self.mailbox.deposit(request, _NOBODY, read_clocks(self.mailbox))
        return 1

    async def pick_up(self, lane: int, limit: int) -> int:
        """Fetch and acknowledge; each lane has recipients of its own, as each recipient has one client."""
        share = len(self.recipients) // UNDER_WAY
        to = self.recipients[lane * share + random.randrange(share)]
        lease = await self.mailbox.fetch(to, Fetch(1, limit), read_clocks(self.mailbox))
        numbers = tuple(item.number for item in lease.items)
        if not numbers:
            return 0
        return (await self.mailbox.acknowledge(to, Ack(2, numbers))).count

    async def one(self, lane: int) -> int:
        return await self.pick_up(lane, 1)

    async def sixteen(self, lane: int) -> int:
        return await self.pick_up(lane, 16)


async def open_mailbox(path: Path) -> tuple[Mailbox, SqliteStore]:
    store = await SqliteStore.open(path, LIMITS)
    public = Identity.generate().public
    wall, tick = int(time.time() * 1000), time.monotonic()
    return await Mailbox.open(store, public, LIMITS, AccessRule(), wall, tick), store


async def rounds(load: Load, directory: Path, count: int, seconds: float) -> dict[str, list[float]]:
    """Deposit for as long as is picked up afterwards, so that the store is as full after a round as before."""
    found: dict[str, list[float]] = {}
    for _ in range(count):
        found.setdefault("bare, 64 a commit", []).append(bare(directory, seconds, UNDER_WAY))
        found.setdefault("bare, 1 a commit", []).append(bare(directory, seconds, 1))
        found.setdefault("deposit", []).append(await under_way(load.deposit, 2 * seconds))
        found.setdefault("fetch 1 + ack", []).append(await under_way(load.one, seconds))
        found.setdefault("fetch 16 + ack", []).append(await under_way(load.sixteen, seconds / 2))
    return found


async def fill(store: SqliteStore, load: Load, items: int, expires: int) -> None:
    """Put items into the store by its own rules, many in a commit."""

    def some(db: sqlite3.Connection, first: int, last: int) -> None:
        for number in range(first, last):
            to = load.recipients[number % len(load.recipients)]
            item = NewItem(to, ItemKind.DEPOSIT, expires, random.randbytes(16), load.blobs[number % 64])
            assert rows.deposit(db, item, 0, LIMITS, lambda: 1 << 50) == expires

    for first in range(0, items, 5000):
        await store._database.write(some, first, min(items, first + 5000))


async def expiry(load: Load, store: SqliteStore, items: int, seconds: float) -> dict[str, float]:
    """Let items end at once, and deposit meanwhile: what does each of these wait at most?"""
    mailbox = load.mailbox
    at = read_clocks(mailbox)
    before = (await store.totals()).items
    await fill(store, load, items, at.now - 1)
    alone = await waits_of(load, lambda: asyncio.sleep(5 * seconds))
    commits = count_commits(store)
    batches: list[float] = []
    begin = time.perf_counter()

    async def erase() -> None:
        erased = 1
        while erased:
            start = time.perf_counter()
            erased = await mailbox.tend(read_clocks(mailbox))
            batches.append(time.perf_counter() - start)
            await asyncio.sleep(batches[-1])  # as peers.mailbox.tending does

    meanwhile = await waits_of(load, erase)
    taken = time.perf_counter() - begin
    assert (await store.totals()).items == before + len(alone) + len(meanwhile)
    return {
        "items": items,
        "seconds": taken,
        "longest batch, ms": max(batches) * 1000,
        "median batch, ms": median(batches) * 1000,
        "longest commit, its own CPU, ms": max(commits) * 1000,
        **described("deposits meanwhile", meanwhile),
        **described("deposits before", alone),
    }


def count_commits(store: SqliteStore) -> list[float]:
    """Return a list to which each commit from now on adds the CPU seconds that it took of the writer.

    What others do on the machine and its disk is not in them.
    """
    taken: list[float] = []
    commit = store._database._commit

    def counted(group: list[Any]) -> None:
        begin = time.thread_time()
        commit(group)
        taken.append(time.thread_time() - begin)

    store._database._commit = counted  # type: ignore[method-assign]
    return taken


async def waits_of(load: Load, work: Callable[[], Awaitable[None]]) -> list[float]:
    """Deposit, one after another, until `work` is done; return what each waited, in seconds, sorted."""
    waits: list[float] = []
    working = asyncio.ensure_future(work())
    while not working.done():
        begin = time.perf_counter()
        await load.deposit(0)
        waits.append(time.perf_counter() - begin)
    await working
    return sorted(waits)


def described(what: str, waits: list[float]) -> dict[str, float]:
    return {
        what: len(waits),
        f"{what}: p50, ms": median(waits) * 1000,
        f"{what}: p99, ms": waits[int(len(waits) * 0.99)] * 1000,
        f"{what}: longest, ms": waits[-1] * 1000,
    }


def show(title: str, found: dict[str, list[float]], against: dict[str, list[float]] | None = None) -> None:
    print(f"\n{title}")
    base = median(found["bare, 64 a commit"])
    for name, values in found.items():
        line = f"  {name:20} {median(values):10,.0f} /s   {median(values) / base:5.2f} x bare"
        if against is not None:
            line += f"   {median(values) / median(against[name]):5.2f} x empty"
        print(line)


async def run(directory: Path, items: int, count: int, seconds: float) -> dict[str, Any]:
    mailbox, store = await open_mailbox(directory / "mailbox.db")
    load = Load(mailbox, max(UNDER_WAY * 4, items // HELD_FOR))
    empty = await rounds(load, directory, count, seconds)
    show("an empty store", empty)
    begin = time.perf_counter()
    await fill(store, load, items, read_clocks(mailbox).now + LIMITS.ttl)
    print(f"\nfilled with {items:,} items in {time.perf_counter() - begin:.0f} s")
    full = await rounds(load, directory, count, seconds)
    show(f"a store of {(await store.totals()).items:,} items", full, empty)
    ended = await expiry(load, store, min(items, 100_000), seconds)
    print("\nexpiry of many at once, and deposits meanwhile")
    for name, value in ended.items():
        print(f"  {name:36} {value:10,.1f}")
    size = (directory / "mailbox.db").stat().st_size
    print(f"\nfile: {size / 2**20:,.0f} MiB")
    await store.close()
    return {"machine": describe(), "empty": empty, "full": full, "expiry": ended, "file_bytes": size}


def measure_sqlite(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the core above SQLite, and then the ways in."""
    cores = os.sched_getaffinity(0)
    pin(0, min(cores))
    with tempfile.TemporaryDirectory(prefix="blindrelay-mailbox-", dir=options.dir) as directory:
        result = asyncio.run(run(Path(directory), options.items, options.rounds, options.seconds))
    if options.faces:
        os.sched_setaffinity(0, cores)
        with tempfile.TemporaryDirectory(prefix="blindrelay-mailbox-", dir=options.dir) as directory:
            result["faces"] = mailbox_faces.measure(Path(directory), options.faces)
        mailbox_faces.show(result["faces"])
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mailbox", description=__doc__.partition("\n")[0])
    parser.add_argument("--store", choices=("sqlite", "jetstream"), default="sqlite")
    parser.add_argument(
        "--no-overwrite", action="store_true", help="with jetstream: only without overwriting what is deleted"
    )
    parser.add_argument("--items", type=int, default=1_000_000, help="items that are held in the full store")
    parser.add_argument("--faces", type=int, default=10_000, help="deposits through each way in; 0 for none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--dir", type=Path, help="on the disk to be measured (default: the system's temporary one)")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args(arguments)
    if options.items < UNDER_WAY or options.rounds < 1 or options.seconds <= 0:
        parser.error(f"at least {UNDER_WAY} items, one round and some time")
    if options.store == "jetstream":
        from bench import mailbox_jetstream

        with tempfile.TemporaryDirectory(prefix="blindrelay-mailbox-", dir=options.dir) as directory:
            result = mailbox_jetstream.run(
                Path(directory), options.items, options.rounds, options.seconds, overwrite=not options.no_overwrite
            )
    else:
        result = measure_sqlite(options)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
