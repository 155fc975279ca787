"""When what waits for other nodes leaves: in few messages, and yet at once."""

from typing import TYPE_CHECKING, Final

from relay.backplane.link import Peer

if TYPE_CHECKING:
    from relay.backplane.node import Backplane

ACK_WITHIN: Final = 0.02


class Flushing:
    """The links of a node that have something to send.

    Args:
        node: the node.
    """

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        self._dirty: dict[Peer, None] = {}
        self._owing: dict[Peer, None] = {}
        self._flushing = self._acknowledging = False

    def at_end_of_turn(self, peer: Peer) -> None:
        """Flush a link at the end of the turn: what many clients sent in it leaves in one message."""
        self._dirty[peer] = None
        if not self._flushing:
            self._flushing = True
            self._node.core.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        now = self._node.clock()
        dirty, self._dirty = self._dirty, {}
        for peer in dirty:
            peer.flush(now)
        if self._node.pressure:
            self._node.pressure.ease()

    def soon(self, peer: Peer) -> None:
        """Flush a link soon, if nothing else does before."""
        self._owing[peer] = None
        if not self._acknowledging:
            self._acknowledging = True
            self._node.core.loop.call_later(ACK_WITHIN, self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledging = False
        now = self._node.clock()
        owing, self._owing = self._owing, {}
        for peer in owing:
            peer.flush(now)

    def forget(self, peer: Peer) -> None:
        """A node is gone."""
        self._dirty.pop(peer, None)
        self._owing.pop(peer, None)
