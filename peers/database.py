"""An SQLite database for asyncio: one writer thread, group commit, a versioned schema, a backup before its upgrade.

Rules are plain functions that take a connection first; this module runs them in the right thread and transaction:

    await database.write(function, …)   in the writer, within a transaction; returns after the commit
    await database.read(function, …)    in a reader, which sees what was committed before

Several processes may have the same file open. WAL lets readers go on while one process writes, and each transaction
takes the write lock at its beginning, so that none fails halfway for want of it.
"""

import asyncio
import errno
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from keys.private_file import claim, sync_directory

P = ParamSpec("P")
T = TypeVar("T")

_BUSY: Final = 30.0
"""Seconds that a transaction waits for another process' lock; none of ours holds it longer than a commit takes."""
_GROUP: Final = 256
"""Most writes in one commit: many share the cost of one sync, and the first does not wait long for the last."""
_RETRY: Final = 0.01
"""Seconds between attempts to open a database that another process is making."""
_READERS: Final = 2
"""Threads that read: a long search does not hold the history up."""
_ROUNDS: Final = 2
_POLL: Final = 0.1
"""Seconds between looks for what other processes committed; a look takes some microseconds."""


class DatabaseError(Exception):
    """The database cannot be used; the text names the file and what to do, and nothing of its content."""


class DatabaseFull(DatabaseError):
    """There is no room on the disk; nothing of the write was kept."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database holds, version by version.

    Attributes:
        application_id: marks the file as ours (``PRAGMA application_id``).
        steps: the statements that lead from version n to n + 1, from version 0, an empty file, on.
    """

    application_id: int
    steps: Sequence[str]

    @property
    def version(self) -> int:
        return len(self.steps)


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
        self._watcher = _connect(path)
        self._committed = asyncio.Event()
        self._closed = False

    @classmethod
    def open(cls, path: Path, schema: Schema) -> Self:
        """Open `path`, made with mode 0600 if it is missing, and upgraded if it is older; blocks for that long.

        Before an upgrade a copy is written beside it, ``NAME.vN.backup``.

        Raises:
            DatabaseError: it is no such database, or of a newer version, or cannot be opened.
        """
        try:
            _make(path)
            writer = _connect(path)
            try:
                _patiently(_prepare, writer, path, schema)
            except BaseException:
                writer.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise _mapped(path, error) from error
        return cls(path, writer)

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
            raise _mapped(self.path, error) from error

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
            raise _mapped(self.path, error) from error
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
            raise _mapped(self.path, error) from error
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
                raise _mapped(self.path, error) from error
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
            connection = _connect(self.path)
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
                job.future.set_exception(_mapped(self.path, job.error))
            elif isinstance(job.error, StopIteration):
                # No future takes one: it would end whatever iterates over those who wait.
                job.future.set_exception(RuntimeError("a function of the store raised StopIteration"))
            else:
                job.future.set_exception(job.error)


def copy_database(source: Path, to: Path) -> None:
    """Write a whole copy of what is committed in `source` to `to`, which must not exist, with mode 0600; blocks.

    Others may write to `source` meanwhile, and the copy is of one moment. It is not upgraded.

    Raises:
        DatabaseError: `to` exists, or one of them cannot be read or written.
    """
    try:
        if not source.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # SQLite would make an empty one
        with closing(_connect(source)) as connection:
            _copy(connection, to, overwrite=False)
    except FileExistsError as error:
        raise DatabaseError(f"{to} exists and is not overwritten") from error
    except (OSError, sqlite3.Error) as error:
        raise _mapped(to if isinstance(error, OSError) and source.is_file() else source, error) from error


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


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are begun by us. Threads: each connection has one at a time, but another may close it.
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    # What a peer was told that we have must survive a loss of power, so every commit is synced (NORMAL would not).
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _checkpoint(path: Path, cut: bool) -> tuple[int, int]:
    """Return how many pages of the log were not moved, at least 1 if it was busy, and how many it has: at the moment at
    which this began, whatever was written since."""
    with closing(_connect(path)) as connection:
        return _move_log(connection, "TRUNCATE" if cut else "PASSIVE")


def _move_log(connection: sqlite3.Connection, mode: str = "PASSIVE") -> tuple[int, int]:
    busy, log, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return max(log - moved, int(bool(busy))), log


def _make(path: Path) -> None:
    """Make an empty file of mode 0600: SQLite would make it under the umask, and -wal and -shm take the mode of it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        # Not opened, not even to look: closing any descriptor of a file drops all locks that this process has on it
        # (POSIX), those of another connection of ours too, and the data base could be damaged.
        if path.is_symlink():
            raise DatabaseError(f"{path} is a symbolic link: put the data base itself there") from None
        return
    os.close(descriptor)


def _patiently(prepare: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run what may find the database busy in ways for which SQLite does not wait by itself, as the change to WAL."""
    deadline = time.monotonic() + _BUSY
    while True:
        try:
            return prepare(*args, **kwargs)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY)


def _prepare(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    # Of one moment: another process may be making the tables.
    connection.execute("BEGIN")
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    finally:
        connection.execute("ROLLBACK")
    if tables and application_id != schema.application_id:
        raise DatabaseError(f"{path} is another program's database")
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    if _version(connection) == schema.version:
        return
    # Looked at again under the lock: of two processes that start together one does it, and the other waits.
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        _check_version(path, version, schema)
        if 0 < version < schema.version:
            with closing(_connect(path)) as source:  # sees what is committed: the version before
                _copy(source, path.with_name(f"{path.name}.v{version}.backup"), overwrite=True)
        for step in schema.steps[version:]:
            for statement in statements(step):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.application_id:d}")
        connection.execute(f"PRAGMA user_version = {schema.version:d}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_version(path: Path, version: int, schema: Schema) -> None:
    if version > schema.version:
        raise DatabaseError(
            f"{path} has version {version}, and this program knows {schema.version}: install a newer blindrelay"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def statements(script: str) -> list[str]:
    """Return the statements of a step, each to be executed alone.

    Not executescript: that commits before it begins, and an upgrade is to happen whole or not at all.

    Raises:
        ValueError: the last one is not whole.
    """
    whole, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            whole.append(statement)
            statement = ""
    if statement.strip():
        raise ValueError(f"not a whole statement: {statement}")
    return whole


def _copy(source: sqlite3.Connection, path: Path, *, overwrite: bool) -> None:
    # A name that nobody else has: the number of the process is the same in every container.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    try:
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        with closing(sqlite3.connect(temporary, isolation_level=None)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            claim(temporary, path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _mapped(path: Path, error: Exception) -> DatabaseError:
    """SQLite's texts may quote what was to be stored; its codes do not."""
    if isinstance(error, OSError):
        return DatabaseError(f"cannot open {path}: {error.strerror or type(error).__name__}")
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    kind = DatabaseFull if name == "SQLITE_FULL" else DatabaseError
    known = {
        "SQLITE_FULL": "the disk is full: make room and try again",
        "SQLITE_NOTADB": "it is no SQLite database",
        "SQLITE_CORRUPT": "it is damaged: restore a backup",
        "SQLITE_BUSY": "another process holds it for too long: end that one",
        "SQLITE_CANTOPEN": "it cannot be opened: look at its permissions",
        "SQLITE_READONLY": "it cannot be written: look at its permissions",
    }
    return kind(f"{path}: {known.get(name, name)}")
