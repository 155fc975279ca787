"""What the mailbox does by itself, when the machine's clock jumps, and beside a store that fails."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from peers.mailbox.store import StoreError
from peers.mailbox.tending import tend
from tests.peers.mailbox.lab import Box, asked, contents
from tests.support.clients import WAIT, run_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOUR = 3600.0


class Look:
    """Waits for looks of a tender: each that begins after the call counts."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.errors: list[StoreError] = []
        self._failed = asyncio.Event()
        self._done = 0
        self._more = asyncio.Event()

    def tended(self) -> None:
        self._done += 1
        self._more.set()

    def failed(self, error: StoreError) -> None:
        self.errors.append(error)
        self._failed.set()

    async def failures(self, count: int) -> None:
        async with asyncio.timeout(WAIT):
            while len(self.errors) < count:
                self._failed.clear()
                await self._failed.wait()

    async def more(self, count: int = 2) -> None:
        wanted = self._done + count
        async with asyncio.timeout(WAIT):
            while self._done < wanted:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def tended(box: Box) -> AsyncIterator[Look]:
    look = Look(box)
    task = asyncio.create_task(tend(box.mailbox, look.failed, moment=lambda _: box.at, every=0.001, tended=look.tended))
    try:
        yield look
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


@run_async
async def test_what_has_ended_is_erased(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, tended(box) as look:
        await box.deposit(asked(1, ttl=3600))
        await box.deposit(asked(2, ttl=3 * 3600))
        box.passes(2 * HOUR)
        await look.more()
        assert (await box.store.totals()).items == 1
        assert box.mailbox.tallies.expired == 1


@run_async
async def test_a_clock_that_jumps_forward_erases_nothing_at_once(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, tended(box) as look:
        await box.deposit(asked(1, ttl=24 * 3600))
        box.wall += 365 * 24 * HOUR * 1000
        await look.more()
        assert contents(await box.fetch()) == [1]
        for _ in range(11):  # time runs twice as fast now, and no faster
            box.passes(HOUR)
            await look.more()
        assert (await box.store.totals()).items == 1
        for _ in range(3):
            box.passes(HOUR)
            await look.more()
        assert (await box.store.totals()).items == 0


@run_async
async def test_a_clock_that_jumps_back_keeps_nothing_for_ever(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, tended(box) as look:
        await box.deposit(asked(1, ttl=24 * 3600))
        box.wall -= 365 * 24 * HOUR * 1000
        await look.more()
        for _ in range(23):
            box.passes(2 * HOUR)
            await look.more()
        assert (await box.store.totals()).items == 1
        box.passes(6 * HOUR)
        await look.more()
        assert (await box.store.totals()).items == 0


@run_async
async def test_a_clock_that_goes_to_and_fro_across_restarts(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await box.deposit(asked(1, ttl=24 * 3600))
        for jump in (+1000, -2000, +3000):
            box.wall += jump * HOUR * 1000
            async with tended(box) as look:
                box.passes(61)  # the time is saved every minute
                await look.more()
            await box.restart()
            assert contents(await box.fetch()) == [1]


@run_async
async def test_a_store_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        expire = box.store.expire

        async def fails(_: int) -> int:
            raise StoreError("the disk is full")

        box.store.expire = fails
        async with tended(box) as look:
            await look.failures(2)
            box.store.expire = expire
            await look.more()
            told = len(look.errors)
            await look.more()
            assert len(look.errors) == told
