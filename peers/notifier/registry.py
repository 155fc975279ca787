"""The registry: who can be pushed where. One SQLite file, which alone tells nothing.

An id is stored as a keyed digest (BLAKE3), a token sealed (XChaCha20-Poly1305), both under keys that come from the
registry key in the key file. Whoever has the database and not that key sees how many registrations there are, of which
kinds, which of them belong together, and on which days they were last used: neither an id nor a token, and no id that
is guessed can be tried out. Days and no times, because nothing here needs more.

An id may have several tokens, one for each device; of too many the one goes that was not refreshed for longest.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from sqlite3 import Connection
from types import TracebackType
from typing import Final, NamedTuple, Self

from keys.errors import OpenError
from keys.identity import ID_SIZE
from keys.primitives import (
    KEY_SIZE,
    NONCE_SIZE,
    aead_open,
    aead_seal,
    constant_time_equal,
    derive_key,
    keyed_digest,
    random_bytes,
)
from peers.database import Database, Schema
from peers.notifier.errors import NotifierError

DEVICES: Final = 10
"""Tokens of one id: more devices than a person carries, and few enough that one wake stays a handful of pushes."""
REGISTRATIONS: Final = 250_000
"""Tokens in all, some 250 MB: ids cost nothing, so without a bound strangers could fill the disk."""
PRUNE_DAYS: Final = 180
"""Days after which a token that was not registered again goes: a client registers in every session."""
FAILURES: Final = 20
"""Pushes in a row that failed until their time was up."""
FAILING_DAYS: Final = 7
"""Days without success that such failures must span: an outage of a push service is not the token's fault."""

_DIGEST: Final = 16
_PAD: Final = 256
_APPLICATION_ID: Final = 0x624E6F74  # "bNot"
_VERSION_1: Final = """
CREATE TABLE tokens (
    row INTEGER PRIMARY KEY,
    id_hash BLOB NOT NULL CHECK (length(id_hash) = 16),
    kind INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 255),
    token_hash BLOB NOT NULL CHECK (length(token_hash) = 16),
    sealed_token BLOB NOT NULL,
    added INTEGER NOT NULL,               -- days since 1970, as all times here
    refreshed INTEGER NOT NULL,
    last_ok INTEGER,
    failures INTEGER NOT NULL DEFAULT 0,
    UNIQUE (id_hash, token_hash)
) STRICT;
CREATE INDEX tokens_by_token ON tokens (token_hash);

-- How many there are, kept by the triggers: counting a million rows at each registration would take too long.
CREATE TABLE totals (kind INTEGER PRIMARY KEY, count INTEGER NOT NULL) STRICT;
CREATE TRIGGER token_added AFTER INSERT ON tokens BEGIN
    INSERT INTO totals VALUES (NEW.kind, 1) ON CONFLICT (kind) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER token_removed AFTER DELETE ON tokens BEGIN
    UPDATE totals SET count = count - 1 WHERE kind = OLD.kind;
END;

-- What the key is checked by, and which files were imported.
CREATE TABLE marks (mark BLOB PRIMARY KEY) STRICT;
"""
SCHEMA: Final = Schema(_APPLICATION_ID, (_VERSION_1,))


class Added(Enum):
    """What became of a registration; the value is the label of the metric."""

    ADDED = "added"
    REFRESHED = "refreshed"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Registered:
    """A token as it is registered. ``last_ok``: the day of the last push that was taken, since 1970."""

    kind: int
    token_hash: bytes = field(repr=False)
    token: bytes = field(repr=False)
    last_ok: int | None = None
    failures: int = 0


class Counts(NamedTuple):
    """Figures of the registry: tokens by kind, and how many ids have any."""

    tokens: dict[int, int]
    ids: int


class Removed(NamedTuple):
    """What a removal came to: how many tokens of the id went, and the digests of those that no id has any more."""

    tokens: int
    orphaned: list[bytes]


