"""What the JetStream store does to its records: each function within one commit, one after another."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from keys.primitives import random_bytes
from peers.mailbox.jetstream_commit import Commit
from peers.mailbox.jetstream_rows import Entry, Post, hour_of
from peers.mailbox.rules import DAY, HOUR, Limits, Refused, Usage
from peers.mailbox.store import Held, Marker, NewItem, Totals
from wire.mailbox_codes import ItemKind, Reason

_BATCH: Final = 64
"""Most items that a batch of erasures takes."""
_REFUSED_MAX: Final = 0xFFFF_FFFF


class Chosen(NamedTuple):
    """What a lease hands out, the contents not read yet."""

    entries: tuple[Entry, ...]
    left: int
    marker: Marker


class Due(NamedTuple):
    """That a record is to be looked at, and under which hour that stands."""

    hour: int
    digest: str


async def deposit(commit: Commit, digest: str, item: NewItem, now: int) -> int | Refused:
    """Hold an item. A refusal is returned and not raised: what it writes down, the marker, is to be committed."""
    post, limits = commit.post(digest), commit.limits
    known = post.digests.get(item.drop_digest)
    if known is not None:
        content = await commit.content(post, known)
        if content is not None:
            return known.expires if content == item.content else Refused(Reason.BAD_DEPOSIT)
        commit.remove(post, known)
    size = len(item.content)
    on_disk = commit.room is None or commit.room >= limits.disk_reserve + size
    # What was acknowledged is kept for comfort only, so it gives way where that helps.
    while on_disk and post.aside and not _has_room(commit, post, size) and _fits_without_aside(post, size, limits):
        commit.remove(post, next(entry for entry in post.entries.values() if entry.restorable is not None))
    if not on_disk or not _has_room(commit, post, size):
        mark(commit, digest, now)
        return Refused(Reason.FULL)
    if not post.next:
        # At random, for a record that goes and comes again must not give old numbers to new items: somebody between
        # client and mailbox could repeat an old ACK. A quarter of the range, so that there is always a next one.
        post.next = (int.from_bytes(random_bytes(8), "little") >> 2) + 1
    entry = Entry(post.next, 0, item.expires, None, size, item.kind, item.drop_digest)
    post.next += 1
    commit.add(post, entry, item.content, now)
    commit.due(post, hour_of(item.expires))
    return item.expires


def _has_room(commit: Commit, post: Post, size: int) -> bool:
    usage = Usage(len(post.entries), post.size, commit.meta.items, commit.meta.size)
    return usage.has_room(size, commit.limits)


def _fits_without_aside(post: Post, size: int, limits: Limits) -> bool:
    return (
        len(post.entries) - post.aside < limits.recipient_items
        and post.size - post.aside_size + size <= limits.recipient_bytes
    )


def mark(commit: Commit, digest: str, now: int) -> None:
    """Count a refusal."""
    post = commit.post(digest)
    if not post.refused:
        if commit.meta.markers >= commit.limits.markers:
            return
        commit.meta.markers += 1
        post.since = now // HOUR * HOUR
        commit.due(post, hour_of(post.since + commit.limits.marker_days * DAY))
    post.refused = min(post.refused + 1, _REFUSED_MAX)
    commit.touch(post)


def _unmark(commit: Commit, post: Post) -> None:
    post.refused = post.since = 0
    commit.meta.markers -= 1
    commit.touch(post)


async def held(commit: Commit, digest: str, drop_digest: bytes, content: bytes) -> int | None:
    """Return when the item ends that has this digest and content."""
    post = commit.post(digest)
    entry = post.digests.get(drop_digest)
    return None if entry is None or await commit.content(post, entry) != content else entry.expires


async def lease(
    commit: Commit,
    digest: str,
    kinds: frozenset[ItemKind],
    limit: int,
    room: int,
    head: int,
    now: int,
    tick: float,
) -> Chosen:
    """Choose the oldest items that are not handed out, and hand them out."""
    post = commit.post(digest)
    out = commit.leased(post, tick)
    limit = min(limit, commit.limits.leased - len(out))
    chosen: list[Entry] = []
    for entry in post.entries.values() if limit > 0 else ():
        if entry.number in out or entry.kind not in kinds or entry.restorable is not None or entry.expires <= now:
            continue
        room -= head + entry.size
        if room < 0 and chosen:
            break
        chosen.append(entry)
        if len(chosen) == limit:
            break
    left = len(post.entries) - post.aside - len(out) - len(chosen)
    for entry in chosen:
        commit.take(post, entry.number, tick + commit.limits.lease)
    return Chosen(tuple(chosen), max(0, left), post.marker)


async def acknowledge(commit: Commit, digest: str, numbers: Iterable[int], refusals: int) -> int:
    """Delete items; return how many there were."""
    post = commit.post(digest)
    done = 0
    for number in numbers:
        entry = post.entries.get(number)
        if entry is not None:
            commit.remove(post, entry)
            done += 1
    if refusals and post.refused:
        if refusals < post.refused:
            post.refused -= refusals
            commit.touch(post)
        else:
            _unmark(commit, post)
    return done


async def release(commit: Commit, digest: str, number: int, end: float) -> None:
    """End a lease that would end then."""
    commit.end(commit.post(digest), number, end)


async def set_aside(commit: Commit, digest: str, number: int, until: int) -> bool:
    """Acknowledge an item, but keep it restorable until then."""
    post = commit.post(digest)
    entry = post.entries.get(number)
    if entry is None or entry.restorable is not None:
        return False
    entry.restorable, entry.expires = entry.expires, min(entry.expires, until)
    post.aside += 1
    post.aside_size += entry.size
    commit.touch(post)
    commit.due(post, hour_of(entry.expires))
    commit.end(post, number)
    return True


async def restore(commit: Commit, digest: str, now: int) -> int:
    """Hand out again what was set aside."""
    post = commit.post(digest)
    done = 0
    for entry in post.entries.values():
        if entry.restorable is not None and entry.expires > now:
            entry.expires, entry.restorable = entry.restorable, None
            post.aside -= 1
            post.aside_size -= entry.size
            commit.touch(post)
            done += 1
    return done


async def drop(commit: Commit, digest: str, drop_digest: bytes) -> bool:
    """Delete the item that was deposited with this digest."""
    post = commit.post(digest)
    entry = post.digests.get(drop_digest)
    if entry is not None:
        commit.remove(post, entry)
    return entry is not None


async def forget(commit: Commit, digest: str, seqs: frozenset[int]) -> None:
    """Delete items whose contents are not there any more."""
    post = commit.post(digest)
    for entry in [entry for entry in post.entries.values() if entry.seq in seqs]:
        commit.remove(post, entry)


async def counts(commit: Commit, digest: str, tick: float) -> Held:
    """Return how much is held for a recipient."""
    post = commit.post(digest)
    items = len(post.entries) - post.aside
    leased = min(items, len(commit.leased(post, tick)))
    return Held(items, post.size - post.aside_size, leased, post.aside, post.marker)


async def totals(commit: Commit) -> Totals:
    """Return how much is held in all."""
    return Totals(commit.meta.items, commit.meta.size)


async def expire(commit: Commit, now: int, dues: Sequence[Due], looked: tuple[int, int]) -> int:
    """Erase what has ended of some records; return how much.

    Args:
        looked: from which hour on, and before which, there is nothing else to be looked at.
    """
    done = 0
    for hour, digest in dues:
        post = commit.post(digest)
        if post.due != hour:
            commit.not_due(post, hour)
            continue
        if done >= _BATCH:
            break
        ended = (entry for entry in post.entries.values() if entry.expires <= now)
        gone = list(islice(ended, _BATCH - done))
        for entry in gone:
            commit.remove(post, entry)
        done += len(gone)
        if any(entry.expires <= now for entry in post.entries.values()):
            break
        marked_until = post.since + commit.limits.marker_days * DAY
        if post.refused and marked_until <= now:
            _unmark(commit, post)
            done += 1
        commit.not_due(post)
        ends = [entry.expires for entry in post.entries.values()] + [marked_until] * bool(post.refused)
        if ends:
            commit.due(post, hour_of(min(ends)))
    if commit.meta.low == looked[0] < looked[1]:
        commit.meta.low = looked[1]
        commit.touched_meta = True
    return done


async def saved_time(commit: Commit) -> int | None:
    """Return the time that was saved last."""
    return commit.meta.clock


async def save_time(commit: Commit, now: int) -> None:
    """Save the mailbox's time; never an earlier one."""
    commit.meta.clock = max(commit.meta.clock or 0, now)
    commit.touched_meta = True
