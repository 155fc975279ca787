"""What stands in the messages of a mailbox's stream: pure, of bytes and numbers alone.

Below the stream's prefix, one message for each subject, `digest` a keyed digest of a recipient's key:

- ``i.digest.number``: the content of one item;
- ``r.digest``: all else about a recipient's items (:class:`Post`);
- ``e.hour.digest``: when that is to be looked at next, because something in it ends (empty);
- ``m``: sums, the clock, and what is to be erased (:class:`Meta`). The last message of each commit.

Each body is sealed under a key of the mailbox's own for its subject, so that none can be read, changed, or put in
another's place by whoever runs NATS. Putting back an old stream as a whole is what no seal prevents.
"""

import base64
import struct
from dataclasses import dataclass, field
from typing import Final

from keys.errors import OpenError
from keys.primitives import NONCE_SIZE, TAG_SIZE, aead_open, aead_seal, derive_key, keyed_digest, random_bytes
from peers.mailbox.rules import HOUR
from peers.mailbox.store import Marker
from wire.mailbox_codes import ItemKind

SEAL_SIZE: Final = NONCE_SIZE + TAG_SIZE
"""Bytes that a body has more than what is in it."""
_VERSION: Final = 1
_POST: Final = struct.Struct("<BQIIQ")
_ENTRY: Final = struct.Struct("<QQqqIB16s")
_META: Final = struct.Struct("<BqQQII")
_NEVER: Final = -1
NUMBER_MAX: Final = 2**63 - 1


class BadRow(Exception):
    """A body that this mailbox did not write."""


def record_size(items: int) -> int:
    """Return the bytes of a recipient's record of so many items."""
    return _POST.size + items * _ENTRY.size + SEAL_SIZE


def hour_of(end: int) -> int:
    """Return the hour, counted since 1970, at which what ends then (milliseconds) is to be looked at."""
    return -(-end // HOUR)


@dataclass(slots=True)
class Entry:
    """One item, but for its content.

    Attributes:
        seq: its message's number in the stream; 0 as long as it is not committed.
        expires: milliseconds since 1970.
        restorable: when it would have ended if it were not set aside; None: it is not.
    """

    number: int
    seq: int
    expires: int
    restorable: int | None
    size: int
    kind: ItemKind
    drop_digest: bytes = field(repr=False)


@dataclass(slots=True)
class Post:
    """A recipient's record.

    Attributes:
        seq: its message's number in the stream; 0 if there is none.
        next: number of the next item.
        due: the hour under which ``e.hour.digest`` stands; 0 if nowhere. Not after the first end.
        entries: by number, the oldest first.
    """

    digest: str
    seq: int = 0
    next: int = 0
    due: int = 0
    refused: int = 0
    since: int = 0
    size: int = 0
    aside: int = 0
    aside_size: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)
    digests: dict[bytes, Entry] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return not self.entries and not self.refused

    @property
    def marker(self) -> Marker:
        """That something was refused."""
        return Marker(self.refused, self.since)

    @property
    def key(self) -> int:
        """What leases know the recipient by."""
        return int.from_bytes(self.digest.encode(), "little")

    def add(self, entry: Entry) -> None:
        """Add an item, the newest."""
        self.entries[entry.number] = entry
        self.digests[entry.drop_digest] = entry
        self.size += entry.size
        if entry.restorable is not None:
            self.aside += 1
            self.aside_size += entry.size

    def remove(self, entry: Entry) -> None:
        """Take an item out."""
        del self.entries[entry.number]
        del self.digests[entry.drop_digest]
        self.size -= entry.size
        if entry.restorable is not None:
            self.aside -= 1
            self.aside_size -= entry.size

    def encode(self) -> bytes:
        """Return the record's body."""
        parts = [_POST.pack(_VERSION, self.next, self.due, self.refused, self.since)]
        parts += [
            _ENTRY.pack(
                entry.number,
                entry.seq,
                entry.expires,
                _NEVER if entry.restorable is None else entry.restorable,
                entry.size,
                entry.kind,
                entry.drop_digest,
            )
            for entry in self.entries.values()
        ]
        return b"".join(parts)

    @classmethod
    def decode(cls, digest: str, seq: int, body: bytes) -> "Post":
        """Read a body.

        Raises:
            BadRow: it is none.
        """
        try:
            version, next_, due, refused, since = _POST.unpack_from(body)
            rest = _ENTRY.iter_unpack(body[_POST.size :])
            if version != _VERSION:
                raise BadRow(f"a record of version {version}")
            post = cls(digest, seq, next_, due, refused, since)
            for number, at, expires, restorable, size, kind, drop_digest in rest:
                aside = None if restorable == _NEVER else restorable
                post.add(Entry(number, at, expires, aside, size, ItemKind(kind), drop_digest))
        except (struct.error, ValueError) as error:
            raise BadRow("a record that is none") from error
        return post


