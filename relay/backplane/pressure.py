"""Whoever sends faster than another node takes is not read from for a moment, as TCP makes it wait at one relay.

One relay that has no time reads less, and nobody hears of it. In a cluster it may be the recipient's node that has
none: frames would be refused with 0x03 although their recipient takes all it is given. So when no more may wait for a
node, whoever sends the frame that is too much waits until half of the room is free; and so does, with less, whoever
sends to an id while it is asked where that is. Each way has `HOLD_FOR`: a node that is hung must not keep those who
write to its clients from all others, and from then on what it has no room for is refused.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from relay.backplane.link import Peer
from relay.backplane.records import Parcel
from relay.metered import HOLD_WAY

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.session import Session

HOLD_FOR: Final = 1.0
"""Seconds: longer than a node that lives goes without the processor, and much less than until one is given up."""


class Pressure:
    """The senders that wait for a way: to a node, or to an id of which it is asked where it is."""

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        # Since when a way is known as full.
        self._since: dict[object, float] = {}
        self._held: dict[object, dict[Session, None]] = {}

    def __len__(self) -> int:
        return len(self._since)

    # --- Waiting -----------------------------------------------------------------------------------------------------

    def wait(self, way: object, sender: "Session | None") -> bool:
        """Read no more from a sender until a way is free; False if that way has had its time."""
        now = self._node.clock()
        since = self._since.get(way)
        if since is None:
            since = self._since[way] = now
            self._node.later(HOLD_FOR, self._overdue, way, since)
        if now - since >= HOLD_FOR:
            return False
        if sender is not None:
            sender.hold(HOLD_WAY)
            self._held.setdefault(way, {})[sender] = None
        return True

    def packet(self, peer: Peer, sender: "Session", target: bytes, packet: bytes) -> bool:
        """Take a client's packet for which there is no room, and let the sender wait; False if it is to be refused."""
        return self._beyond(peer, sender, lambda: peer.put_packet(sender, sender.id, target, packet))

    def parcel(self, peer: Peer, parcel: Parcel) -> bool:
        """As `packet`, with one that had to wait for an answer."""
        sender = self._node.parcels.sender_of(parcel)
        return self._beyond(peer, sender, lambda: peer.put_frame(parcel.encode(), parcel))

    def _beyond(self, peer: Peer, sender: "Session | None", put: Callable[[], bool]) -> bool:
        if not peer.up:
            return False
        # As much again, in all: each sender that waits adds one frame, or those that waited for an answer.
        peer.stretch(peer.bound)
        try:
            return self.wait(peer, sender) and put()
        finally:
            peer.stretch(-peer.bound)

    # --- Reading on --------------------------------------------------------------------------------------------------

    def free(self, way: object) -> None:
        """Read on from those who wait for a way."""
        if way in self._since:
            del self._since[way]
            self._release(way)

    def ease(self) -> None:
        """Read on from those who wait for nodes that took enough, or are gone."""
        for way in list(self._since):
            if isinstance(way, Peer) and (way.flows or not way.alive):
                self.free(way)

    def close(self) -> None:
        """Read on from all: this node has left."""
        for way in list(self._since):
            self.free(way)

    def _overdue(self, way: object, since: float) -> None:
        # The way stays known as full, so that nobody waits for it again before it was free.
        if self._since.get(way) == since:
            self._release(way)

    def _release(self, way: object) -> None:
        held = self._held.pop(way, None)
        if held:
            self._node.core.turns.task(self._release_steps(held, self._held.values()))

    @staticmethod
    def _release_steps(senders: "dict[Session, None]", others: "Iterable[dict[Session, None]]") -> Iterator[None]:
        for sender in senders:
            # What it sent already is parsed by this, and may be too much once more, for this way or another.
            if not any(sender in held for held in others):
                sender.release(HOLD_WAY)
            yield
