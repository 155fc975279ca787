"""The one task of a process that reads and writes a mailbox's stream: group commit, and a cache of records.

Calls that wait together share one commit (:mod:`peers.mailbox.jetstream_commit`). Each is one atomic batch that NATS
takes only if the last message of the stream is the one that this process saw last: so whatever it knew of the stream
when it decided was true. If another process has written since, all that is known is forgotten, and the calls are made
again. Calls that change nothing are answered after a look at that last message.

In memory there are the records of those who were asked for last: of :data:`CACHE` items as they are worked on (some
10 MB), and :data:`PACKED` bytes as they are written, which is those of a million items.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import SystemRandom
from typing import Any, Final, NamedTuple, TypeVar

from peers.mailbox.jetstream_commit import Commit
from peers.mailbox.jetstream_link import BATCH_MAX, Changed, Link
from peers.mailbox.jetstream_rows import BadRow, Entry, Meta, Names, Post
from peers.mailbox.leases import Leases
from peers.mailbox.rules import Limits
from peers.mailbox.store import StoreError, StoreFull

T = TypeVar("T")

CACHE: Final = 20_000
PACKED: Final = 64 << 20
_RECORD: Final = 4
"""Items that an empty record weighs as much as."""
_PACKED_MORE: Final = 400
"""Bytes that a packed record takes beside its body: the objects and the places in the index."""
_GROUP: Final = 128
"""Most calls in one commit; each adds some messages to a batch, which has a bound."""
_TRIES: Final = 64
"""Commits that fail because another process was faster, one after another: then something else is wrong."""
_PATIENCE: Final = 0.002
"""Seconds to wait at random after such a one, so that two processes do not go on in step."""


class BadRecord(StoreError):
    """The record of one recipient is not what this mailbox wrote; the others are served."""


class _Job(NamedTuple):
    call: Callable[[Commit], Awaitable[Any]]
    digests: tuple[str, ...]
    done: "asyncio.Future[Any]"


class Writer:
    """Runs calls. For one event loop; made within it.

    Args:
        committed: called after each commit and each reading of the stream's sums.
    """

    def __init__(self, link: Link, names: Names, limits: Limits, committed: Callable[[], None]) -> None:
        self.leases = Leases()
        self.erased: set[int] = set()
        self._link = link
        self._names = names
        self._limits = limits
        self._committed = committed
        self._meta: Meta | None = None
        self._last = 0
        self._room: int | None = None
        self._cache: OrderedDict[str, Post] = OrderedDict()
        self._weights: dict[str, int] = {}
        self._weight = 0
        self._packed: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._packed_size = 0
        self._jobs: deque[_Job] = deque()
        self._wanted = asyncio.Event()
        self._random = SystemRandom()
        self._closed = False
        self._task = asyncio.create_task(self._work())

    @property
    def erasing(self) -> set[int]:
        """Numbers of the contents that are still to be overwritten, as far as is known."""
        return set() if self._meta is None else self._meta.erasing - self.erased

    @property
    def waiting(self) -> int:
        """How many these are."""
        return 0 if self._meta is None else len(self._meta.erasing) - len(self.erased)

    def overwritten(self, seq: int) -> None:
        """Say that one is; the next commit writes it down."""
        if self._meta is not None and seq in self._meta.erasing:
            self.erased.add(seq)

    @property
    def low(self) -> int:
        """The hour before which no record is to be looked at, as far as is known; 0: none is at all."""
        return 0 if self._meta is None else self._meta.low

    def run(self, call: Callable[[Commit], Awaitable[T]], *digests: str) -> "asyncio.Future[T]":
        """Run a call about those recipients; done once what it changed is committed.

        Raises:
            StoreError: by the future; then nobody knows whether it was done, unless it is StoreFull.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._closed:
            done.set_exception(StoreError("the mailbox's store is closed"))
            return done
        self._jobs.append(_Job(call, digests, done))
        self._wanted.set()
        return done

    async def measure(self) -> None:
        """Look up how much room is left in the stream, where that is bounded."""
        if self._link.settings.max_bytes:
            info = await self._link.info()
            if info is not None:
                self._room = max(0, self._link.settings.max_bytes - int(info["state"]["bytes"]))

    async def close(self) -> None:
        """Finish what was begun, and take nothing more."""
        self._closed = True
        self._wanted.set()
        await asyncio.wait([self._task])

    # --- The task -------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._closed or self._jobs:
            await self._wanted.wait()
            group = [self._jobs.popleft() for _ in range(min(_GROUP, len(self._jobs)))]
            group = [job for job in group if not job.done.done()]
            if not self._jobs and not self._closed:
                self._wanted.clear()
            if group:
                await self._serve(group)

    async def _serve(self, group: list[_Job]) -> None:
        try:
            results = await self._commit(group)
        except (StoreFull, BadRecord) as error:
            # Whoever can be is served, whatever the others in the group wanted.
            if len(group) > 1:
                for job in group:
                    await self._serve([job])
                return
            _fail(group, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told, and the next are served
            self._forget()
            _fail(group, error)
        else:
            for job, result in zip(group, results, strict=False):
                if not job.done.done():
                    job.done.set_result(result)
            # Those that did not fit come first in the next one.
            rest = group[len(results) :]
            self._jobs.extendleft(reversed(rest))
            if rest:
                self._wanted.set()

    async def _commit(self, group: list[_Job]) -> list[Any]:
        for _ in range(_TRIES):
            commit: Commit | None = None
            try:
                meta = await self._load(group)
                commit = self._begin(meta)
                results: list[Any] = []
                for job in group:
                    results.append(await job.call(commit))
                    if commit.full:
                        break
                await self._finish(commit, meta)
            except Changed:
                if commit is not None:
                    commit.undo()
                self._forget()
                await asyncio.sleep(self._random.random() * _PATIENCE)
            except BaseException:
                if commit is not None:
                    commit.undo()
                self._forget()
                raise
            else:
                self._trim(group)
                return results
        raise StoreError("other mailboxes write to the same stream all the time; run fewer of them")

    def _begin(self, meta: Meta) -> Commit:
        return Commit(
            meta,
            self._cache,
            self.leases,
            self._limits,
            self._room,
            self._read,
            overwrite=self._link.settings.overwrite,
        )

    async def _finish(self, commit: Commit, meta: Meta) -> None:
        if not commit.changed:
            seen = await self._link.last_of(self._names.meta)
            if (0 if seen is None else seen.seq) != meta.seq:
                raise Changed
            return
        meta.erasing -= self.erased
        self.erased.clear()
        puts = commit.puts(self._names, self._last)
        assert len(puts) <= BATCH_MAX  # noqa: S101 - FULL_PUTS and what a call may add see to it
        self._last = await self._link.commit(puts, self._last)
        self._room = commit.room
        self._committed()

    async def _read(self, post: Post, entry: Entry) -> bytes | None:
        return await self.content(post.digest, entry)

    async def content(self, digest: str, entry: Entry) -> bytes | None:
        """Read an item's content; None if it is gone, or not what this mailbox put there."""
        subject = self._names.item(digest, entry.number)
        stored = await self._link.at(entry.seq)
        if stored is None or stored.subject != subject:
            return None
        try:
            return self._names.open(subject, stored.body)
        except BadRow:
            return None

    # --- What is known --------------------------------------------------------------------------------------------

    async def _load(self, group: list[_Job]) -> Meta:
        if self._meta is None:
            await self._load_meta()
        wanted = dict.fromkeys(digest for job in group for digest in job.digests)
        missing = [digest for digest in wanted if digest not in self._cache]
        if missing:
            for post in await _together([self._load_post(digest) for digest in missing]):
                self._cache[post.digest] = post
        for digest in wanted:
            self._cache.move_to_end(digest)
        assert self._meta is not None  # noqa: S101 - loaded above
        return self._meta

    async def _load_meta(self) -> None:
        info = await self._link.info()
        if info is None:
            raise StoreError(f"the stream {self._link.settings.stream} is gone; start the mailbox again to make it")
        last = int(info["state"]["last_seq"])
        stored = await self._link.last_of(self._names.meta)
        if stored is None:
            if last:
                raise StoreError(
                    f"the stream {self._link.settings.stream} was used for something else, or was emptied; name"
                    " another, or delete it and all that is in it"
                )
            meta = Meta()
        else:
            try:
                meta = Meta.decode(stored.seq, self._names.open(self._names.meta, stored.body))
            except BadRow as error:
                raise StoreError(
                    f"the stream {self._link.settings.stream} is of a mailbox with another key file, or of a later"
                    f" version ({error}); use its key file, or another stream"
                ) from error
        # Where somebody else wrote to our subjects, the last message is not ours; it is still the one to be expected.
        self._meta, self._last = meta, max(last, meta.seq)
        self.erased &= meta.erasing
        if self._link.settings.max_bytes:
            self._room = max(0, self._link.settings.max_bytes - int(info["state"]["bytes"]))
        self._committed()

    async def _load_post(self, digest: str) -> Post:
        packed = self._packed.pop(digest, None)
        if packed is not None:
            self._packed_size -= _PACKED_MORE + len(packed[1])
            return Post.decode(digest, *packed)
        subject = self._names.post(digest)
        stored = await self._link.last_of(subject)
        if stored is None:
            return Post(digest)
        try:
            return Post.decode(digest, stored.seq, self._names.open(subject, stored.body))
        except BadRow as error:
            raise BadRecord(f"a record in the stream is not what this mailbox wrote ({error})") from error

    def _trim(self, group: list[_Job]) -> None:
        for digest in dict.fromkeys(digest for job in group for digest in job.digests):
            post = self._cache.get(digest)
            # NATS deletes an empty record soon: what is known of its number is of no use.
            if post is not None and post.empty:
                del self._cache[digest]
                post = None
            weight = 0 if post is None else _RECORD + len(post.entries)
            self._weight += weight - self._weights.pop(digest, 0)
            if weight:
                self._weights[digest] = weight
        while self._weight > CACHE and self._cache:
            oldest, post = self._cache.popitem(last=False)
            self._weight -= self._weights.pop(oldest, 0)
            body = post.encode()
            self._packed[oldest] = (post.seq, body)
            self._packed_size += _PACKED_MORE + len(body)
        while self._packed_size > PACKED:
            _, (_, body) = self._packed.popitem(last=False)
            self._packed_size -= _PACKED_MORE + len(body)

    def _forget(self) -> None:
        self._meta = None
        self._cache.clear()
        self._weights.clear()
        self._weight = 0
        self._packed.clear()
        self._packed_size = 0


async def _together(calls: list[Awaitable[T]]) -> list[T]:
    """All of them, and none that goes on after one has failed."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _fail(group: list[_Job], error: Exception) -> None:
    for job in group:
        if not job.done.done():
            job.done.set_exception(_copy(error))
            # Nobody may be waiting any more; that is no news.
            with suppress(Exception):
                job.done.exception()


def _copy(error: Exception) -> Exception:
    # One exception raised in several tasks would gather the tracebacks of all.
    if type(error) in (StoreError, StoreFull, BadRecord):
        copy = type(error)(*error.args)
        copy.__cause__ = error
        return copy
    return error