@dataclass(slots=True)
class Meta:
    """What there is once.

    Attributes:
        seq: its message's number in the stream.
        clock: the mailbox's time that was saved last, milliseconds since 1970.
        low: no ``e.hour.digest`` stands under an earlier hour; 0: there never was one.
        erasing: numbers in the stream of contents that no record names any more, and that are to be overwritten.
    """

    seq: int = 0
    clock: int | None = None
    items: int = 0
    size: int = 0
    markers: int = 0
    low: int = 0
    erasing: set[int] = field(default_factory=set)

    def encode(self) -> bytes:
        """Return the body."""
        clock = _NEVER if self.clock is None else self.clock
        head = _META.pack(_VERSION, clock, self.items, self.size, self.markers, self.low)
        return head + struct.pack(f"<{len(self.erasing)}Q", *sorted(self.erasing))

    @classmethod
    def decode(cls, seq: int, body: bytes) -> "Meta":
        """Read a body.

        Raises:
            BadRow: it is none.
        """
        try:
            version, clock, items, size, markers, low = _META.unpack_from(body)
            if version != _VERSION:
                raise BadRow(f"sums of version {version}")
            rest = body[_META.size :]
            erasing = set(struct.unpack(f"<{len(rest) // 8}Q", rest))
        except struct.error as error:
            raise BadRow("sums that are none") from error
        return cls(seq, None if clock == _NEVER else clock, items, size, markers, low, erasing)


class Names:
    """Subjects, and the seals of what stands under them.

    Args:
        prefix: of all subjects.
        secret: the mailbox's (32 bytes).
    """

    def __init__(self, prefix: str, secret: bytes) -> None:
        self._prefix = prefix
        self._names = derive_key("blindrelay mailbox stream names 1", secret)
        self._seals = derive_key("blindrelay mailbox stream seals 1", secret)
        self.meta = f"{prefix}.m"

    def digest(self, x_pub: bytes) -> str:
        """Return what a recipient is called (22 characters)."""
        return base64.urlsafe_b64encode(keyed_digest(self._names, x_pub)).rstrip(b"=").decode()

    def post(self, digest: str) -> str:
        """Return the subject of a record."""
        return f"{self._prefix}.r.{digest}"

    def item(self, digest: str, number: int) -> str:
        """Return the subject of an item's content."""
        return f"{self._prefix}.i.{digest}.{number:x}"

    def due(self, hour: int, digest: str = "*") -> str:
        """Return the subject that says that a record is to be looked at, or the pattern for all of an hour."""
        return f"{self._prefix}.e.{hour}.{digest}"

    def seal(self, subject: str, body: bytes) -> bytes:
        """Return a body as it stands in the stream: :data:`SEAL_SIZE` bytes longer."""
        nonce = random_bytes(NONCE_SIZE)
        return nonce + aead_seal(self._key(subject), nonce, body)

    def open(self, subject: str, sealed: bytes) -> bytes:
        """Return what was sealed for a subject.

        Raises:
            BadRow: this mailbox did not.
        """
        try:
            return aead_open(self._key(subject), sealed[:NONCE_SIZE], sealed[NONCE_SIZE:])
        except (OpenError, ValueError) as error:
            raise BadRow("not sealed by this mailbox") from error

    def _key(self, subject: str) -> bytes:
        return keyed_digest(self._seals, subject.encode(), 32)
