"""What waits for one recipient, and the bound for all recipients together. Pure: no transport, no clock.

A recipient whose kernel takes everything has an outbox for the length of one event-loop turn. Once its transport says
"not now" it is *stalled*: what comes waits here, within bounds, until the transport has taken what it was given.

Room is given in steps, so that a queued frame costs one comparison. A stalled outbox starts with its own share, which
nobody can take from it, and asks the :class:`Budget` for more up to its bound. When the total is used up the outbox
with the most bytes for the longest time has to give way; whoever asks and is itself that one is refused.

Bytes are those of frames. What Python needs around each (about 60 bytes) is not counted: for the smallest frames real
memory is one and a half times the figure.
"""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from keys.identity import ID_SIZE
from keys.primitives import NONCE_SIZE
from relay.limits import Limits
from relay.reasons import Refusal


class Correspondent(Protocol):
    """Whoever sent a frame: a session here, or one at another node of the cluster."""

    def refuse(self, target: bytes, nonce: bytes, refusal: Refusal) -> None:
        """Answer a frame with 0x03."""

    def recovered(self, x_pub: bytes) -> None:
        """Say that a recipient which refused frames takes them again."""


Sender = TypeVar("Sender")
Recipient = TypeVar("Recipient")

_STEP = 64 * 1024


def from_peers(frames: list[bytes], senders: list[Sender | None]) -> Iterator[tuple[Sender, bytes]]:
    """Yield ``(sender, nonce)`` of each of these frames that a peer sent, in order."""
    for frame, sender in zip(frames, senders, strict=True):
        if sender is not None:
            yield sender, nonce_of(frame)


class Outbox(Generic[Sender]):
    """Frames, ready for the wire, that wait for one recipient, each with its sender (None: the server).

    `size` counts bytes of frames here; `in_transport` those that the transport holds while stalled.
    """

    __slots__ = (
        "_frames",
        "_marks",
        "_senders",
        "granted",
        "handed",
        "in_transport",
        "room",
        "size",
        "stalled",
    )

    def __init__(self, flush_size: int) -> None:
        self._frames: list[bytes] = []
        self._senders: list[Sender | None] = []
        self.size = 0
        self.room = flush_size
        self.handed = 0
        self.stalled = False
        self.granted = 0
        self.in_transport = 0
        self._marks: list[tuple[int, float]] | None = None

    def put(self, frame: bytes, sender: Sender | None) -> bool:
        """Queue a frame if there is room; else the caller flushes, asks for room, or refuses it."""
        size = self.size + len(frame)
        if size > self.room:
            return False
        self.size = size
        self._frames.append(frame)
        self._senders.append(sender)
        return True

    def force(self, frame: bytes, sender: Sender | None) -> None:
        """Queue a frame whatever the room: one that is larger than all of it and alone, or a few bytes of ours."""
        self.size += len(frame)
        self._frames.append(frame)
        self._senders.append(sender)

    def take(self, most: int) -> tuple[list[bytes], list[Sender | None]]:
        """Remove frames from the front for one write: about `most` bytes, but one frame at least.

        Returns the frames, and who sent each, should the write fail.
        """
        frames, senders = self._frames, self._senders
        if self.size <= most or len(frames) == 1:
            self._frames, self._senders = [], []
            self.handed += self.size
            self.size = 0
            return frames, senders
        count = total = 0
        for frame in frames:
            if total + len(frame) > most and count:
                break
            total += len(frame)
            count += 1
        self._frames, self._senders = frames[count:], senders[count:]
        self.size -= total
        self.handed += total
        return frames[:count], senders[:count]

    def drop_peer_frames(self) -> Iterator[tuple[Sender, bytes]]:
        """Remove what peers sent and return ``(sender, nonce)`` of each, in order; the server's own frames stay."""
        frames, senders = self._frames, self._senders
        self._frames, self._senders, self.size = [], [], 0
        for frame, sender in zip(frames, senders, strict=True):
            if sender is None:
                self.force(frame, None)
        if self._marks is not None:
            # What stays, and what comes, stands where older bytes stood: marks are left for what was handed over.
            self._marks = [(min(queued, self.handed), since) for queued, since in self._marks]
        return from_peers(frames, senders)

    def peers(self) -> list[Sender]:
        """Return those whose frames wait here, each once."""
        return list(dict.fromkeys(sender for sender in self._senders if sender is not None))

    @property
    def untaken(self) -> int:
        """Bytes that the recipient's kernel has not taken."""
        return self.size + self.in_transport

    def mark(self, now: float) -> None:
        """Note how much was queued by now, about once a second while stalled: later this tells what is how old."""
        if self._marks is None:
            self._marks = []
        taken = self.handed - self.in_transport
        self._marks = [mark for mark in self._marks if mark[0] > taken]
        queued = self.handed + self.size
        if queued > taken and (not self._marks or self._marks[-1][0] < queued):
            self._marks.append((queued, now))

    def age(self, now: float) -> float:
        """Return for how many seconds at least the oldest untaken byte has waited, by the marks."""
        taken = self.handed - self.in_transport
        for queued, since in self._marks or ():
            if queued > taken:
                return now - since
        return 0.0

    def clear_marks(self) -> None:
        """Forget the marks; the outbox is no longer stalled."""
        self._marks = None

    def __len__(self) -> int:
        return len(self._frames)


