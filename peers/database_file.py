"""The file of an SQLite database: made, opened, upgraded with a backup before, and copied. All of it blocks."""

import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec

from keys.private_file import claim, sync_directory

P = ParamSpec("P")

_BUSY: Final = 30.0
"""Seconds that a transaction waits for another process' lock; none of ours holds it longer than a commit takes."""
_RETRY: Final = 0.01
"""Seconds between attempts to open a database that another process is making."""


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


def open_writer(path: Path, schema: Schema) -> sqlite3.Connection:
    """Return the connection that writes to `path`, made with mode 0600 if it is missing, and upgraded if it is older;
    blocks for that long.

    Before an upgrade a copy is written beside it, ``NAME.vN.backup``.

    Raises:
        DatabaseError: it is no such database, or of a newer version, or cannot be opened.
    """
    try:
        _make(path)
        writer = connect(path)
        try:
            _patiently(_prepare, writer, path, schema)
        except BaseException:
            writer.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise mapped(path, error) from error
    return writer


def copy_database(source: Path, to: Path) -> None:
    """Write a whole copy of what is committed in `source` to `to`, which must not exist, with mode 0600; blocks.

    Others may write to `source` meanwhile, and the copy is of one moment. It is not upgraded.

    Raises:
        DatabaseError: `to` exists, or one of them cannot be read or written.
    """
    try:
        if not source.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # SQLite would make an empty one
        with closing(connect(source)) as connection:
            _copy(connection, to, overwrite=False)
    except FileExistsError as error:
        raise DatabaseError(f"{to} exists and is not overwritten") from error
    except (OSError, sqlite3.Error) as error:
        raise mapped(to if isinstance(error, OSError) and source.is_file() else source, error) from error


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to a database that is there, as all of ours are."""
    # Transactions are begun by us. Threads: each connection has one at a time, but another may close it.
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    # What a peer was told that we have must survive a loss of power, so every commit is synced (NORMAL would not).
    connection.execute("PRAGMA synchronous = FULL")
    return connection


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
            with closing(connect(path)) as source:  # sees what is committed: the version before
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


def mapped(path: Path, error: Exception) -> DatabaseError:
    """Return what is told of an error. SQLite's texts may quote what was to be stored; its codes do not."""
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
