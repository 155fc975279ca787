"""The store in one SQLite file: write-ahead log, one writer thread, group commit, every commit synced.

Everything about items runs in the writer, one call after another, so that no two of them can be halfway at once;
those that wait together share one commit (:mod:`peers.database`). Leases are kept in memory, and touched in the writer
only (:mod:`peers.mailbox.leases`).
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self, TypeVar

from peers.database import Database, DatabaseError, DatabaseFull
from peers.mailbox import sqlite_rows as rows
from peers.mailbox.leases import Leases
from peers.mailbox.rules import Limits, Refused
from peers.mailbox.sqlite_schema import SCHEMA
from peers.mailbox.store import Handed, Held, NewItem, StoreError, StoreFull, Totals
from peers.mailbox.unmarked import Unmarked
from peers.profile.errors import ProfileError
from peers.profile.lock import ProfileLock
from wire.mailbox_codes import ItemKind

T = TypeVar("T")

_CACHE: Final = 64 << 20
"""Bytes of pages in memory: the indexes of a million items, so that a deposit reads nothing from the disk."""
_PAGE: Final = 4096
_LOG_MOST: Final = 16 << 20
"""Bytes of the log beyond which it is begun anew: what the writer moves for it takes it some milliseconds."""
_LOG: Final = 64 << 20
"""Bytes to which the log may grow before the writer itself empties it, and everybody waits."""
_CHECKPOINT: Final = 0.1
"""Seconds for which the log is let grow: what has grown longer takes longer to sync, and commits wait for the disk."""
_ACK_CHUNK: Final = 128
"""Numbers of one ACK that are deleted in one go: some milliseconds in which nobody else is served."""
_BATCH_SLOW: Final = 0.01
"""Seconds beyond which the next batch of erasures is half as large: the next deposit waits for it."""


class SqliteStore:
    """A :class:`peers.mailbox.store.Store`. Made by :meth:`open`; all methods are for one event loop.

    Args:
        free: bytes that are free on the disk; it is asked by the writer thread before each deposit.
    """

    def __init__(self, database: Database, lock: ProfileLock, limits: Limits, free: Callable[[], int]) -> None:
        self._database = database
        self._lock = lock
        self._limits = limits
        self._free = free
        self._leases = Leases()
        self._unmarked = Unmarked()
        self._batch = rows.BATCH_ROWS
        self._used = asyncio.Event()
        self._checkpoints = asyncio.create_task(self._checkpoint())

    @classmethod
    async def open(cls, path: Path, limits: Limits, free: Callable[[], int] | None = None) -> Self:
        """Open the file, made with mode 0600 if it is missing; blocks for as long as an upgrade takes.

        Raises:
            StoreError: another mailbox uses it, or it cannot be used.
        """
        # Leases and the clock are in the memory of one process: two on one file would hand out everything twice.
        lock = ProfileLock(path.with_name(f"{path.name}.lock"))
        try:
            if not lock.acquire():
                raise StoreError(f"another mailbox uses {path}; end it first")
        except ProfileError as error:
            raise StoreError(str(error)) from None
        try:
            database = Database.open(path, SCHEMA)
        except DatabaseError as error:
            lock.release()
            raise StoreError(str(error)) from error
        store = cls(database, lock, limits, free or (lambda: _free(path.parent)))
        try:
            await store._run(database.write(rows.prepare, _CACHE, _LOG))
        except BaseException:
            await store.close()
            raise
        return store

    async def deposit(self, item: NewItem, now: int) -> int:
        try:
            result = await self._run(self._database.write(rows.deposit, item, now, self._limits, self._free))
        except StoreFull:
            # The reserve was used up by somebody else. What cannot be written down now is, when there is room.
            self._unmarked.add(item.recipient, now)
            raise
        if isinstance(result, Refused):
            raise result
        return result

    async def held(self, recipient: bytes, drop_digest: bytes, content: bytes) -> int | None:
        return await self._run(self._database.write(rows.held, recipient, drop_digest, content))

    async def lease(
        self, recipient: bytes, kinds: frozenset[ItemKind], limit: int, room: int, head: int, now: int, tick: float
    ) -> Handed:
        return await self._run(
            self._database.write(rows.lease, self._leases, recipient, kinds, limit, room, head, now, tick, self._limits)
        )

    async def acknowledge(self, recipient: bytes, numbers: tuple[int, ...], refusals: int) -> int:
        done = 0
        for at in range(0, max(1, len(numbers)), _ACK_CHUNK):
            chunk = numbers[at : at + _ACK_CHUNK]
            done += await self._run(
                self._database.write(rows.acknowledge, self._leases, recipient, chunk, 0 if at else refusals)
            )
        return done

    async def release(self, recipient: bytes, number: int, end: float) -> None:
        await self._run(self._database.write(rows.release, self._leases, recipient, number, end))

    async def set_aside(self, recipient: bytes, number: int, until: int) -> bool:
        return await self._run(self._database.write(rows.set_aside, self._leases, recipient, number, until))

    async def restore(self, recipient: bytes, now: int) -> int:
        return await self._run(self._database.write(rows.restore, recipient, now))

    async def drop(self, recipient: bytes, drop_digest: bytes) -> bool:
        return await self._run(self._database.write(rows.drop, self._leases, recipient, drop_digest))

    async def counts(self, recipient: bytes, tick: float) -> Held:
        return await self._run(self._database.write(rows.counts, self._leases, recipient, tick))

    async def totals(self) -> Totals:
        return await self._run(self._database.write(rows.totals))

    async def expire(self, now: int) -> int:
        await self._unmarked.write(self._mark)
        begun = time.perf_counter()
        erased = await self._run(self._database.write(rows.expire, self._leases, now, self._limits, self._batch))
        # With its commit, which waits for the disk: how long that takes for so many pages only the disk can tell.
        slow = time.perf_counter() - begun > _BATCH_SLOW
        self._batch = max(rows.CHUNK, self._batch // 2) if slow else min(rows.BATCH_ROWS, 2 * self._batch)
        return erased

    async def _mark(self, recipient: bytes, when: int) -> None:
        await self._run(self._database.write(rows.mark, recipient, when, self._limits))

    async def tidy(self, tick: float) -> None:
        await self._run(self._database.write(lambda _: self._leases.sweep(tick)))
        await self._run(self._database.checkpoint(cut=True))

    async def saved_time(self) -> int | None:
        return await self._run(self._database.write(rows.saved_time))

    async def save_time(self, now: int) -> None:
        await self._run(self._database.write(rows.save_time, now))

    async def close(self) -> None:
        self._checkpoints.cancel()
        await asyncio.wait([self._checkpoints])
        try:
            await self._database.close()
        finally:
            self._lock.release()

    async def _checkpoint(self) -> None:
        """Move the log into the database beside the writer, while there is something to move.

        Left to SQLite, the writer would do it within a commit, whenever the log has four megabytes: with a million
        items that is a thousand pages in as many places, and everybody waits.
        """
        while True:
            await self._used.wait()
            await asyncio.sleep(_CHECKPOINT)
            self._used.clear()
            # What fails here fails again where somebody is told: in the next commit that needs the room.
            with suppress(DatabaseError):
                await self._database.empty_log(_LOG_MOST // _PAGE)

    async def _run(self, call: Awaitable[T]) -> T:
        self._used.set()
        try:
            return await call
        except DatabaseFull as error:
            raise StoreFull(str(error)) from error
        except DatabaseError as error:
            raise StoreError(str(error)) from error


def _free(directory: Path) -> int:
    # What this user may still write: some of a disk is the administrator's.
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize
