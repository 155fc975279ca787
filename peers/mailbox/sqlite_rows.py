"""What the SQLite store does to its rows: plain functions, each run within one transaction of the one writer."""

import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Final, NamedTuple

from keys.primitives import random_bytes
from peers.mailbox.leases import Leases
from peers.mailbox.rules import DAY, HOUR, Limits, Refused, Usage
from peers.mailbox.store import Handed, Held, HeldItem, Marker, NewItem, Totals
from wire.mailbox_codes import ItemKind, Reason

NUMBER_MAX: Final = 2**63 - 1
"""The largest number that SQLite can hold; there are no items with larger ones."""
_BATCH: Final = 0.004
"""Seconds after which a batch of erasures begins nothing new."""
BATCH_ROWS: Final = 64
"""Most rows that a batch erases: each may lie in pages of its own, all of which the commit has to write."""
CHUNK: Final = 8
"""Rows that a batch erases in one go, and the fewest that it does."""


class _Recipient(NamedTuple):
    no: int
    next: int
    items: int
    size: int
    aside: int
    aside_size: int
    refused: int
    refused_since: int

    @property
    def marker(self) -> Marker:
        return Marker(self.refused, self.refused_since)


def _find(db: sqlite3.Connection, x_pub: bytes) -> _Recipient | None:
    row = db.execute(
        "SELECT no, next, items, size, aside, aside_size, refused, refused_since FROM recipients WHERE x_pub = ?",
        (x_pub,),
    ).fetchone()
    return None if row is None else _Recipient(*row)


def _first_number() -> int:
    # At random, for a row that goes and comes again must not give old numbers to new items: somebody between client and
    # mailbox could repeat an old ACK. Half of the range, so that there is always a next one.
    return int.from_bytes(random_bytes(8), "little") >> 2


def deposit(db: sqlite3.Connection, item: NewItem, now: int, limits: Limits, free: Callable[[], int]) -> int | Refused:
    """Hold an item. A refusal is returned and not raised: what it writes down, the marker, is to be committed."""
    found = _find(db, item.recipient)
    if found is not None:
        known = _same(db, found.no, item.drop_digest, item.content)
        if known is not None:
            expires, same = known
            return expires if same else Refused(Reason.BAD_DEPOSIT)
    size = len(item.content)
    (total_items, total_size, markers) = db.execute("SELECT items, size, markers FROM mailbox").fetchone()
    on_disk = free() >= limits.disk_reserve + size
    # What was acknowledged is kept for comfort only, so it gives way where that helps.
    while (
        on_disk
        and found is not None
        and found.aside
        and not _has_room(found, total_items, total_size, size, limits)
        and _fits_without_aside(found, size, limits)
    ):
        gone = _erase_oldest_aside(db, found.no)
        total_items, total_size = total_items - 1, total_size - gone
        found = _find(db, item.recipient)
    if not on_disk or not _has_room(found, total_items, total_size, size, limits):
        _mark(db, found, item.recipient, now, markers, limits)
        return Refused(Reason.FULL)
    if found is None:
        number = _first_number()
        no = db.execute(
            "INSERT INTO recipients (x_pub, next, items, size) VALUES (?, ?, 1, ?) RETURNING no",
            (item.recipient, number + 1, size),
        ).fetchone()[0]
    else:
        no, number = found.no, found.next
        db.execute("UPDATE recipients SET next = next + 1, items = items + 1, size = size + ? WHERE no = ?", (size, no))
    db.execute(
        "INSERT INTO items (recipient, number, kind, expires, drop_digest, content) VALUES (?, ?, ?, ?, ?, ?)",
        (no, number, item.kind, item.expires, item.drop_digest, item.content),
    )
    db.execute("UPDATE mailbox SET items = items + 1, size = size + ?", (size,))
    return item.expires


def _has_room(found: _Recipient | None, total_items: int, total_size: int, size: int, limits: Limits) -> bool:
    items, used = (0, 0) if found is None else (found.items, found.size)
    return Usage(items, used, total_items, total_size).has_room(size, limits)


