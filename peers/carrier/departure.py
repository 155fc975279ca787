"""One file that goes: what its recipient asked for, or how far it was sent unasked. Pure."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from peers.carrier.lane import Lane
from peers.store.chunks import count, length
from peers.store.file_rows import FileRow
from peers.store.sources import Source
from wire.peer_commands import CHUNK_SIZE

if TYPE_CHECKING:
    import asyncio

WANTED_MAX: Final = 1024
"""Most chunks that may be asked for and not sent yet (32 MiB); what is asked for beyond that is not remembered, and
asked for again."""
END: Final = -2
"""In place of the index of a chunk: that all were sent."""


def source_of(row: FileRow) -> Source:
    """Return where a file of ours is read."""
    return Source(Path(row.source or ""), row.size, row.stamp or "")


class Departure:
    """A file of ours that is on its way.

    Attributes:
        row: as the store had it when this began.
        lane: the way to its recipient.
        source: where it is read.
        wanted: the chunks that were asked for, in that order.
        push: it is sent unasked, from `position` on.
        held: the relay refused a part: nothing is sent until it says that the recipient can be reached.
        ended: all was sent unasked; it is for the recipient to say that it arrived.
        ahead: asks the relay whether it has read what was sent; nothing is sent unasked until it answers.
        unasked: chunks sent unasked since it last did.
        moved: bytes sent, for people to see.
        told_at: when the feed last told of it (event loop time).
        gone: nothing is done with it any more.
    """

    def __init__(self, row: FileRow, lane: Lane, *, push: bool) -> None:
        self.row = row
        self.lane = lane
        self.chunk = row.chunk or CHUNK_SIZE
        self.total = count(row.size, self.chunk)
        self.source = source_of(row)
        self.wanted: dict[int, None] = {}
        self.push = push
        self.position = 0
        self.held = False
        self.ended = False
        self.ahead: asyncio.Task[None] | None = None
        self.unasked = 0
        self.moved = 0 if push else row.moved
        self.told_at = 0.0
        self.gone = False

    @property
    def ready(self) -> bool:
        """Whether there is something to send now."""
        if self.gone or self.lane.row.blocked:
            return False
        return self.pushes_on if self.push else bool(self.wanted)

    @property
    def pushes_on(self) -> bool:
        """Whether it is sent on unasked."""
        return self.push and not (self.held or self.ended or self.gone or self.ahead is not None)

    def want(self, first: int, number: int) -> None:
        """Its recipient asks for chunks: from now on only what they ask for is sent."""
        self.push = False
        last = min(first + number, self.total, first + WANTED_MAX)
        for index in range(first, last):
            if len(self.wanted) >= WANTED_MAX:
                break
            self.wanted[index] = None  # one that is asked for twice before it was sent is sent once

    def next(self, most: int) -> list[int]:
        """Return the chunks to send now; those that were asked for are not asked for any more."""
        if self.push:
            return list(range(self.position, min(self.position + most, self.total)))
        indexes = list(self.wanted)[:most]
        for index in indexes:
            del self.wanted[index]
        return indexes

    def piece(self, index: int) -> tuple[int, int]:
        """Return the offset of a chunk, and how many bytes it has."""
        return index * self.chunk, length(self.row.size, self.chunk, index)

    def sent(self, index: int) -> None:
        """A chunk was given to the relay."""
        self.moved = max(self.moved, min(self.row.size, (index + 1) * self.chunk))
        if self.push and not self.held:
            self.position = index + 1
            self.unasked += 1

    def refused(self, index: int) -> None:
        """The relay could not pass a chunk on, or the end."""
        self.wanted.clear()
        if self.push:
            self.held, self.ended = True, False
            if index >= 0:
                self.position = min(self.position, index)

    def stop(self) -> None:
        """Nothing more is sent."""
        self.gone = True
        self.wanted.clear()
        if self.ahead is not None:
            self.ahead.cancel()
