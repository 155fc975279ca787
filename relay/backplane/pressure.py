"""Whoever sends faster than another node takes is not read from for a moment, as TCP makes it wait at one relay.

One relay that has no time reads less, and nobody hears of it. In a cluster it may be the recipient's node that has
none: frames would be refused with 0x03 although their recipient takes all it is given. So when no more may wait for a
node, whoever sends the frame that is too much waits until half of the room is free. A node has `HOLD_FOR` for that: one
that is hung must not keep those who write to its clients from all others, and from then on what it has no room for is
refused.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from relay.backplane.link import Peer
from relay.metered import HOLD_WAY

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.session import Session

HOLD_FOR: Final = 1.0
"""Seconds: longer than a node that lives goes without the processor, and much less than until one is given up."""


class Pressure:
    """The senders that wait for the way to a node, and since when it is full."""

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        self._since: dict[Peer, float] = {}
        self._held: dict[Peer, dict[Session, None]] = {}

    def __len__(self) -> int:
        return len(self._since)

    def hold(self, peer: Peer, sender: "Session", target: bytes, packet: bytes) -> bool:
        """Take a frame for which there is no room, and let its sender wait; False if it is to be refused."""
        since = self._since.get(peer)
        if since is None:
            since = self._since[peer] = self._node.clock()
            self._node.later(HOLD_FOR, self._overdue, peer, since)
        if not peer.up or self._node.clock() - since >= HOLD_FOR:
            return False
        # As much again, in all: each sender that waits adds one frame, or what of it was read already.
        bound = peer.bound
        peer.bound = 2 * bound
        taken = peer.put_packet(sender, sender.id, target, packet)
        peer.bound = bound
        if taken:
            sender.hold(HOLD_WAY)
            self._held.setdefault(peer, {})[sender] = None
        return taken

    def ease(self, peer: Peer) -> None:
        """Read on from those who wait for this way, if it is free."""
        if peer in self._since and (peer.flows or not peer.alive):
            del self._since[peer]
            self._release(peer)

    def ease_all(self) -> None:
        """As `ease`, for all ways."""
        for peer in list(self._since):
            self.ease(peer)

    def _overdue(self, peer: Peer, since: float) -> None:
        # The way stays known as full, so that nobody waits for it again before it was free.
        if self._since.get(peer) == since:
            self._release(peer)

    def _release(self, peer: Peer) -> None:
        held = self._held.pop(peer, None)
        if held:
            self._node.core.turns.task(self._release_steps(held, self._held.values()))

    @staticmethod
    def _release_steps(senders: "dict[Session, None]", others: "Iterable[dict[Session, None]]") -> Iterator[None]:
        for sender in senders:
            # What it sent already is parsed by this, and may be too much once more, for this way or another.
            if not any(sender in held for held in others):
                sender.release(HOLD_WAY)
            yield
