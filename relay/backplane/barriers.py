"""Barriers: word from another node that it took all that was sent to it before."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.backplane.link import Peer
from relay.backplane.records import Kind

if TYPE_CHECKING:
    from relay.backplane.node import Backplane


class Barriers:
    """Those that a node waits for, and its answers to those of others.

    Args:
        node: the node.
    """

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        self._waiting: dict[int, tuple[Peer, Callable[[], None]]] = {}
        self._number = 0

    def sync(self, peer: Peer, client_id: bytes, done: Callable[[], None]) -> None:
        """Call `done` when a node has taken all that was sent to an id there, and what it said of that is here."""
        self._number = self._number + 1 & 0xFFFFFFFF
        self._waiting[self._number] = (peer, done)
        peer.put(Kind.SYNC, self._number.to_bytes(4, "big") + client_id)

    def asked(self, peer: Peer, body: bytes) -> None:
        """Another node wants to know."""
        self._node.parcels.synced(peer, body[4:])
        peer.put(Kind.SYNCED, body[:4])

    def answered(self, peer: Peer, body: bytes) -> None:
        """Another node took all."""
        found = self._waiting.pop(int.from_bytes(body, "big"), None)
        if found is not None and found[0] is peer:
            found[1]()

    def node_gone(self, peer: Peer) -> None:
        """What did not come back from a node will not."""
        for number in [number for number, (asked, _) in self._waiting.items() if asked is peer]:
            self._waiting.pop(number)[1]()