class Budget(Generic[Sender, Recipient]):
    """The bytes that all stalled outboxes together may hold."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.used = 0
        # With the recipient of each: an outbox that knew it itself would hold it in a cycle.
        self.stalled: dict[Outbox[Sender], Recipient] = {}

    def change(self, limits: Limits) -> None:
        """Go by other limits from now on. Room that was granted and is not used is taken back, and nothing else."""
        self._limits = limits
        self.reclaim()

    def stall(self, outbox: Outbox[Sender], recipient: Recipient, in_transport: int, now: float) -> None:
        """Count a recipient's outbox, whose transport stopped taking."""
        outbox.stalled = True
        outbox.in_transport = in_transport
        self.stalled[outbox] = recipient
        self._grant(outbox, outbox.untaken)
        outbox.mark(now)

    def resume(self, outbox: Outbox[Sender]) -> None:
        """Count an outbox no longer: its transport has taken everything it was given, or is gone."""
        if outbox.stalled:
            outbox.stalled = False
            outbox.in_transport = 0
            del self.stalled[outbox]
            self.used -= outbox.granted
            outbox.granted = 0
            outbox.room = self._limits.flush_size

    def shrunk(self, outbox: Outbox[Sender], in_transport: int) -> None:
        """Take back what a stalled outbox no longer needs, after frames were dropped or the transport moved on."""
        outbox.in_transport = in_transport
        self._grant(outbox, outbox.untaken)

    def within_bound(self, outbox: Outbox[Sender], size: int) -> bool:
        """Tell whether a stalled outbox may hold `size` bytes more, by its own bound alone."""
        return outbox.untaken + size <= self._limits.queue_size

    def fits(self, outbox: Outbox[Sender], size: int) -> bool:
        """Give a stalled outbox room for `size` bytes more, if the total has it; its own share always has."""
        if not outbox.stalled:
            raise AssertionError("only what is counted is given room")
        needed = outbox.untaken + size
        within_share = needed <= self._limits.queue_share
        most = self._limits.queue_share if within_share else self._limits.queue_size
        for wanted in (min(needed + _STEP, most), needed):
            if self.used - outbox.granted + wanted <= self._limits.queue_total:
                self._grant(outbox, wanted)
                return True
        if within_share:
            self._grant(outbox, needed)
        return within_share

    def reclaim(self) -> None:
        """Take back from all what was granted and is not used: before anybody has to give way for it."""
        for outbox in self.stalled:
            self._grant(outbox, outbox.untaken)

    @property
    def exceeded(self) -> bool:
        """Whether shares that could not be refused have taken the total over its bound."""
        return self.used > self._limits.queue_total

    def heaviest(self, now: float, *, beyond_share: bool = False) -> Outbox[Sender] | None:
        """Return the outbox that is to give way: the most untaken bytes times the age of the oldest of them.

        The age counts from the oldest byte, so that a reader that takes a byte now and then gains nothing. With
        `beyond_share` it is one that holds more than its share, which others cannot take.
        """
        # One second is added, so that size decides among those that stalled just now.
        share = self._limits.queue_share if beyond_share else -1
        return max(
            (outbox for outbox in self.stalled if outbox.untaken > share),
            key=lambda outbox: outbox.untaken * (1.0 + outbox.age(now)),
            default=None,
        )

    def _grant(self, outbox: Outbox[Sender], size: int) -> None:
        self.used += size - outbox.granted
        outbox.granted = size
        outbox.room = size - outbox.in_transport


def frame_head(size: int) -> bytes:
    """Return the head of an unmasked, unfragmented binary WebSocket frame with `size` payload bytes (RFC 6455 §5.2)."""
    if size < 126:
        return bytes((0x82, size))
    if size < 65536:
        return b"\x82\x7e" + size.to_bytes(2, "big")
    return b"\x82\x7f" + size.to_bytes(8, "big")


def nonce_of(frame: bytes) -> bytes:
    """Return the packet nonce (24 bytes) of a queued frame: it stands behind the WebSocket head and the header."""
    length = frame[1]
    start = (2 if length < 126 else 4 if length == 126 else 10) + ID_SIZE
    return frame[start : start + NONCE_SIZE]