def _fits_without_aside(found: _Recipient, size: int, limits: Limits) -> bool:
    return (
        found.items - found.aside < limits.recipient_items
        and found.size - found.aside_size + size <= limits.recipient_bytes
    )


def _same(db: sqlite3.Connection, no: int, drop_digest: bytes, content: bytes) -> tuple[int, bool] | None:
    # The content is looked at only where the digest fits, which is next to never.
    row = db.execute("SELECT id FROM items WHERE recipient = ? AND drop_digest = ?", (no, drop_digest)).fetchone()
    if row is None:
        return None
    row = db.execute("SELECT expires, content = ? FROM items WHERE id = ?", (content, row[0])).fetchone()
    return row[0], bool(row[1])


def _mark(
    db: sqlite3.Connection, found: _Recipient | None, x_pub: bytes, now: int, markers: int, limits: Limits
) -> None:
    since = now // HOUR * HOUR
    if found is not None and found.refused:
        db.execute("UPDATE recipients SET refused = min(refused + 1, 0xFFFFFFFF) WHERE no = ?", (found.no,))
        return
    if markers >= limits.markers:
        return
    if found is not None:
        db.execute("UPDATE recipients SET refused = 1, refused_since = ? WHERE no = ?", (since, found.no))
    else:
        db.execute(
            "INSERT INTO recipients (x_pub, next, refused, refused_since) VALUES (?, ?, 1, ?)",
            (x_pub, _first_number(), since),
        )
    db.execute("UPDATE mailbox SET markers = markers + 1")


def mark(db: sqlite3.Connection, x_pub: bytes, now: int, limits: Limits) -> None:
    """Count a refusal that could not be written down when it happened."""
    (markers,) = db.execute("SELECT markers FROM mailbox").fetchone()
    _mark(db, _find(db, x_pub), x_pub, now, markers, limits)


def held(db: sqlite3.Connection, x_pub: bytes, drop_digest: bytes, content: bytes) -> int | None:
    """Return when the item ends that has this digest and content."""
    found = _find(db, x_pub)
    known = None if found is None else _same(db, found.no, drop_digest, content)
    return known[0] if known is not None and known[1] else None


def lease(
    db: sqlite3.Connection,
    leases: Leases,
    x_pub: bytes,
    kinds: frozenset[ItemKind],
    limit: int,
    room: int,
    head: int,
    now: int,
    tick: float,
    limits: Limits,
) -> Handed:
    """Hand out the oldest items that are not handed out."""
    found = _find(db, x_pub)
    if found is None:
        return Handed((), 0, Marker())
    out = leases.out(found.no, tick)
    limit = min(limit, limits.leased - len(out))
    chosen: list[HeldItem] = []
    if limit > 0:
        # The contents are read one by one, those alone that are handed out.
        rows = db.execute(
            "SELECT id, number, kind, expires, length(content) FROM items"
            " WHERE recipient = ? AND expires > ? AND restorable IS NULL ORDER BY number",
            (found.no, now),
        )
        with closing(rows):
            for id_, number, kind, expires, size in rows:
                if number in out or kind not in kinds:
                    continue
                room -= head + size
                if room < 0 and chosen:
                    break
                (content,) = db.execute("SELECT content FROM items WHERE id = ?", (id_,)).fetchone()
                chosen.append(HeldItem(number, ItemKind(kind), expires, content))
                if len(chosen) == limit:
                    break
    left = found.items - found.aside - len(out) - len(chosen)
    for item in chosen:
        leases.take(found.no, item.number, tick + limits.lease)
    return Handed(tuple(chosen), max(0, left), found.marker)


