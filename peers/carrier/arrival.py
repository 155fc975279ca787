"""One file that comes: what is here of it, and what was asked for. Pure, but for the part on disk that it names."""

from typing import TYPE_CHECKING, Final

from peers.carrier.disk import Part
from peers.carrier.lane import Lane
from peers.store.chunks import Chunks, count, length
from peers.store.file_rows import FileRow
from peers.store.file_steps import sound
from wire.peer_commands import FileChunk

if TYPE_CHECKING:
    import asyncio

WINDOW_MIN: Final = 256 * 1024
"""Bytes that are asked for at first: a slow link takes some seconds for them."""
WINDOW_MAX: Final = 2 * 1024 * 1024
"""Most bytes that are asked for and have not come, of all files together: a relay keeps 4 MiB for a recipient, and what
is queued there stands before every text."""
_QUICK: Final = 0.5
_SLOW: Final = 2.0
"""Seconds for half a window: less makes it grow, more makes it shrink."""


class Arrival:
    """A file of theirs that is wanted.

    Attributes:
        row: as the store had it when this began.
        lane: the way to its author.
        part: where it is written.
        chunks: what is on disk; None while nobody knows how big a chunk is.
        chunk: bytes in one.
        asked: chunks that were asked for and are not on disk.
        queued: chunks that came and are not on disk.
        moved: bytes on disk.
        running: it is being asked for.
        heard_at: when a chunk was last written, or it began to run (event loop time).
        asked_at: when chunks were last asked for.
        retry_at: when to ask although its author is not online.
        tries: how often it was not what was offered.
        unsaved: bytes on disk that are not written down.
        saved_at: when that was last done.
        told_at: when the feed last told of it.
        saving: the write under way.
        finishing: all is here, and is being checked.
        gone: nothing is done with it any more.
    """

    def __init__(self, row: FileRow, lane: Lane, part: Part, now: float, *, fresh: bool = False) -> None:
        self.row = row
        self.lane = lane
        self.part = part
        self.chunk = row.chunk
        self.chunks: Chunks | None = None
        if row.size == 0:
            self.chunks = Chunks(0)
        elif row.chunk is not None:
            self.chunks = Chunks.parse(count(row.size, row.chunk), None if fresh else row.have)
        self.moved = self._on_disk()
        self.asked: dict[int, None] = {}
        self.queued: set[int] = set()
        self.running = False
        self.heard_at = now
        self.asked_at = 0.0
        self.retry_at = now
        self.tries = row.tries
        self.unsaved = 0
        self.saved_at = 0.0
        self.told_at = 0.0
        self.saving: asyncio.Future[bool] | None = None
        self.finishing = False
        self.gone = False
        self._window = WINDOW_MIN
        self._held: FileChunk | None = None

    @property
    def complete(self) -> bool:
        """Whether all of it is on disk."""
        return self.chunks is not None and self.chunks.complete

    @property
    def rest(self) -> int:
        """Bytes that are still to come."""
        return self.row.size - self.moved

    @property
    def end(self) -> int:
        """How many bytes the part on disk has at least, by what was written down."""
        if self.chunks is None or self.chunk is None:
            return 0
        return min(self.row.size, self.chunks.end * self.chunk)

    def encoded(self) -> bytes:
        """What is on disk, as the store keeps it."""
        return b"" if self.chunks is None else self.chunks.encode()

    # --- Coming -------------------------------------------------------------------------------------------------------

    def sift(self, came: FileChunk) -> list[tuple[int, bytes]]:
        """Return what is to be written now that a chunk came: that one, one that was held back, both, or none."""
        candidates = [came] if self._held is None else [self._held, came]
        if self.chunks is None:
            chunk = self._size_by(candidates)
            if chunk is None:
                self._held = candidates[0]
                return []
            self._held = None
            if not sound(self.row.size, chunk):
                return []
            self.chunk, self.chunks = chunk, Chunks(count(self.row.size, chunk))
        return [(each.index, each.data) for each in candidates if self._fits(each)]

    def wrote(self, index: int, data: bytes) -> None:
        """A chunk is on disk."""
        self.queued.discard(index)
        self.asked.pop(index, None)
        if self.chunks is not None and self.chunks.add(index):
            self.moved += len(data)
            self.unsaved += len(data)

    def _size_by(self, chunks: list[FileChunk]) -> int | None:
        """How big a chunk is: each but the last of a file is that big, and these may tell which is not the last."""
        low = min(chunks, key=lambda each: each.index)
        size, index = len(low.data), low.index
        if index == 0 or any(each.index > index for each in chunks):
            return size
        if (index + 1) * size > self.row.size and (self.row.size - size) % index == 0:
            return (self.row.size - size) // index
        return None

    def _fits(self, each: FileChunk) -> bool:
        if self.chunks is None or self.chunk is None or not 0 <= each.index < self.chunks.total:
            return False
        if each.index in self.chunks or each.index in self.queued:
            return False
        if len(each.data) != length(self.row.size, self.chunk, each.index):
            return False
        self.queued.add(each.index)
        return True

    # --- Asking -------------------------------------------------------------------------------------------------------

    def rest_now(self, now: float) -> None:
        """Ask for nothing until somebody says so: what was asked for may not come."""
        self.running = False
        self.asked.clear()
        self._window = WINDOW_MIN
        self.retry_at = now

    def due(self) -> bool:
        """Whether so much of what was asked for came that more is to be asked for."""
        return 2 * len(self.asked) <= self._chunks_of(self._window)

    def pace(self, now: float) -> None:
        """Ask for more or less at a time, as what was asked for came quickly or slowly."""
        took = now - self.asked_at
        if took < _QUICK:
            self._window = min(2 * self._window, WINDOW_MAX)
        elif took > _SLOW:
            self._window = max(self._window // 2, WINDOW_MIN)

    def to_ask(self, share: int, runs: int) -> list[tuple[int, int]]:
        """Return runs ``(first, count)`` of chunks to ask for now, so that no more than `share` bytes are on their way;
        they count as asked for."""
        if self.chunks is None:
            return []
        room = self._chunks_of(min(self._window, share)) - len(self.asked)
        wanted = self.chunks.missing(room, self.asked.keys() | self.queued)[:runs]
        for first, number in wanted:
            self.asked.update(dict.fromkeys(range(first, first + number)))
        return wanted

    def begin_anew(self) -> None:
        """None of it counts."""
        self.tries += 1
        self.moved = self.unsaved = 0
        self.asked.clear()
        self.queued.clear()
        self.finishing = False
        if self.chunks is not None:
            self.chunks = Chunks(self.chunks.total)

    def _chunks_of(self, size: int) -> int:
        return max(1, size // (self.chunk or size))

    def _on_disk(self) -> int:
        if self.chunks is None or self.chunk is None or not len(self.chunks):
            return 0
        last = self.chunks.total - 1
        short = self.chunk - length(self.row.size, self.chunk, last) if last in self.chunks else 0
        return len(self.chunks) * self.chunk - short