class _Sealed(NamedTuple):
    id_hash: bytes
    kind: int
    token_hash: bytes
    sealed: bytes


class _Keys:
    """What is derived from the registry key, and what is done with it."""

    __slots__ = ("_id", "_seal", "_token", "mark")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise NotifierError(f"the registry key has {KEY_SIZE} bytes, not {len(key)}")
        self._id = derive_key("blindrelay notifier registry 2025 id digest", key)
        self._token = derive_key("blindrelay notifier registry 2025 token digest", key)
        self._seal = derive_key("blindrelay notifier registry 2025 token seal", key)
        self.mark = derive_key("blindrelay notifier registry 2025 key check", key)[:_DIGEST]

    def id_hash(self, client_id: bytes) -> bytes:
        if len(client_id) != ID_SIZE:
            raise ValueError(f"a client id has {ID_SIZE} bytes")
        return keyed_digest(self._id, client_id, _DIGEST)

    def token_hash(self, kind: int, token: bytes) -> bytes:
        return keyed_digest(self._token, bytes((kind,)) + token, _DIGEST)

    def seal(self, client_id: bytes, kind: int, token: bytes) -> _Sealed:
        """Seal a token for its row. Padded, because the length of an endpoint says whose push service it is."""
        id_hash = self.id_hash(client_id)
        # The row it belongs to is inside: who can write the database must not move tokens from one id to another.
        plain = id_hash + bytes((kind,)) + len(token).to_bytes(2, "little") + token
        plain += bytes(-len(plain) % _PAD)
        nonce = random_bytes(NONCE_SIZE)
        return _Sealed(id_hash, kind, self.token_hash(kind, token), nonce + aead_seal(self._seal, nonce, plain))

    def open(self, id_hash: bytes, kind: int, sealed: bytes) -> bytes:
        """Return the token of a row.

        Raises:
            OpenError: it is not what :meth:`seal` made for this row.
        """
        plain = aead_open(self._seal, sealed[:NONCE_SIZE], sealed[NONCE_SIZE:])
        head = id_hash + bytes((kind,))
        if not constant_time_equal(plain[: len(head)], head):
            raise OpenError
        size = int.from_bytes(plain[len(head) : len(head) + 2], "little")
        return plain[len(head) + 2 : len(head) + 2 + size]


