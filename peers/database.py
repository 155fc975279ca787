"""An SQLite database for asyncio: one writer thread, group commit, a versioned schema, a backup before its upgrade.

Rules are plain functions that take a connection first; this module runs them in the right thread and transaction:

    await database.write(function, …)   in the writer, within a transaction; returns after the commit
    await database.read(function, …)    in a reader, which sees what was committed before

Several processes may have the same file open. WAL lets readers go on while one process writes, and each transaction
takes the write lock at its beginning, so that none fails halfway for want of it.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from peers.database_file import DatabaseError, DatabaseFull, Schema, connect, copy_database, mapped, open_writer

__all__ = ["Database", "DatabaseError", "DatabaseFull", "Schema", "copy_database"]

P = ParamSpec("P")
T = TypeVar("T")

_GROUP: Final = 256
"""Most writes in one commit: many share the cost of one sync, and the first does not wait long for the last."""
_READERS: Final = 2
"""Threads that read: a long search does not hold the history up."""
_ROUNDS: Final = 2
_POLL: Final = 0.1
"""Seconds between looks for what other processes committed; a look takes some microseconds."""


class Database:
    """One file, open in one process. Made by :meth:`open`; every method but `close` is for one event loop.

    Raises:
        DatabaseError: by all methods, where the file cannot be read or written.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self.path = path
        self._writer = writer
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(_READERS, f"read-{path.name}")
        self._thread = threading.Thread(target=self._run, name=f"write-{path.name}", daemon=True)
        self._thread.start()
        self._watcher = connect(path)
        self._committed = asyncio.Event()
        self._closed = False

    @classmethod
    def open(cls, path: Path, schema: Schema) -> Self:
        """Open `path`, made with mode 0600 if it is missing, and upgraded if it is older; blocks for that long.

        Before an upgrade a copy is written beside it, ``NAME.vN.backup``.

        Raises:
            DatabaseError: it is no such database, or of a newer version, or cannot be opened.
        """
        return cls(path, open_writer(path, schema))

    async def write(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``function(connection, …)`` in a transaction and return its result once that is committed.

        Calls are run in the order in which they are made. Those that wait together are committed together, yet each has
        a savepoint of its own: what one of them raises undoes that one alone, and comes out here.
        """
        return await self.submit(function, *args, **kwargs)

    def submit(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> "asyncio.Future[T]":
        """Put a write in line, as :meth:`write` does, and return its future at once."""
        if self._closed:
            raise DatabaseError(f"{self.path} is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(lambda connection: function(connection, *args, **kwargs), future))
        return future

    async def read(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``function(connection, …)`` on one snapshot and return its result."""
        if self._closed:
            raise DatabaseError(f"{self.path} is closed")

        def run() -> T:
            connection = self._reader()
            connection.execute("BEGIN")
            try:
                return function(connection, *args, **kwargs)
            finally:
                connection.execute("ROLLBACK")

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, run)
        except sqlite3.Error as error:
            raise mapped(self.path, error) from error

    async def changed(self, version: int, within: float | None = None) -> int:
        """Return as soon as the version differs from `version`, or after `within` seconds; returns the version then.

        The version is a number that means nothing by itself; begin with -1. Commits of all processes count.
        """
        deadline = None if within is None else time.monotonic() + within
        while True:
            now = self.version()
            if now != version or (deadline is not None and time.monotonic() >= deadline):
                return now
            # Our own commits set it; of other processes' only a look tells.
            event = self._committed
            with suppress(TimeoutError):
                rest = _POLL if deadline is None else min(_POLL, deadline - time.monotonic())
                async with asyncio.timeout(rest):
                    await event.wait()

    def version(self) -> int:
        """The number that :meth:`changed` waits for. Reads shared memory, never the disk or a lock."""
        try:
            (version,) = self._watcher.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise mapped(self.path, error) from error
        return int(version)

    async def checkpoint(self, *, cut: bool = False) -> bool:
        """Move what the write-ahead log holds into the database; tell whether that was all of it.

        It is done beside the writer, which goes on meanwhile. With `cut` it waits for a moment without writers and
        readers and cuts the log to nothing: SQLite overwrites it only as it goes on, and until then it keeps what was
        written lately, deleted or not.
        """
        if self._closed:
            raise DatabaseError(f"{self.path} is closed")
        try:
            left, _ = await asyncio.get_running_loop().run_in_executor(self._pool, _checkpoint, self.path, cut)
        except sqlite3.Error as error:
            raise mapped(self.path, error) from error
        return not left

    async def empty_log(self, most: int) -> None:
        """Move what the log holds into the database, so that it is begun anew before it has more than `most` pages.

        Beside a writer that never rests, :meth:`checkpoint` never comes to the end of the log, which then grows until
        the writer has to empty it within a commit. So the little that was written meanwhile is moved by the writer,
        between two commits.
        """
        for _ in range(_ROUNDS):  # each leaves what was written while it ran, which is less every time
            if self._closed:
                raise DatabaseError(f"{self.path} is closed")
            try:
                _, size = await asyncio.get_running_loop().run_in_executor(self._pool, _checkpoint, self.path, False)
            except sqlite3.Error as error:
                raise mapped(self.path, error) from error
            if size <= most:
                return
        if self._closed:
            raise DatabaseError(f"{self.path} is closed")
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(_move_log, future, alone=True))
        await future

    async def close(self) -> None:
        """Finish the writes that wait, and close the file."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._thread.join)
        await loop.run_in_executor(None, self._pool.shutdown)
        for connection in (*self._readers, self._watcher, self._writer):
            connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _reader(self) -> sqlite3.Connection:
        """Return this thread's connection. Made at its first read and not by the pool: a pool whose initializer fails
        once, for want of a file descriptor, is broken for good and does not say why."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect(self.path)
            connection.execute("PRAGMA query_only = ON")
            self._local.connection = connection
            self._readers.append(connection)
        return connection

    def _run(self) -> None:
        more = True
        while more:
            jobs = [self._jobs.get()]
            with suppress(queue.Empty):
                while len(jobs) < _GROUP and jobs[-1] is not None:
                    jobs.append(self._jobs.get_nowait())
            more = jobs[-1] is not None
            group = [job for job in jobs if job is not None]
            if group:
                self._commit(group)

    def _commit(self, group: list["_Job"]) -> None:
        if alone := [job for job in group if job.alone]:
            for job in alone:
                try:
                    job.result = job.run(self._writer)
                except sqlite3.Error as error:
                    job.error = error
            self._tell(alone)
            group = [job for job in group if not job.alone]
            if not group:
                return
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for job in group:
                self._writer.execute("SAVEPOINT job")
                try:
                    job.result = job.run(self._writer)
                # Whatever it is, it belongs to whoever asked, and the thread goes on for the others.
                except BaseException as error:
                    # After a full disk or a broken file SQLite has undone the whole transaction by itself.
                    if not self._writer.in_transaction:
                        raise
                    self._writer.execute("ROLLBACK TO job")
                    job.error = error
                self._writer.execute("RELEASE job")
            self._writer.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - nothing of the group was kept, and each must be told
            with suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            for job in group:
                job.error = job.error or error
        self._tell(group)

    def _tell(self, group: list["_Job"]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in group:
            by_loop.setdefault(job.future.get_loop(), []).append(job)
        for loop, jobs in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
                loop.call_soon_threadsafe(self._deliver, jobs)

    def _deliver(self, jobs: list["_Job"]) -> None:
        self._committed.set()
        self._committed = asyncio.Event()
        for job in jobs:
            if job.future.done():  # cancelled meanwhile; what it wrote stays written
                continue
            if job.error is None:
                job.future.set_result(job.result)
            elif isinstance(job.error, sqlite3.Error):
                job.future.set_exception(mapped(self.path, job.error))
            elif isinstance(job.error, StopIteration):
                # No future takes one: it would end whatever iterates over those who wait.
                job.future.set_exception(RuntimeError("a function of the store raised StopIteration"))
            else:
                job.future.set_exception(job.error)


def _checkpoint(path: Path, cut: bool) -> tuple[int, int]:
    """Return how many pages of the log were not moved, at least 1 if it was busy, and how many it has: at the moment at
    which this began, whatever was written since."""
    with closing(connect(path)) as connection:
        return _move_log(connection, "TRUNCATE" if cut else "PASSIVE")


def _move_log(connection: sqlite3.Connection, mode: str = "PASSIVE") -> tuple[int, int]:
    busy, log, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return max(log - moved, int(bool(busy))), log


class _Job:
    __slots__ = ("alone", "error", "future", "result", "run")

    def __init__(
        self, run: Callable[[sqlite3.Connection], Any], future: "asyncio.Future[Any]", *, alone: bool = False
    ) -> None:
        self.run = run
        self.alone = alone  # outside of transactions
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
