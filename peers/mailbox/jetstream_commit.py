"""What one commit to the stream changes, while it is made: pure but for what it reads.

Several calls share one. They see what those before them changed; it is written as one atomic batch, all or nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from peers.mailbox.jetstream_link import Put
from peers.mailbox.jetstream_rows import Entry, Meta, Names, Post
from peers.mailbox.leases import Leases
from peers.mailbox.rules import Limits

FULL_PUTS: Final = 500
"""Messages after which a commit takes no further call: no call adds as many again, and a batch has at most 1,000."""
FULL_BYTES: Final = 4 << 20
_OVERHEAD: Final = 400
"""Bytes that a message takes of the disk beside its body, about: its subject, headers and sums."""
_GONE: Final = 60
"""Seconds for which NATS keeps what says that something is gone."""
_DAY: Final = 24 * 60 * 60
_LONGEST: Final = 3650 * _DAY
_GONE_MAX: Final = 300
"""Deleted contents that one commit tells NATS of; those beyond are left to be overwritten, one by one."""


class NewContent(NamedTuple):
    """An item that the commit adds. `ttl`: seconds after which NATS deletes it in any case."""

    post: Post
    entry: Entry
    content: bytes
    ttl: int


class Commit:
    """What is changed together.

    Args:
        posts: the records of those whom the calls are about.
        room: bytes that the stream may still take; None if that is not bounded here.
        read: returns an item's content, None if it is gone.
        overwrite: whether deleted contents are overwritten (then `meta.erasing` names them) or only deleted.
    """

    def __init__(
        self,
        meta: Meta,
        posts: Mapping[str, Post],
        leases: Leases,
        limits: Limits,
        room: int | None,
        read: Callable[[Post, Entry], Awaitable[bytes | None]],
        *,
        overwrite: bool,
    ) -> None:
        self.meta = meta
        self.limits = limits
        self.room = room
        self.touched_meta = False
        self._posts = posts
        self._leases = leases
        self._read = read
        self._overwrite = overwrite
        self._contents: dict[int, NewContent] = {}
        self._dues: dict[tuple[int, str], bool] = {}
        self._gone: list[tuple[str, int]] = []
        self._dirty: dict[str, Post] = {}
        self._leased: dict[int, dict[int, float]] = {}
        self._bytes = 0

    # --- For the calls --------------------------------------------------------------------------------------------

    def post(self, digest: str) -> Post:
        """Return a record, which is empty where there is none."""
        return self._posts[digest]

    def touch(self, post: Post) -> None:
        """Say that a record was changed."""
        self._dirty[post.digest] = post

    async def content(self, post: Post, entry: Entry) -> bytes | None:
        """Return an item's content; None if NATS has deleted it."""
        new = self._contents.get(id(entry))
        return await self._read(post, entry) if new is None else new.content

    def add(self, post: Post, entry: Entry, content: bytes, now: int) -> None:
        """Add an item to a record."""
        # Twice what is left, and a day: the mailbox's clock may run at half the speed of NATS'. In full days, for NATS'
        # operator reads it. See docs/mailbox.md.
        ttl = min(2 * max(0, entry.expires - now) // 1000 // _DAY * _DAY + 2 * _DAY, _LONGEST)
        self._contents[id(entry)] = NewContent(post, entry, content, ttl)
        self._bytes += len(content)
        if self.room is not None:
            self.room -= len(content) + _OVERHEAD
        post.add(entry)
        self.meta.items += 1
        self.meta.size += entry.size
        self.touch(post)

    def remove(self, post: Post, entry: Entry) -> None:
        """Delete an item of a record, and end its lease."""
        post.remove(entry)
        self.meta.items -= 1
        self.meta.size -= entry.size
        self.end(post, entry.number)
        if self._contents.pop(id(entry), None) is None:
            if self._overwrite or len(self._gone) >= _GONE_MAX:
                self.meta.erasing.add(entry.seq)
            else:
                self._gone.append((post.digest, entry.number))
        self.touch(post)

    def due(self, post: Post, hour: int) -> None:
        """See to it that a record is looked at in that hour or before."""
        if post.due and post.due <= hour:
            return
        self.not_due(post)
        post.due = hour
        self._dues[hour, post.digest] = True
        self.meta.low = min(self.meta.low or hour, hour)
        self.touch(post)

    def not_due(self, post: Post, hour: int | None = None) -> None:
        """Forget that a record was to be looked at, or that it stood under that hour."""
        if hour is not None and hour != post.due:
            self._dues[hour, post.digest] = False
        elif post.due:
            self._dues[post.due, post.digest] = False
            post.due = 0
            self.touch(post)

    def leased(self, post: Post, tick: float) -> dict[int, float]:
        """Return what is handed out of a record; not to be changed."""
        return self._leases.out(post.key, tick)

    def take(self, post: Post, number: int, end: float) -> None:
        """Hand an item out."""
        self._remember(post)
        self._leases.take(post.key, number, end)

    def end(self, post: Post, number: int, when: float | None = None) -> None:
        """End a lease, as :meth:`Leases.end`."""
        self._remember(post)
        self._leases.end(post.key, number, when)

    # --- For the writer -------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the next call has to wait for the next commit."""
        puts = len(self._contents) + len(self._gone) + len(self._dues) + len(self._dirty)
        return puts >= FULL_PUTS or self._bytes >= FULL_BYTES

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.touched_meta or self._contents or self._gone or self._dues or self._dirty)

    def puts(self, names: Names, last: int) -> list[Put]:
        """Return the messages, of which the first gets the number `last + 1`; entries and records know theirs by then.

        They are right only if the commit succeeds; else all is to be read again.
        """
        for post in list(self._dirty.values()):
            if post.empty:
                self.not_due(post)
        puts: list[Put] = []
        for new in self._contents.values():
            new.entry.seq = last + len(puts) + 1
            subject = names.item(new.post.digest, new.entry.number)
            puts.append(Put(subject, names.seal(subject, new.content), new.ttl))
        for digest, number in self._gone:
            puts.append(Put(names.item(digest, number), b"", _GONE))
        for (hour, digest), stands in self._dues.items():
            subject = names.due(hour, digest)
            puts.append(Put(subject, names.seal(subject, b""), None) if stands else Put(subject, b"", _GONE))
        for post in self._dirty.values():
            if post.empty and not post.seq:
                continue
            subject = names.post(post.digest)
            ttl = _GONE if post.empty else None
            puts.append(Put(subject, names.seal(subject, post.encode()), ttl, last=post.seq))
            post.seq = last + len(puts)
        self.meta.seq = last + len(puts) + 1
        puts.append(Put(names.meta, names.seal(names.meta, self.meta.encode())))
        return puts

    def undo(self) -> None:
        """Take back what was changed of the leases; everything else is read again."""
        for key, before in self._leased.items():
            for number in list(self._leases.out(key, float("-inf"))):
                self._leases.end(key, number)
            for number, end in before.items():
                self._leases.take(key, number, end)
        self._leased.clear()

    def _remember(self, post: Post) -> None:
        if post.key not in self._leased:
            self._leased[post.key] = dict(self._leases.out(post.key, float("-inf")))
