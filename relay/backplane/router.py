"""Where an id is, and what waits until that is known.

The first parcel for an id that is not here asks for its node; what comes meanwhile waits behind it. The answer is
remembered, and from then on parcels go out with the next batch. A node that has the id no longer sends them back; they
are tried once more.

**Order.** What one sender sends to one recipient keeps its order, also while the recipient moves. When a parcel comes
back, or somebody claims the id here, all later ones wait, until the node that it was sent to has said that it took all
that was sent to it (a *barrier*): by then everything that is to come back is here. What came back stands before what
waited. A node that sent one back sends back all that follow for that id, until the barrier comes: it may have the id
again by then, and would deliver them before what it sent back. A parcel that comes back although nothing waits for it
is too late for that, and its sender is told.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from keys.primitives import NONCE_SIZE
from relay.backplane.bus import Outcome
from relay.backplane.link import Peer
from relay.backplane.lookup import Found, Standing, ask
from relay.backplane.outgoing import FRAME
from relay.backplane.records import Parcel
from relay.reasons import Refusal

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.session import Session

CACHED: Final = 65_536
"""Ids in each of two halves of the memory; the half that was not used longest goes."""
ASKING: Final = 4096
"""Ids that may be asked for at once."""
WAITING_EACH: Final = 4 * 1024 * 1024
"""Bytes of parcels that may wait for one id: as many as for a recipient that is here and stalls."""
WAITING_SOFT: Final = 64 * 1024
"""Bytes for one id beyond which senders are let wait for a moment, so that what waits for many ids of one node finds
room on the way there when all are found."""
WAITING_ALL: Final = 32 * 1024 * 1024
"""Bytes of parcels that may wait for all."""
AGAIN: Final = 0.05
"""Seconds until a node is asked again where an id was just changing hands."""
PATIENCE: Final = 3.0
"""Seconds for which an id may go on changing hands."""


class Waiting:
    """Parcels for one id that wait until it is known where it is."""

    __slots__ = ("asking", "barrier", "bytes", "claimed", "found", "fresh", "returned", "until")

    def __init__(self, until: float) -> None:
        self.returned: list[Parcel] = []
        self.fresh: deque[Parcel] = deque()
        self.bytes = 0
        self.barrier: Peer | None = None
        """The node from which something may yet come back."""
        self.claimed = False
        """Somebody claims the id here; where it is is known when that is decided."""
        self.asking = False
        self.found: Found | None = None
        self.until = until


class Router:
    """Finds the nodes of ids, and sends parcels there."""

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        # Sessions look into it themselves: a frame for an id in it takes no other step.
        self._recent: dict[bytes, Peer] = node.core.remote
        self._older: dict[bytes, Peer] = {}
        self._waiting: dict[bytes, Waiting] = {}
        self._asking = 0
        self.bytes = 0
        """Bytes of parcels that wait."""
        self.lookups = 0

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def waits(self, target: bytes) -> bool:
        """Whether what is for an id waits until it is known where that is."""
        return target in self._waiting

    # --- Sending -----------------------------------------------------------------------------------------------------

    # What is known of where ids are ends with the connection to the bus: without it everything is refused at once.

    def frame(self, sender: "Session", target: bytes, packet: bytes) -> None:
        """Send a client's packet to an id that is not here, and of which `core.remote` does not tell where it is."""
        peer = self._recent.get(target) or self._known(target)
        if peer is None:
            self.send(Parcel(FRAME, 0, target, sender.id, packet, sender))
            return
        if peer.put_packet(sender, sender.id, target, packet):
            return
        if self._node.pressure.packet(peer, sender, target, packet):
            return
        sender.refuse(target, packet[:NONCE_SIZE], Refusal.NODE_FULL)
        self._node.recovery.remember(sender.id, target, peer)

    def _known(self, target: bytes) -> Peer | None:
        # Only whoever is connected is worth a place in the half that stays.
        peer = self._older.pop(target, None)
        if peer is not None and peer.alive and self._node.bus.connected:
            self._remember(target, peer)
            return peer
        return None

    def _remember(self, target: bytes, peer: Peer) -> None:
        if len(self._recent) >= CACHED:
            self._older = dict(self._recent)
            self._recent.clear()
        self._recent[target] = peer

    def _forget(self, target: bytes) -> Peer | None:
        return self._recent.pop(target, None) or self._older.pop(target, None)

    def send(self, parcel: Parcel) -> None:
        """Send a parcel to its id, wherever that is; whoever sent it is told if it cannot be."""
        target = parcel.target
        waiting = self._waiting.get(target)
        if waiting is not None:
            self._wait(waiting, parcel)
            return
        session = self._node.core.sessions.get(target)
        if session is not None:
            self._node.parcels.deliver(session, parcel)
            return
        peer = self._recent.get(target) or self._known(target)
        if peer is not None:
            self._put(peer, parcel)
        elif not self._node.bus.connected:
            self._node.parcels.failed(parcel, Refusal.NODE_LOST)
        elif self._asking >= ASKING:
            self._node.parcels.failed(parcel, Refusal.NODE_FULL)
        else:
            waiting = self._open(target)
            self._wait(waiting, parcel)
            self._ask(target, waiting)

    def _put(self, peer: Peer, parcel: Parcel) -> None:
        # What is not told if it fails takes no room that is not bounded either.
        if peer.put_frame(parcel.encode(), parcel):
            return
        if parcel.kind != FRAME or not self._node.pressure.parcel(peer, parcel):
            self._node.parcels.failed(parcel, Refusal.NODE_FULL, peer)

    def _open(self, target: bytes) -> Waiting:
        waiting = self._waiting[target] = Waiting(self._node.clock() + PATIENCE)
        peer = self._forget(target)
        if peer is not None and peer.alive:
            waiting.barrier = peer
            self._node.barriers.sync(peer, target, lambda: self._passed(target, waiting))
        return waiting

    def _passed(self, target: bytes, waiting: Waiting) -> None:
        waiting.barrier = None
        if self._waiting.get(target) is waiting:
            self._node.claims.passed(target)
        if self._waiting.get(target) is waiting:
            self._finish(target, waiting)

    def _wait(self, waiting: Waiting, parcel: Parcel, *, returned: bool = False) -> None:
        size = parcel.size
        # What came back was bounded when it was sent.
        full = self.bytes + size > WAITING_ALL or (waiting.bytes and waiting.bytes + size > WAITING_EACH)
        if full and not returned:
            self._node.parcels.failed(parcel, Refusal.NODE_FULL)
            return
        waiting.bytes += size
        self.bytes += size
        (waiting.returned if returned else waiting.fresh).append(parcel)
        if waiting.bytes > WAITING_SOFT and parcel.kind == FRAME:
            self._node.pressure.wait(waiting, self._node.parcels.sender_of(parcel))

    # --- Coming back -------------------------------------------------------------------------------------------------

    def bounced(self, peer: Peer, parcel: Parcel) -> None:
        """Take a parcel that came back, for that node has the id no longer."""
        target = parcel.target
        if parcel.tries:
            self._node.parcels.failed(parcel, Refusal.OFFLINE)
            return
        waiting = self._waiting.get(target)
        if waiting is None:
            if self._recent.get(target) is not peer and self._older.get(target) is not peer:
                # Others may have been sent another way since: it would come behind them.
                self._node.parcels.failed(parcel, Refusal.RECIPIENT_GONE)
                return
            waiting = self._open(target)
            self._ask(target, waiting)
        elif waiting.barrier is not peer:
            self._node.parcels.failed(parcel, Refusal.RECIPIENT_GONE)
            return
        self._wait(waiting, parcel._replace(tries=1), returned=True)

    # --- Asking ------------------------------------------------------------------------------------------------------

    def _ask(self, target: bytes, waiting: Waiting) -> None:
        if waiting.asking or waiting.claimed:
            return
        waiting.asking = True
        self._asking += 1
        self.lookups += 1

        def answered(found: Found) -> None:
            waiting.asking = False
            self._asking -= 1
            if self._waiting.get(target) is waiting and not waiting.claimed:
                self._answered(target, waiting, found)

        ask(self._node, target, answered)

    def _answered(self, target: bytes, waiting: Waiting, found: Found) -> None:
        changing = found.outcome is Outcome.ANSWER and found.standing is not Standing.HOLDING
        if changing and self._node.clock() < waiting.until:
            self._node.later(AGAIN, self._again, target, waiting)
            return
        waiting.found = found
        self._finish(target, waiting)

    def _again(self, target: bytes, waiting: Waiting) -> None:
        if self._waiting.get(target) is waiting:
            self._ask(target, waiting)

    def _finish(self, target: bytes, waiting: Waiting) -> None:
        """Send what waited, if it is known where to, and nothing can come back that has to go first."""
        node = self._node
        session = node.core.sessions.get(target)
        if waiting.claimed or (session is None and waiting.found is None) or waiting.barrier is not None:
            return
        del self._waiting[target]
        self._node.pressure.free(waiting)
        self.bytes -= waiting.bytes
        parcels = [*waiting.returned, *waiting.fresh]
        found = waiting.found
        if session is not None:
            for parcel in parcels:
                node.parcels.deliver(session, parcel)
        elif found is not None and found.outcome is Outcome.ANSWER and found.standing is Standing.HOLDING:
            peer = node.peer(found.node)
            self._remember(target, peer)
            for parcel in parcels:
                self._put(peer, parcel)
        else:
            hung = found is not None and found.outcome in (Outcome.TIMEOUT, Outcome.LOST)
            for parcel in parcels:
                node.parcels.failed(parcel, Refusal.NODE_LOST if hung else Refusal.OFFLINE)

    # --- What happens elsewhere --------------------------------------------------------------------------------------

    def claiming(self, client_id: bytes) -> None:
        """Somebody claims an id here: what is for it waits until that is decided."""
        waiting = self._waiting.get(client_id) or self._open(client_id)
        waiting.claimed = True

    def passable(self, client_id: bytes) -> bool:
        """Whether nothing that was sent to where this id was before can come back."""
        waiting = self._waiting.get(client_id)
        return waiting is None or waiting.barrier is None

    def decided(self, client_id: bytes) -> None:
        """The claim is decided: the id is here, or must be asked for."""
        waiting = self._waiting.get(client_id)
        if waiting is None:
            return
        waiting.claimed = False
        if client_id in self._node.core.sessions or not (waiting.returned or waiting.fresh):
            # Whatever could still come back is refused when it does: nothing waits for it.
            waiting.barrier = None
            waiting.found = waiting.found or Found(Outcome.NO_RESPONDERS)
            self._finish(client_id, waiting)
        else:
            waiting.found = None
            self._ask(client_id, waiting)

    def forget_node(self, peer: Peer) -> None:
        """A node is gone: nothing is sent there any more."""
        for memory in (self._recent, self._older):
            for target in [target for target, known in memory.items() if known is peer]:
                del memory[target]

    def bus_lost(self) -> None:
        """Nothing can be asked: what waits for answers is refused. What was on its way may yet arrive."""
        self._recent.clear()
        self._older = {}
        for target, waiting in list(self._waiting.items()):
            if not waiting.claimed:
                waiting.barrier = None
                waiting.found = Found(Outcome.LOST)
                self._finish(target, waiting)
