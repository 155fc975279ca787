"""The store in a stream of NATS JetStream, for operators who have a cluster (docs/mailbox.md, "On NATS JetStream").

Any number of processes may use one stream: each commit is taken only if nothing was written since its writer looked
(:mod:`peers.mailbox.jetstream_writer`). Leases are kept in the memory of each: what one has handed out another may
hand out as well, as after a restart; a client knows it by its packet.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Self, TypeVar

from peers.mailbox import jetstream_ops as ops
from peers.mailbox.jetstream_commit import Commit
from peers.mailbox.jetstream_eraser import ERASING_MAX, Eraser
from peers.mailbox.jetstream_link import Link
from peers.mailbox.jetstream_rows import Entry, Names
from peers.mailbox.jetstream_settings import JetStreamSettings
from peers.mailbox.jetstream_stream import prepare
from peers.mailbox.jetstream_writer import Writer
from peers.mailbox.rules import HOUR, Limits, Refused
from peers.mailbox.store import Handed, Held, HeldItem, NewItem, StoreError, StoreFull, Totals
from peers.mailbox.unmarked import Unmarked
from wire.mailbox_codes import ItemKind

T = TypeVar("T")

_ACK_CHUNK: Final = 128
"""Numbers of one ACK that are deleted in one commit."""
_DUE: Final = 16
"""Records that a batch of erasures looks at."""


class JetStreamStore:
    """A :class:`peers.mailbox.store.Store`. Made by :meth:`open`; all methods are for one event loop."""

    def __init__(self, link: Link, names: Names, limits: Limits) -> None:
        self._link = link
        self._names = names
        self._limits = limits
        self._unmarked = Unmarked()
        self._eraser = Eraser(link)
        self._writer = Writer(link, names, limits, self._eraser.wake)
        self._eraser.start(self._writer)

    @classmethod
    async def open(cls, settings: JetStreamSettings, limits: Limits, secret: bytes) -> Self:
        """Connect, make the stream if it is missing, and check it.

        Args:
            secret: 32 bytes of the mailbox's own (:func:`peers.mailbox.jetstream_settings.stream_secret`).

        Raises:
            StoreError: NATS cannot be used, or not for this; the text says what to do.
        """
        link = await Link.open(settings)
        try:
            await prepare(link, limits)
            store = cls(link, Names(settings.prefix, secret), limits)
        except BaseException:
            await link.close()
            raise
        try:
            # So that a wrong key file is told at once, and not to the first client.
            await store.totals()
        except BaseException:
            await store.close()
            raise
        return store

    async def deposit(self, item: NewItem, now: int) -> int:
        # It may make what is set aside give way.
        await self._eraser.below(ERASING_MAX)
        digest = self._names.digest(item.recipient)
        try:
            result = await self._run(partial(ops.deposit, digest=digest, item=item, now=now), digest)
        except StoreFull:
            # What cannot be written down now is, when there is room.
            self._unmarked.add(item.recipient, now)
            raise
        if isinstance(result, Refused):
            raise result
        return result

    async def held(self, recipient: bytes, drop_digest: bytes, content: bytes) -> int | None:
        digest = self._names.digest(recipient)
        return await self._run(partial(ops.held, digest=digest, drop_digest=drop_digest, content=content), digest)

    async def lease(
        self, recipient: bytes, kinds: frozenset[ItemKind], limit: int, room: int, head: int, now: int, tick: float
    ) -> Handed:
        digest = self._names.digest(recipient)
        call = partial(ops.lease, digest=digest, kinds=kinds, limit=limit, room=room, head=head, now=now, tick=tick)
        chosen = await self._run(call, digest)
        try:
            contents = await asyncio.gather(*(self._writer.content(digest, entry) for entry in chosen.entries))
        except BaseException:
            # Nobody has them, so nobody is to wait for them.
            for entry in chosen.entries:
                self._run(
                    partial(ops.release, digest=digest, number=entry.number, end=tick + self._limits.lease), digest
                ).add_done_callback(_settled)
            raise
        await self._forget_missing(digest, chosen.entries, contents)
        items = tuple(
            HeldItem(entry.number, entry.kind, entry.expires, content)
            for entry, content in zip(chosen.entries, contents, strict=True)
            if content is not None
        )
        return Handed(items, chosen.left, chosen.marker)

    async def _forget_missing(self, digest: str, entries: tuple[Entry, ...], contents: list[bytes | None]) -> None:
        """Delete what NATS itself has deleted, if it was not somebody's ACK meanwhile."""
        missing = frozenset(entry.seq for entry, found in zip(entries, contents, strict=True) if found is None)
        if missing:
            await self._run(partial(ops.forget, digest=digest, seqs=missing), digest)

    async def acknowledge(self, recipient: bytes, numbers: tuple[int, ...], refusals: int) -> int:
        digest = self._names.digest(recipient)
        done = 0
        for at in range(0, max(1, len(numbers)), _ACK_CHUNK):
            await self._eraser.below(ERASING_MAX)
            chunk = numbers[at : at + _ACK_CHUNK]
            call = partial(ops.acknowledge, digest=digest, numbers=chunk, refusals=0 if at else refusals)
            done += await self._run(call, digest)
        return done

    async def release(self, recipient: bytes, number: int, end: float) -> None:
        digest = self._names.digest(recipient)
        await self._run(partial(ops.release, digest=digest, number=number, end=end), digest)

    async def set_aside(self, recipient: bytes, number: int, until: int) -> bool:
        digest = self._names.digest(recipient)
        return await self._run(partial(ops.set_aside, digest=digest, number=number, until=until), digest)

    async def restore(self, recipient: bytes, now: int) -> int:
        digest = self._names.digest(recipient)
        return await self._run(partial(ops.restore, digest=digest, now=now), digest)

    async def drop(self, recipient: bytes, drop_digest: bytes) -> bool:
        await self._eraser.below(ERASING_MAX)
        digest = self._names.digest(recipient)
        return await self._run(partial(ops.drop, digest=digest, drop_digest=drop_digest), digest)

    async def counts(self, recipient: bytes, tick: float) -> Held:
        digest = self._names.digest(recipient)
        return await self._run(partial(ops.counts, digest=digest, tick=tick), digest)

    async def totals(self) -> Totals:
        return await self._run(ops.totals)

    async def expire(self, now: int) -> int:
        await self._writer.measure()
        await self._unmarked.write(self._mark)
        await self._eraser.below(ERASING_MAX)
        while True:
            low = self._writer.low
            dues, looked = await self._dues(low, now // HOUR)
            call = partial(ops.expire, now=now, dues=dues, looked=(low, looked))
            erased = await self._run(call, *dict.fromkeys(due.digest for due in dues))
            if erased or not dues:
                return erased

    async def _mark(self, recipient: bytes, when: int) -> None:
        digest = self._names.digest(recipient)
        await self._run(partial(_mark, digest=digest, now=when), digest)

    async def _dues(self, low: int, last: int) -> tuple[list[ops.Due], int]:
        """Return some records that are to be looked at by the end of an hour, and the first hour of them."""
        if not low:
            return [], 0
        for hour in range(low, last + 1):
            found: list[ops.Due] = []
            seq = 1
            while len(found) < _DUE:
                stored = await self._link.next_of(self._names.due(hour), seq)
                if stored is None:
                    break
                seq = stored.seq + 1
                # An empty one says that it stands there no more.
                if stored.body:
                    found.append(ops.Due(hour, stored.subject.rpartition(".")[2]))
            if found:
                return found, hour
        return [], max(low, last + 1)

    async def tidy(self, tick: float) -> None:
        self._writer.leases.sweep(tick)
        await self._eraser.below(0)

    async def saved_time(self) -> int | None:
        return await self._run(ops.saved_time)

    async def save_time(self, now: int) -> None:
        await self._run(partial(ops.save_time, now=now))

    async def close(self) -> None:
        await self._writer.close()
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(self._link.settings.timeout):
                await self._eraser.below(0)
        await self._eraser.close()
        await self._link.close()

    def _run(self, call: Callable[[Commit], Awaitable[T]], *digests: str) -> "asyncio.Future[T]":
        return self._writer.run(call, *digests)


async def _mark(commit: Commit, digest: str, now: int) -> None:
    ops.mark(commit, digest, now)


def _settled(done: "asyncio.Future[None]") -> None:
    # A lease that could not be ended early ends later.
    if not done.cancelled():
        done.exception()
