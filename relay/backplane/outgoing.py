"""The records for one node: those that wait, and those on their way that it has not acknowledged. Pure.

Nearly all records are clients' frames, and each costs as little as can be: a frame is its head and its packet, which
stay apart until a whole message is put together, and is acknowledged with all others of its message.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

RECORD: Final = Struct(">BI")
"""Before each record: its kind, and the bytes that follow."""
FRAME: Final = 1
"""The kind of record that most are: a client's packet, as a parcel (`records`)."""
FRAME_HEAD: Final = Struct(">BIB8s8s")
"""What stands before the packet: kind, size of the rest, tries, recipient, sender."""
WINDOW: Final = 2 * 1024 * 1024
"""Bytes that may be on their way to one node; the last record may go beyond."""
_PARCEL: Final = FRAME_HEAD.size - RECORD.size
_ENTRY: Final = 96
"""Bytes that Python needs around a record that waits, about."""
_COST: Final = FRAME_HEAD.size + _ENTRY
_pack_head: Final = FRAME_HEAD.pack
_NO_ROOM: Final = -(1 << 62)


class _Batch(NamedTuple):
    """Records that left in one message, two parts each; who is told if one does not arrive; and their bytes."""

    parts: list[bytes]
    origins: list[object]
    cost: int


class Outgoing(ABC):
    """A queue of records, numbered from 0, of which the first are on their way.

    Args:
        bound: bytes that may be in it when a frame is put; records of the nodes' own are bounded by what causes them.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.alive = True
        self._parts: list[bytes] = []
        self._origins: list[object] = []
        self._waiting_bytes = 0
        self._sent: deque[_Batch] = deque()
        self._sent_bytes = 0
        self._sent_count = 0
        self._base = 0
        """Records acknowledged, and so the number of the first that is on its way."""
        self._room = bound

    @abstractmethod
    def wanted(self) -> None:
        """Called when something waits that can leave in this turn."""

    @property
    def waiting(self) -> int:
        """Bytes that wait here or are on their way."""
        return self._waiting_bytes + self._sent_bytes

    @property
    def settled(self) -> bool:
        """Whether everything was acknowledged."""
        return not self._origins and not self._sent

    def stretch(self, size: int) -> None:
        """Give room for so many bytes beyond the bound, or with a negative number take that back."""
        self._room += size

    # --- Coming in ---------------------------------------------------------------------------------------------------

    def put_packet(self, sender: object, sender_id: bytes, target: bytes, packet: bytes) -> bool:
        """Queue a client's packet for an id that the node has, if there is room: the hot path."""
        size = len(packet)
        cost = size + _COST
        if cost > self._room:
            return False
        self._room -= cost
        if not self._origins:
            self.wanted()
        self._waiting_bytes += cost
        self._parts += (_pack_head(FRAME, size + _PARCEL, 0, target, sender_id), packet)
        self._origins.append(sender)
        return True

    def put_frame(self, record: bytes, origin: object) -> bool:
        """Queue a record that is a client's frame, if there is room."""
        if len(record) + _ENTRY > self._room:
            return False
        self._put(record, b"", origin)
        return True

    def put(self, kind: int, body: bytes) -> None:
        """Queue a record of the nodes' own, each bounded by what caused it; nothing waits for a node that is gone."""
        if self.alive:
            self._put(RECORD.pack(kind, len(body)), body, None)

    def _put(self, head: bytes, body: bytes, origin: object) -> None:
        cost = len(head) + len(body) + _ENTRY
        if not self._origins:
            self.wanted()
        self._room -= cost
        self._waiting_bytes += cost
        self._parts += (head, body)
        self._origins.append(origin)

    # --- Leaving -----------------------------------------------------------------------------------------------------

    def take(self, most: int) -> list[bytes]:
        """Return the parts of what leaves next: about `most` bytes and one record at least, none beyond the window."""
        parts, origins, cost = self._parts, self._origins, self._waiting_bytes
        if cost <= most and cost + self._sent_bytes <= WINDOW:
            # Nearly always: all of it.
            self._parts, self._origins, self._waiting_bytes = [], [], 0
        else:
            count = size = cost = 0
            while count < len(origins) and size < most and self._sent_bytes + cost < WINDOW:
                each = len(parts[2 * count]) + len(parts[2 * count + 1])
                size += each
                cost += each + _ENTRY
                count += 1
            self._parts, self._origins = parts[2 * count :], origins[count:]
            self._waiting_bytes -= cost
            del parts[2 * count :], origins[count:]
        if origins:
            self._sent.append(_Batch(parts, origins, cost))
            self._sent_bytes += cost
            self._sent_count += len(origins)
        return parts

    def acknowledge(self, count: int) -> bool:
        """Forget the records before this number, which the node has; False if it cannot have so many."""
        number = count - self._base
        if not 0 <= number <= self._sent_count:
            return False
        if not number:
            return True
        freed, left, sent = 0, number, self._sent
        while left:
            batch = sent[0]
            if len(batch.origins) <= left:
                sent.popleft()
                left -= len(batch.origins)
                freed += batch.cost
            else:
                cost = sum(map(len, batch.parts[: 2 * left])) + left * _ENTRY
                sent[0] = _Batch(batch.parts[2 * left :], batch.origins[left:], batch.cost - cost)
                freed += cost
                left = 0
        self._base = count
        self._sent_count -= number
        self._sent_bytes -= freed
        self._room += freed
        if self._origins:
            self.wanted()
        return True

    def again(self) -> None:
        """Let what is on its way leave again, before what waits."""
        batches = [*self._sent, _Batch(self._parts, self._origins, self._waiting_bytes)]
        self._parts = [part for batch in batches for part in batch.parts]
        self._origins = [origin for batch in batches for origin in batch.origins]
        self._waiting_bytes += self._sent_bytes
        self._none_sent()

    def _none_sent(self) -> None:
        self._sent.clear()
        self._sent_bytes = self._sent_count = 0

    def lose_sent(self) -> Iterator[tuple[bytes, object]]:
        """Give up what is on its way, and count from 0; returns the records that somebody is to be told of."""
        batches = list(self._sent)
        self._room += self._sent_bytes
        self._base = 0
        self._none_sent()
        return _told(batches)

    def lose_all(self) -> Iterator[tuple[bytes, object]]:
        """Give everything up and take nothing more; returns the records that somebody is to be told of."""
        batches = [*self._sent, _Batch(self._parts, self._origins, self._waiting_bytes)]
        self.alive = False
        self._parts, self._origins, self._waiting_bytes = [], [], 0
        self._room = _NO_ROOM
        self._none_sent()
        return _told(batches)


def _told(batches: list[_Batch]) -> Iterator[tuple[bytes, object]]:
    for parts, origins, _ in batches:
        for number, origin in enumerate(origins):
            if origin is not None:
                yield parts[2 * number] + parts[2 * number + 1], origin
