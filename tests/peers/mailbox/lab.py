"""A mailbox on a clock of the test's own, above a real file, or a stream (tests/peers/mailbox/nats.py)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from keys.deposit import drop_digest
from keys.identity import Identity
from keys.stamp import NO_STAMP
from peers.mailbox.core import Caller, Mailbox
from peers.mailbox.price import PriceList
from peers.mailbox.quotas import Rate
from peers.mailbox.rules import AccessRule, Limits, Refused
from peers.mailbox.sqlite_store import SqliteStore
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peers.mailbox.clock import Moment
    from peers.mailbox.store import Store
    from wire.mailbox_codes import Reason

START: Final = 1_700_000_000_000
ALICE: Final = Identity(b"a" * 32, b"A" * 32)
BOB: Final = Identity(b"b" * 32, b"B" * 32)
CAROL: Final = Identity(b"c" * 32, b"C" * 32)
BOX: Final = Identity(b"m" * 32, b"M" * 32).public
UNBOUND: Final = Rate(items=0, size=0, period=1.0)


def limits(**changed: Any) -> Limits:
    """Limits without rates and prices, and without a look at the real disk, unless the test says otherwise."""
    return replace(
        Limits(depositor=UNBOUND, address=UNBOUND, asking=UNBOUND, disk_reserve=0, prices=PriceList(most=0)), **changed
    )


def content(number: int, size: int = 1024) -> bytes:
    """What looks like a deposit to a mailbox."""
    return number.to_bytes(8, "little") * (size // 8)


def secret(number: int) -> bytes:
    return number.to_bytes(32, "little")


def asked(number: int, to: Identity = BOB, **changed: Any) -> asks.Deposit:
    arguments: dict[str, Any] = {
        "request": number,
        "recipient": to.public.x_pub,
        "ttl": 0,
        "drop_digest": drop_digest(secret(number)),
        "deposit": content(number),
        "stamp": NO_STAMP,
    }
    return asks.Deposit(**(arguments | changed))


class Box:
    """A mailbox that can be closed and opened again; `wall` and `tick` are the machine's clocks."""

    def __init__(self, path: Path, bounds: Limits | None = None, access: AccessRule | None = None) -> None:
        self.path = path
        self.limits = bounds or limits()
        self.access = access or AccessRule()
        self.wall = float(START)
        self.tick = 1000.0
        self.free: Callable[[], int] = lambda: 1 << 50

    async def __aenter__(self) -> Box:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.store.close()

    store: Any
    """A SqliteStore, unless `open_store` says otherwise."""

    async def open_store(self) -> Store:
        return await SqliteStore.open(self.path, self.limits, lambda: self.free())

    async def open(self) -> None:
        self.store = await self.open_store()
        self.mailbox = await Mailbox.open(self.store, BOX, self.limits, self.access, int(self.wall), self.tick)

    async def restart(self) -> None:
        await self.store.close()
        self.tick = 5.0  # another boot
        await self.open()

    def passes(self, seconds: float) -> None:
        self.wall += seconds * 1000
        self.tick += seconds

    @property
    def at(self) -> Moment:
        return self.mailbox.moment(self.wall, self.tick)

    async def deposit(self, request: asks.Deposit, caller: Caller | None = None) -> answers.Kept:
        return await self.mailbox.deposit(request, caller or Caller(), self.at)

    async def says(self, body: asks.ForMailbox, who: Identity | None = None, caller: Caller | None = None) -> Any:
        return await self.mailbox.serve(None if who is None else who.public.x_pub, body, caller or Caller(), self.at)

    async def fetch(self, who: Identity = BOB, limit: int = 64) -> answers.Lease:
        return await self.mailbox.fetch(who.public.x_pub, asks.Fetch(1, limit), self.at)

    async def acknowledge(self, lease: answers.Lease, who: Identity = BOB) -> int:
        numbers = tuple(item.number for item in lease.items)
        return (await self.mailbox.acknowledge(who.public.x_pub, asks.Ack(1, numbers, lease.refusals))).count

    async def tend(self) -> int:
        erased, more = 0, 1
        while more:
            more = await self.mailbox.tend(self.at)
            erased += more
        return erased


def contents(lease: answers.Lease) -> list[int]:
    """The numbers of the deposits in a lease."""
    return [int.from_bytes(item.content[:8], "little") for item in lease.items]


def check_sums(path: Path) -> None:
    """What is counted in the database is what is there."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        counted = db.execute(
            "SELECT no, count(id), coalesce(sum(length(content)), 0), count(restorable),"
            " coalesce(sum(length(content)) FILTER (WHERE restorable IS NOT NULL), 0)"
            " FROM recipients LEFT JOIN items ON items.recipient = recipients.no GROUP BY no ORDER BY no"
        ).fetchall()
        assert db.execute("SELECT no, items, size, aside, aside_size FROM recipients ORDER BY no").fetchall() == counted
        (items, size, markers) = db.execute("SELECT items, size, markers FROM mailbox").fetchone()
        assert items == sum(row[1] for row in counted)
        assert size == sum(row[2] for row in counted)
        assert markers == db.execute("SELECT count(*) FROM recipients WHERE refused > 0").fetchone()[0]
        assert db.execute("SELECT count(*) FROM recipients WHERE items = 0 AND refused = 0").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM recipients WHERE (refused > 0) != (refused_since > 0)").fetchone() == (
            0,
        )
        twice = "SELECT count(*) FROM items GROUP BY recipient, {} HAVING count(*) > 1"
        for column in ("number", "drop_digest"):
            assert db.execute(twice.format(column)).fetchall() == []


async def refusal(box: Box, request: asks.Deposit, caller: Caller | None = None) -> Reason | None:
    """Deposit, and return why it was refused; None if it was not."""
    try:
        await box.deposit(request, caller)
    except Refused as refused:
        return refused.reason
    return None
