"""This relay as one node of a cluster: who the others are, what comes from them, and what this relay tells them."""

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import structlog

from keys.errors import OpenError
from relay.backplane.barriers import Barriers
from relay.backplane.bus import Bus
from relay.backplane.claims import Claims
from relay.backplane.dispatch import take
from relay.backplane.flushing import Flushing
from relay.backplane.holdings import Holdings
from relay.backplane.link import CHUNK, GONE_AFTER, VERSIONS, Peer
from relay.backplane.options import ClusterOptions
from relay.backplane.outsiders import Outsiders
from relay.backplane.parcels import Parcels
from relay.backplane.presence import RemotePresence
from relay.backplane.pressure import Pressure
from relay.backplane.records import Kind
from relay.backplane.recovery import Recovery
from relay.backplane.router import Router
from relay.backplane.seals import ANNOUNCE, DATA, HELLO, NUMBER_SIZE, Seals
from relay.backplane.shares import Shares

if TYPE_CHECKING:
    from relay.core import Core
    from relay.session import Session

BEAT: Final = 0.25
"""Seconds between two looks at what is due."""
ANNOUNCE_EVERY: Final = 2.0
LAPSE: Final = 2.5
"""Seconds without a beat after which this node was away: paused, or starved. Less than GONE_AFTER and PING_AFTER leave,
so that whatever the others gave up is not taken from an old link."""
MARGIN: Final = 10.0
"""Seconds by which a session may be older than a silence between two nodes, and yet be unknown to the other."""
MOST_NODES: Final = 512
BACKLOG: Final = 8
"""The part of `queue_total` that may wait for one node, as the denominator. It is more than what may wait for one
recipient, for it is for all who are at that node, and what is under way to them counts until it is acknowledged."""
MOST_NEWS: Final = 16 * 1024 * 1024
"""Bytes of the nodes' own records that may wait for one, beyond what frames may. Who comes and goes is told to all, and
each has to take it: one that lives and cannot keep up is given up, and begins anew with what is true then. What it has
not read by then it may yet deliver, although that was answered with 0x03."""
_FAREWELL: Final = 1.0
_EXPIRE: Final = 30.0
_HEADROOM: Final = 512
_LEAST: Final = 1024

REFUSED: Final = (
    "old_link",
    "old_sequence",
    "gap",
    "not_sealed",
    "malformed",
    "unknown",
    "other_relay",
    "other_version",
    "too_many",
)
"""Why a message between nodes was not taken; also metric labels."""