def acknowledge(db: sqlite3.Connection, leases: Leases, x_pub: bytes, numbers: Iterable[int], refusals: int) -> int:
    """Delete items; return how many there were."""
    found = _find(db, x_pub)
    if found is None:
        return 0
    gone = []
    for number in numbers:
        if number > NUMBER_MAX:
            continue
        gone += db.execute(
            "DELETE FROM items WHERE recipient = ? AND number = ?"
            " RETURNING recipient, length(content), restorable IS NOT NULL",
            (found.no, number),
        ).fetchall()
        leases.end(found.no, number)
    if refusals and found.refused:
        left = max(0, found.refused - refusals)
        db.execute(
            "UPDATE recipients SET refused = ?, refused_since = ? WHERE no = ?",
            (left, found.refused_since if left else 0, found.no),
        )
        if not left:
            db.execute("UPDATE mailbox SET markers = markers - 1")
            _forget_empty(db, found.no)
    _count_off(db, gone)
    return len(gone)


def set_aside(db: sqlite3.Connection, leases: Leases, x_pub: bytes, number: int, until: int) -> bool:
    """Acknowledge an item, but keep it restorable until then."""
    found = _find(db, x_pub)
    row = None
    if found is not None:
        row = db.execute(
            "UPDATE items SET restorable = expires, expires = min(expires, ?)"
            " WHERE recipient = ? AND number = ? AND restorable IS NULL RETURNING length(content)",
            (until, found.no, number),
        ).fetchone()
    if row is None or found is None:
        return False
    db.execute("UPDATE recipients SET aside = aside + 1, aside_size = aside_size + ? WHERE no = ?", (row[0], found.no))
    leases.end(found.no, number)
    return True


def restore(db: sqlite3.Connection, x_pub: bytes, now: int) -> int:
    """Hand out again what was set aside."""
    found = _find(db, x_pub)
    if found is None:
        return 0
    sizes = db.execute(
        "UPDATE items SET expires = restorable, restorable = NULL"
        " WHERE recipient = ? AND restorable IS NOT NULL AND expires > ? RETURNING length(content)",
        (found.no, now),
    ).fetchall()
    db.execute(
        "UPDATE recipients SET aside = aside - ?, aside_size = aside_size - ? WHERE no = ?",
        (len(sizes), sum(size for (size,) in sizes), found.no),
    )
    return len(sizes)


def drop(db: sqlite3.Connection, leases: Leases, x_pub: bytes, drop_digest: bytes) -> bool:
    """Delete the item that was deposited with this digest."""
    found = _find(db, x_pub)
    if found is None:
        return False
    gone = db.execute(
        "DELETE FROM items WHERE recipient = ? AND drop_digest = ?"
        " RETURNING recipient, length(content), restorable IS NOT NULL, number",
        (found.no, drop_digest),
    ).fetchall()
    for row in gone:
        leases.end(found.no, row[3])
    _count_off(db, [tuple(row)[:3] for row in gone])
    return bool(gone)


def counts(db: sqlite3.Connection, leases: Leases, x_pub: bytes, tick: float) -> Held:
    """Return how much is held for a recipient."""
    found = _find(db, x_pub)
    if found is None:
        return Held()
    items = found.items - found.aside
    leased = min(items, len(leases.out(found.no, tick)))
    return Held(items, found.size - found.aside_size, leased, found.aside, found.marker)


def totals(db: sqlite3.Connection) -> Totals:
    """Return how much is held in all."""
    return Totals(*db.execute("SELECT items, size FROM mailbox").fetchone())


def release(db: sqlite3.Connection, leases: Leases, x_pub: bytes, number: int, end: float) -> None:
    """End a lease that would end then."""
    found = _find(db, x_pub)
    if found is not None:
        leases.end(found.no, number, end)