class Registry:
    """The registry, open. Made by :meth:`open`; several processes may have it open.

    Raises:
        DatabaseError: by all methods, where the file cannot be read or written.
    """

    def __init__(self, database: Database, keys: _Keys, devices: int, most: int, clock: Callable[[], float]) -> None:
        self._database = database
        self._keys = keys
        self._devices = devices
        self._most = most
        self._clock = clock
        self.unreadable = 0
        """Rows that did not open: damaged, or changed by somebody without the key. They are passed over."""

    @classmethod
    async def open(
        cls,
        path: Path,
        key: bytes,
        *,
        devices: int = DEVICES,
        most: int = REGISTRATIONS,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open the file, made with mode 0600 where it is missing; blocks for as long as that takes.

        Args:
            path: the file.
            key: the registry key, 32 bytes.
            devices: tokens that an id may have.
            most: tokens in all.
            clock: seconds since 1970.

        Raises:
            DatabaseError: it cannot be opened.
            NotifierError: it was written under another key.
        """
        keys = _Keys(key)
        registry = cls(Database.open(path, SCHEMA), keys, devices, most, clock)
        try:
            ours = await registry._database.write(_check_key, keys.mark)
        except BaseException:
            await registry.close()
            raise
        if not ours:
            await registry.close()
            raise NotifierError(
                f"{path} was written under another registry key: put the key file back that belongs to it, or move it "
                "away, and clients register again as they come"
            )
        return registry

    async def close(self) -> None:
        """Finish the writes that wait, and close the file."""
        await self._database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def today(self) -> int:
        """Days since 1970."""
        return int(self._clock() // 86400)

    # --- Registrations -----------------------------------------------------------------------------------------------

    def add(self, client_id: bytes, kind: int, token: bytes) -> Awaitable[Added]:
        """Put a registration in line; the result is there once it is committed, and so outlives the process.

        The same token again is refreshed only. `FULL` means that it was not kept.
        """
        row = self._keys.seal(client_id, kind, token)
        return self._database.submit(_add, row, self.today, self._devices, self._most)

    def token_hash(self, kind: int, token: bytes) -> bytes:
        """Return the digest of a token, as in `Registered`."""
        return self._keys.token_hash(kind, token)

    def remove(self, client_id: bytes, kind: int | None = None) -> Awaitable[Removed]:
        """Put a removal in line, of all tokens of an id or of those of one kind."""
        return self._database.submit(_remove, self._keys.id_hash(client_id), kind)

    async def find(self, client_ids: Iterable[bytes]) -> dict[bytes, list[Registered]]:
        """Return the tokens of each id that has any."""
        return await self._database.read(self._find, list(client_ids))

    def _find(self, connection: Connection, client_ids: Sequence[bytes]) -> dict[bytes, list[Registered]]:
        found: dict[bytes, list[Registered]] = {}
        for client_id in client_ids:
            id_hash = self._keys.id_hash(client_id)
            rows = connection.execute(
                "SELECT kind, token_hash, sealed_token, last_ok, failures FROM tokens WHERE id_hash = ? ORDER BY row",
                (id_hash,),
            )
            for kind, token_hash, sealed, last_ok, failures in rows:
                try:
                    token = self._keys.open(id_hash, kind, sealed)
                except OpenError:
                    self.unreadable += 1
                    continue
                found.setdefault(client_id, []).append(Registered(kind, token_hash, token, last_ok, failures))
        return found

    # --- What pushes say of tokens -----------------------------------------------------------------------------------

    def worked(self, token_hash: bytes) -> Awaitable[None]:
        """Put in line that a push to a token was taken."""
        return self._database.submit(_worked, token_hash, self.today)

    def failed(self, token_hash: bytes) -> Awaitable[None]:
        """Put in line that a push to a token failed until its time was up."""
        return self._database.submit(_failed, token_hash)

    def forget_token(self, token_hash: bytes) -> Awaitable[int]:
        """Put in line that a token is forgotten, whoever registered it; the result is how many rows that were."""
        return self._database.submit(_forget_token, token_hash)

    # --- Housekeeping ------------------------------------------------------------------------------------------------

    async def totals(self) -> dict[int, int]:
        """Return how many tokens there are, by kind; kinds without any are left out."""
        return await self._database.read(_totals)

    async def count(self) -> Counts:
        """Return all figures; takes longer the more there are."""
        return await self._database.read(_count)

    async def prune(self, days: int = PRUNE_DAYS, failures: int = FAILURES) -> int:
        """Forget tokens that were not registered again for so many days, and those that fail; return how many.

        Those that fail: `failures` pushes in a row, and no success or registration for a week.
        """
        return await self._database.write(_prune, self.today, days, failures)

    async def import_once(self, name: bytes, entries: Iterable[tuple[bytes, int, bytes]]) -> int | None:
        """Add all entries (id, kind, token) or none of them, once for each `name`.

        Returns:
            How many were added or there already; None if that name was imported before.
        """
        mark = self._keys.token_hash(0, name)
        rows = [self._keys.seal(*entry) for entry in entries]
        return await self._database.write(_import, mark, rows, self.today, self._devices, self._most)


def _check_key(connection: Connection, mark: bytes) -> bool:
    if connection.execute("SELECT 1 FROM marks LIMIT 1").fetchone() is None:
        connection.execute("INSERT INTO marks VALUES (?)", (mark,))
    return connection.execute("SELECT 1 FROM marks WHERE mark = ?", (mark,)).fetchone() is not None


def _add(connection: Connection, row: _Sealed, today: int, devices: int, most: int) -> Added:
    known = connection.execute(
        "SELECT row, refreshed, failures FROM tokens WHERE id_hash = ? AND token_hash = ?",
        (row.id_hash, row.token_hash),
    ).fetchone()
    if known is not None:
        if known[1:] != (today, 0):  # most come several times a day: those write nothing
            connection.execute("UPDATE tokens SET refreshed = ?, failures = 0 WHERE row = ?", (today, known[0]))
        return Added.REFRESHED
    (held,) = connection.execute("SELECT count(*) FROM tokens WHERE id_hash = ?", (row.id_hash,)).fetchone()
    # An id that has as many as it may have replaces one of its own.
    if held < devices and sum(_totals(connection).values()) >= most:
        return Added.FULL
    connection.execute(
        "INSERT INTO tokens (id_hash, kind, token_hash, sealed_token, added, refreshed) VALUES (?, ?, ?, ?, ?, ?)",
        (*row, today, today),
    )
    if held >= devices:
        _delete(
            connection,
            "row IN (SELECT row FROM tokens WHERE id_hash = ? ORDER BY refreshed DESC, row DESC LIMIT -1 OFFSET ?)",
            (row.id_hash, devices),
        )
    return Added.ADDED


def _remove(connection: Connection, id_hash: bytes, kind: int | None) -> Removed:
    which, values = ("id_hash = ?", (id_hash,)) if kind is None else ("id_hash = ? AND kind = ?", (id_hash, kind))
    removed = connection.execute(f"SELECT token_hash FROM tokens WHERE {which}", values).fetchall()  # noqa: S608
    count = _delete(connection, which, values)
    orphaned = [
        token_hash
        for (token_hash,) in removed
        if connection.execute("SELECT 1 FROM tokens WHERE token_hash = ?", (token_hash,)).fetchone() is None
    ]
    return Removed(count, orphaned)


def _delete(connection: Connection, which: str, values: Sequence[object]) -> int:
    # What is forgotten is to be gone: without this its bytes would stay in the file until they are written over.
    connection.execute("PRAGMA secure_delete = ON")
    return connection.execute(f"DELETE FROM tokens WHERE {which}", values).rowcount  # noqa: S608 - ours alone


def _worked(connection: Connection, token_hash: bytes, today: int) -> None:
    connection.execute("UPDATE tokens SET last_ok = ?, failures = 0 WHERE token_hash = ?", (today, token_hash))


def _failed(connection: Connection, token_hash: bytes) -> None:
    connection.execute("UPDATE tokens SET failures = failures + 1 WHERE token_hash = ?", (token_hash,))


def _forget_token(connection: Connection, token_hash: bytes) -> int:
    return _delete(connection, "token_hash = ?", (token_hash,))


def _totals(connection: Connection) -> dict[int, int]:
    return {kind: count for kind, count in connection.execute("SELECT kind, count FROM totals") if count}


def _count(connection: Connection) -> Counts:
    (ids,) = connection.execute("SELECT count(DISTINCT id_hash) FROM tokens").fetchone()
    return Counts(_totals(connection), ids)


def _prune(connection: Connection, today: int, days: int, failures: int) -> int:
    return _delete(
        connection,
        "refreshed < ? OR (failures >= ? AND max(refreshed, coalesce(last_ok, 0)) <= ?)",
        (today - days, failures, today - FAILING_DAYS),
    )


def _import(
    connection: Connection, mark: bytes, rows: Sequence[_Sealed], today: int, devices: int, most: int
) -> int | None:
    if connection.execute("SELECT 1 FROM marks WHERE mark = ?", (mark,)).fetchone() is not None:
        return None
    connection.execute("INSERT INTO marks VALUES (?)", (mark,))
    return sum(_add(connection, row, today, devices, most) is not Added.FULL for row in rows)