class Backplane:
    """A relay among others.

    Args:
        core: the relay.
        options: the cluster.
        bus: carries the messages.
    """

    def __init__(self, core: "Core", options: ClusterOptions, bus: Bus) -> None:
        self.core = core
        self.bus = bus
        self.random = core.random
        self.clock = core.clock
        self.number = core.random(NUMBER_SIZE)
        self.label = options.node or self.number.hex()[:6]
        self.seals = Seals(options.secret, options.prefix, self.number, core.random)
        public = core.identity.public
        # Clients pin the relay's keys: a node with others is of another relay, whatever it knows.
        self.digest = self.seals.relay_digest(public.x_pub + public.ed_pub + (core.notifier_id or b""))
        self.versions = VERSIONS
        self.chunk = CHUNK
        self.refused = dict.fromkeys(REFUSED, 0)
        self.records_out = self.records_in = 0
        self.messages_out = self.messages_in = 0
        self.bytes_out = self.bytes_in = 0
        self.nodes_lost = 0
        self.two_sessions = 0
        self.subjects: dict[str, bytes] = {}
        self._peers: dict[bytes, Peer] = {}
        self._beat_timer: asyncio.TimerHandle | None = None
        self._beat_at = self._announced = self._expired = self.clock()
        self._closed = False
        self.flushing: Flushing = Flushing(self)
        self.barriers: Barriers = Barriers(self)
        self.outsiders = Outsiders(self)
        self.linked: Callable[[], None] = _nothing
        """Called at each link that is made, and when more of the past is here."""
        self.claims: Claims = Claims(self)
        self.holdings: Holdings = Holdings(self)
        self.router: Router = Router(self)
        self.presence: RemotePresence = RemotePresence(self)
        self.parcels: Parcels = Parcels(self)
        self.recovery: Recovery = Recovery(self)
        self.pressure: Pressure = Pressure(self)
        self.shares: Shares = Shares(self)
        bus.changed = self._bus_changed

    # --- Joining and leaving -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Listen to the others, and say that we are here."""
        self._size()
        self.bus.subscribe(self.seals.own_subject, self._received)
        self.bus.subscribe(self.seals.all_subject, self._announced_by)
        self.core.cluster = self
        self._announce()
        self._beat_at = self.clock()
        self._beat_timer = self.core.loop.call_later(BEAT, self._beat)

    def _size(self) -> None:
        # The header of a message and what seals it need some bytes of what the bus takes at once. A server that takes
        # next to nothing is none to work with, but must not have us send nothing for ever either.
        self.chunk = min(CHUNK, max(_LEAST, self.bus.max_payload - _HEADROOM))

    async def close(self) -> None:
        """Leave in order: what was acknowledged by nobody yet is given a moment, then all are told."""
        await self._until(lambda: self.idle, _FAREWELL)
        self.leave()
        await self._until(lambda: all(peer.settled for peer in self.peers), _FAREWELL / 2)
        self.stop()
        await self.bus.close()

    def leave(self) -> None:
        """Tell all nodes that this one goes."""
        for peer in self.peers:
            peer.put(Kind.LEAVE, b"")
            peer.flush(self.clock())

    def stop(self) -> None:
        """Take part no more."""
        self._closed = True
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self.shares.close()
        self.core.cluster = None
        self.core.remote.clear()
        for peer in list(self.peers):
            peer.gone()
        self._peers.clear()
        self.pressure.close()

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        until = self.clock() + seconds
        # As in `relay.drain`: for a moment at the end of the process.
        while not done() and self.clock() < until and self.bus.connected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    @property
    def idle(self) -> bool:
        """Whether nothing of ours is on its way or waits."""
        return self.router.idle and all(peer.settled for peer in self.peers)

    @property
    def was_away(self) -> bool:
        """Whether this node stood still until just now: what it waited for may lie unread, and timers say nothing."""
        return self.clock() - self._beat_at > 2 * BEAT

    @property
    def degraded(self) -> bool:
        """Whether this relay cannot reach the others now."""
        return not self.bus.connected

    # --- Nodes -------------------------------------------------------------------------------------------------------

    @property
    def peers(self) -> Collection[Peer]:
        """The other nodes."""
        return self._peers.values()

    def peer(self, number: bytes) -> Peer:
        """Return another node, who may be new to us."""
        found = self._peers.get(number)
        if found is None:
            limits = self.core.limits
            found = Peer(self, number, self.clock(), max(limits.queue_size, limits.queue_total // BACKLOG))
            if len(self._peers) < MOST_NODES:
                self._peers[number] = found
                found.hello(self.clock())
            else:
                self.count("too_many")
                found.gone()
        return found

    def announcement(self) -> bytes:
        """Return what says to all nodes that we are here."""
        return self.seals.seal_call(ANNOUNCE, b"", self.seals.all_subject)

    def _announce(self) -> None:
        self._announced = self.clock()
        self.bus.publish(self.seals.all_subject, self.announcement())

    def _announced_by(self, data: bytes, reply: str, subject: str) -> None:
        try:
            number, _ = self.seals.open_call(data, subject)
        except OpenError:
            self.count("not_sealed")
            self.outsiders.unsealed()
            return
        if number == self.number:
            return
        if reply:
            self.bus.publish(reply, b"")
        self.peer(number)

    def _received(self, data: bytes, _reply: str, subject: str) -> None:
        now = self.clock()
        if now - self._beat_at > LAPSE:
            self._lapsed(now)
        self.messages_in += 1
        self.bytes_in += len(data)
        kind, number = data[:1], data[1 : 1 + NUMBER_SIZE]
        if kind == bytes((DATA,)):
            peer = self._peers.get(number)
            if peer is None:
                self.count("old_link")
            else:
                peer.received(data, now)
        elif kind == bytes((HELLO,)):
            try:
                number, body = self.seals.open_call(data, subject, self.number)
            except OpenError:
                self.count("not_sealed")
            else:
                self.peer(number).greeted(body, now)
        else:
            self.count("unknown")

    def _beat(self) -> None:
        if self._closed:
            return
        now = self.clock()
        # First: whatever goes wrong in one beat, the next one comes.
        self._beat_timer = self.core.loop.call_later(BEAT, self._beat)
        if now - self._beat_at > LAPSE:
            self._lapsed(now)
        self._beat_at = now
        for peer in list(self.peers):
            if now - peer.heard > GONE_AFTER or peer.waiting > peer.bound + MOST_NEWS:
                self._gone(peer)
            else:
                peer.beat(now)
        self.pressure.ease()
        if self.bus.connected:
            self.recovery.recover()
        if now - self._announced >= ANNOUNCE_EVERY:
            self._announce()
        if now - self._expired >= _EXPIRE:
            self._expired = now
            self.shares.expire()

    def _lapsed(self, now: float) -> None:
        """We were away for so long that others may have given us up: what lies unread is not to be believed."""
        self._beat_at = now
        for peer in self.peers:
            peer.suspect(now)

    def _gone(self, peer: Peer, *, told: bool = False) -> None:
        if self._peers.pop(peer.number, None) is None:
            return
        self.flushing.forget(peer)
        peer.gone()
        if told:
            structlog.get_logger().info("cluster_node_left", node=self.label, nodes=len(self._peers) + 1)
        elif peer.known:
            self.nodes_lost += 1
            structlog.get_logger().warning("cluster_node_gone", node=self.label, nodes=len(self._peers) + 1)
        self._forget(peer)
        self.router.forget_node(peer)

    def _forget(self, peer: Peer) -> None:
        """What was said to a node, or by it, holds no longer."""
        self.shares.node_gone(peer)
        self.parcels.node_gone(peer)
        self.claims.node_gone(peer)
        self.barriers.node_gone(peer)
        self.core.turns.task(self.presence.node_gone(peer))

    # --- What links ask for (relay.backplane.link.Owner) -------------------------------------------------------------

    def send(self, subject: str, *parts: bytes) -> bool:
        """Publish a message, the parts one after another; False if nothing can leave now."""
        if not self.bus.connected:
            return False
        self.messages_out += 1
        self.bytes_out += sum(map(len, parts))
        self.bus.publish(subject, *parts)
        return True

    def dirty(self, peer: Peer) -> None:
        """Flush a link at the end of the turn: what many clients sent in it leaves in one message."""
        self.flushing.at_end_of_turn(peer)

    def owes(self, peer: Peer) -> None:
        """Flush a link soon, if nothing else does before."""
        self.flushing.soon(peer)

    def established(self, peer: Peer, *, fresh: bool, empty: bool, silent: float) -> None:
        """There is a link to another node."""
        self.linked()
        if not fresh:
            self.core.turns.task(self.holdings.tell(peer, silent + MARGIN))
            return
        self._forget(peer)
        self.shares.established(peer)
        if not empty:
            self.core.turns.task(self.presence.ask_all(peer))
            if self.number > peer.number:
                self.core.turns.task(self.holdings.tell(peer, float("inf")))
        structlog.get_logger().info("cluster_node_came", node=self.label, nodes=len(self._peers) + 1)

    def dropped(self, record: bytes, origin: object) -> None:
        """What was for a node that is gone: whoever sent it is told."""
        self.parcels.dropped(record, origin)

    def is_empty(self) -> bool:
        """Whether we have no sessions."""
        return not self.core.sessions

    def count(self, refused: str) -> None:
        """Count a message that was not taken."""
        self.refused[refused] += 1

    def stranger(self, peer: Peer) -> None:
        """A node of another relay has our secret."""
        self.outsiders.stranger(peer)

    def misfit(self, peer: Peer, newest: int, oldest: int) -> None:
        """A node of another version has our secret."""
        self.outsiders.misfit(peer, newest, oldest)

    def frames(self, peer: Peer, data: bytes, position: int) -> tuple[int, int]:
        """Take clients' frames."""
        return self.parcels.frames(peer, data, position)

    def record(self, peer: Peer, kind: int, body: bytes) -> None:
        """Take any other record."""
        take(self, peer, kind, body)

    def node_left(self, peer: Peer) -> None:
        """Another node leaves in order, and said so."""
        # It waits for this before it hangs up.
        peer.flush(self.clock())
        self._gone(peer, told=True)

    # --- What this relay tells ---------------------------------------------------------------------------------------

    def admitted(self, session: "Session") -> None:
        """A session of this node has its id."""
        self.holdings.admitted(session)
        self.presence.changed(session.public.x_pub, online=True)

    def left(self, session: "Session") -> None:
        """A session of this node ended."""
        # First, so that it stands before the word that its id is to be had.
        self.shares.left(session)
        self.holdings.let_go(session)
        self.presence.changed(session.public.x_pub, online=False)

    def tell_all(self, kind: Kind, body: bytes) -> None:
        """Tell every other node."""
        for peer in self.peers:
            peer.put(kind, body)

    def later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Call something later, unless this node has left by then."""
        self.core.loop.call_later(seconds, self._still, call, args)

    def _still(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self._closed:
            call(*args)

    def _bus_changed(self, connected: bool) -> None:
        if self._closed:
            return
        log = structlog.get_logger()
        if connected:
            # It may be another server, that takes less.
            self._size()
            self.core.ready.recovered("cluster")
            log.info("cluster_reachable", node=self.label)
            self._announce()
            now = self.clock()
            for peer in self.peers:
                # Something may be missing in either direction, and shows at once by the next message.
                peer.flush(now)
                peer.beat(now + GONE_AFTER)
        else:
            self.core.ready.degraded("cluster", "NATS is not reachable: clients of this relay reach each other alone")
            log.warning("cluster_unreachable", node=self.label)
            self.router.bus_lost()


def _nothing() -> None:
    """Nobody waits for links."""