def expire(
    db: sqlite3.Connection,
    leases: Leases,
    now: int,
    limits: Limits,
    most: int = BATCH_ROWS,
    seconds: Callable[[], float] = time.perf_counter,
) -> int:
    """Erase what has ended, `most` of it or until some milliseconds have passed; return how many."""
    end = seconds() + _BATCH
    done = 0
    while done == 0 or (done < most and seconds() < end):
        gone = db.execute(
            "DELETE FROM items WHERE id IN (SELECT id FROM items WHERE expires <= ? ORDER BY expires LIMIT ?)"
            " RETURNING recipient, length(content), restorable IS NOT NULL, number",
            (now, CHUNK),
        ).fetchall()
        for row in gone:
            leases.end(row[0], row[3])
        _count_off(db, [tuple(row)[:3] for row in gone])
        done += len(gone)
        if len(gone) < CHUNK:
            return done + _expire_markers(db, now - limits.marker_days * DAY)
    return done


def _expire_markers(db: sqlite3.Connection, before: int) -> int:
    gone = db.execute(
        "UPDATE recipients SET refused = 0, refused_since = 0"
        " WHERE no IN (SELECT no FROM recipients WHERE refused > 0 AND refused_since <= ? LIMIT ?) RETURNING no",
        (before, CHUNK),
    ).fetchall()
    if gone:
        db.execute("UPDATE mailbox SET markers = markers - ?", (len(gone),))
        for (no,) in gone:
            _forget_empty(db, no)
    return len(gone)


def _erase_oldest_aside(db: sqlite3.Connection, no: int) -> int:
    gone = db.execute(
        "DELETE FROM items WHERE id ="
        " (SELECT id FROM items WHERE recipient = ? AND restorable IS NOT NULL ORDER BY number LIMIT 1)"
        " RETURNING recipient, length(content), 1",
        (no,),
    ).fetchall()
    _count_off(db, gone, forget=False)
    return int(gone[0][1])


def _count_off(db: sqlite3.Connection, gone: list[tuple[int, int, int]], *, forget: bool = True) -> None:
    """Take deleted items, ``(recipient, size, set aside)``, off the sums; forget recipients who have nothing left."""
    sums: dict[int, list[int]] = {}
    for no, size, aside in gone:
        one = sums.setdefault(no, [0, 0, 0, 0])
        one[0] += 1
        one[1] += size
        one[2] += aside
        one[3] += aside * size
    for no, (items, size, aside, aside_size) in sums.items():
        db.execute(
            "UPDATE recipients SET items = items - ?, size = size - ?, aside = aside - ?, aside_size = aside_size - ?"
            " WHERE no = ?",
            (items, size, aside, aside_size, no),
        )
        if forget:
            _forget_empty(db, no)
    if gone:
        db.execute(
            "UPDATE mailbox SET items = items - ?, size = size - ?", (len(gone), sum(size for _, size, _ in gone))
        )


def _forget_empty(db: sqlite3.Connection, no: int) -> None:
    # Before the sums of what was deleted are taken off, items is above 0: then the row stays until they are.
    db.execute("DELETE FROM recipients WHERE no = ? AND items = 0 AND refused = 0", (no,))


def saved_time(db: sqlite3.Connection) -> int | None:
    """Return the time that was saved last."""
    found: int | None = db.execute("SELECT clock FROM mailbox").fetchone()[0]
    return found


def save_time(db: sqlite3.Connection, now: int) -> None:
    """Save the mailbox's time; never an earlier one."""
    db.execute("UPDATE mailbox SET clock = max(coalesce(clock, 0), ?)", (now,))


def prepare(db: sqlite3.Connection, cache: int, log: int) -> None:
    """Set up the writer: deleted content is overwritten with zeros, `cache` bytes of pages stay in memory, and the log
    may grow to `log` bytes before it is the writer that has to empty it."""
    db.execute("PRAGMA secure_delete = ON")
    db.execute(f"PRAGMA cache_size = -{cache // 1024:d}")
    db.execute(f"PRAGMA wal_autocheckpoint = {log // 4096:d}")
    if db.execute("PRAGMA secure_delete").fetchone()[0] != 1:
        raise sqlite3.NotSupportedError("this SQLite cannot overwrite what it deletes")
