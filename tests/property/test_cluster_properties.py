"""Any history of a cluster: each frame arrives once and in order, or is answered 0x03 once; one session per id remains.

What is in doubt when a node is given up may be both, as under a socket that dies (PROTOCOL.md §8.7), and is never
delivered twice.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from relay.limits import Limits
from relay.session import Session
from tests.relay.cluster import Cluster
from tests.relay.harness import Peer, client_frame, identity
from wire import commands as c
from wire.session import PeerFrame

if TYPE_CHECKING:
    from tests.relay.harness import Lab

NODES: Final = 3
CLIENTS: Final = 4
WATCHER: Final = 90
LIMITS: Final = Limits(presence_per_second=0.0, presence_burst=1, handshakes_per_second=0.0)


class Watched(Peer):
    """A client whose messages are opened as they come, into one log for all."""

    def __init__(self, lab: Lab, number: int, log: list[tuple[Watched, Any]]) -> None:
        self.log = log
        self.number = number
        super().__init__(lab, identity(number))
        lab.ids.add(self.id)

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == 2:
            self.log.append((self, self.wire.receive(payload)))
        else:
            super()._frame(opcode, payload)


class History:
    """A cluster, and all that happened in it."""

    def __init__(self) -> None:
        self.cluster = Cluster(NODES, LIMITS)
        self.log: list[tuple[Watched, Any]] = []
        self.sent: dict[bytes, tuple[Watched, int]] = {}
        self.clients: dict[int, Watched] = {}
        self.all: list[Watched] = []
        self.lost = 0
        self.drop = 0
        self.watcher = self.connect(WATCHER, 0)
        for number in range(CLIENTS):
            self.connect(number, number % NODES)
        self.cluster.run()
        self.watcher.say(c.Subscribe.of([identity(number).public.x_pub for number in range(CLIENTS)]))
        self.cluster.run()
        self.cluster.medium.lose = self._lose

    def _lose(self, *_: object) -> bool:
        self.lost += 1
        return self.drop > 0 and self.lost % self.drop == 0

    def connect(self, number: int, node: int) -> Watched:
        peer = Watched(self.cluster.labs[node], number, self.log)
        assert isinstance(peer.session, Session)
        peer.open()
        self.all.append(peer)
        self.clients[number] = peer
        return peer

    def send(self, sender: int, recipient: int, count: int) -> None:
        peer = self.clients[sender]
        if peer.over or peer.session.unmask is None:
            return
        for nonce in peer.send_many(identity(recipient).id, count):
            self.sent[nonce] = (peer, recipient)

    def move(self, number: int, node: int, before: str) -> None:
        """Let a client come to another node, after its old connection died, or it took leave, or with both open."""
        old = self.clients[number]
        if before == "die":
            old.transport.die()
        elif before == "close" and not old.over:
            old.close()
        self.connect(number, node)

    def settle(self) -> None:
        self.drop = 0
        self.cluster.medium.delay = 0.0
        self.cluster.medium.heal()
        for bus in self.cluster.buses:
            if not bus.up:
                bus.restore()
        self.cluster.advance(15.0)

    # --- What must be so ---------------------------------------------------------------------------------------------

    def check(self, *, given_up: bool) -> None:
        delivered: Counter[bytes] = Counter()
        nacked: Counter[bytes] = Counter()
        last: dict[tuple[Watched, int], int] = {}
        for peer, body in self.log:
            if isinstance(body, PeerFrame):
                nonce = body.packet[:24]
                sender, recipient = self.sent[nonce]
                assert recipient == peer.number
                assert body.sender_id == sender.id
                delivered[nonce] += 1
                number = int.from_bytes(nonce, "big")
                assert last.get((sender, recipient), 0) < number, "overtaken"
                last[sender, recipient] = number
            elif isinstance(body, c.RecipientOffline):
                nacked[body.nonce] += 1
                assert self.sent[body.nonce][0].number == peer.number
        assert all(count == 1 for count in delivered.values()), "doubled"
        assert all(count == 1 for count in nacked.values()), "answered twice"
        for nonce, (sender, _) in self.sent.items():
            if not sender.over:
                assert delivered[nonce] + nacked[nonce] >= 1, "lost in silence"
        if not given_up:
            assert not set(delivered) & set(nacked), "arrived, and answered as if not"
        for number in range(CLIENTS):
            alive = [peer for peer in self.all if peer.number == number and not peer.over]
            assert len(self.cluster.sessions(number)) == len(alive) <= 1
            # Of two that ask at once at two nodes either may be the one that stays.
            assert alive or self.clients[number].over
        told: dict[bytes, bool] = {}
        for peer, body in self.log:
            if peer is self.watcher and isinstance(body, c.PeerOnline | c.PeerOffline):
                told |= dict.fromkeys(body.x_pubs, isinstance(body, c.PeerOnline))
        for number in range(CLIENTS):
            assert told.get(identity(number).public.x_pub, False) == bool(self.cluster.sessions(number))
        self.cluster.check_settled()
        event(f"delivered {min(9, len(delivered) // 5) * 5}+")


clients = st.integers(0, CLIENTS - 1)
nodes = st.integers(0, NODES - 1)
leaves = st.sampled_from(["die", "close", "stay"])
STEPS: Final = st.one_of(
    st.tuples(st.just("send"), clients, clients, st.integers(1, 5)),
    st.tuples(st.just("send"), clients, clients, st.integers(1, 5)),
    st.tuples(st.just("move"), clients, nodes, leaves),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.004, 0.02, 0.3, 1.0])),
    st.tuples(st.just("delay"), st.sampled_from([0.0, 0.003, 0.02])),
)
LOSSES: Final = st.tuples(st.just("drop"), st.sampled_from([0, 7, 20]))
OUTAGES: Final = st.one_of(
    st.tuples(st.just("split"), nodes),
    st.tuples(st.just("heal")),
    st.tuples(st.just("cut"), nodes),
    st.tuples(st.just("restore"), nodes),
    st.tuples(st.just("outage")),
    st.tuples(st.just("end of outage")),
    st.tuples(st.just("wait"), st.sampled_from([2.0, 6.0])),
)


def play(history: History, steps: list[tuple[Any, ...]]) -> None:
    cluster = history.cluster
    for name, *what in steps:
        if name == "send":
            history.send(*what)
        elif name == "move":
            history.move(*what)
        elif name == "wait":
            cluster.advance(what[0])
        elif name == "delay":
            cluster.medium.delay = what[0]
        elif name == "drop":
            history.drop = what[0]
        elif name == "split":
            alone = cluster.buses[what[0]]
            cluster.medium.split([alone], [bus for bus in cluster.buses if bus is not alone])
        elif name == "heal":
            cluster.medium.heal()
        elif name == "outage":
            # NATS itself is gone; when it is back all nodes meet in one moment.
            for bus in cluster.buses:
                if bus.up:
                    bus.cut()
        elif name == "end of outage":
            for bus in cluster.buses:
                if not bus.up:
                    bus.restore()
        elif name == "cut":
            if cluster.buses[what[0]].up:
                cluster.buses[what[0]].cut()
        elif not cluster.buses[what[0]].up:
            cluster.buses[what[0]].restore()
    history.settle()


relaxed = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@relaxed
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_moves(steps: list[tuple[Any, ...]]) -> None:
    history = History()
    play(history, steps)
    history.check(given_up=False)


@relaxed
@given(st.lists(st.one_of(STEPS, STEPS, LOSSES), min_size=5, max_size=40))
def test_moves_and_lost_messages(steps: list[tuple[Any, ...]]) -> None:
    history = History()
    play(history, steps)
    history.check(given_up=any(node.nodes_lost for node in history.cluster.nodes))


@relaxed
@given(st.lists(st.one_of(STEPS, OUTAGES), min_size=5, max_size=40))
def test_moves_splits_and_outages(steps: list[tuple[Any, ...]]) -> None:
    history = History()
    play(history, steps)
    history.check(given_up=True)


RECIPIENT: Final = 0
PURSUIT: Final = st.one_of(
    st.tuples(st.just("send"), st.integers(1, CLIENTS - 1), st.just(RECIPIENT), st.integers(1, 5)),
    st.tuples(st.just("send"), st.integers(1, CLIENTS - 1), st.just(RECIPIENT), st.integers(1, 5)),
    st.tuples(st.just("move"), st.just(RECIPIENT), nodes, st.sampled_from(["close", "close", "die"])),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.004, 0.02, 0.06])),
)


@relaxed
@given(st.sampled_from([0.0, 0.003, 0.02]), st.lists(PURSUIT, min_size=10, max_size=60))
def test_one_who_moves_on_while_all_write_to_it(delay: float, steps: list[tuple[Any, ...]]) -> None:
    """From node to node, faster than is known where it is: what each sender sent comes in order, or is answered."""
    history = History()
    history.cluster.medium.delay = delay
    play(history, steps)
    history.check(given_up=False)


@relaxed
@given(st.lists(st.tuples(nodes, st.sampled_from([0.01, 0.3, 1.0])), min_size=2, max_size=7), st.booleans())
def test_newcomers_are_decided_in_the_order_in_which_they_came(line: list[tuple[int, float]], answers: bool) -> None:
    """As at one relay, whichever nodes they come to; one at each, for those of one node stand in line there."""
    cluster = Cluster(NODES, LIMITS)
    [holder] = cluster.connect(0, 1)
    holder.say(c.Subscribe.of([identity(WATCHER).public.x_pub]))
    cluster.run()
    holder.answers_pings = False
    newcomers, seen = [], set()
    for node, wait in line:
        if node not in seen:
            seen.add(node)
            newcomers.append(cluster.labs[node].peer(1).open())
            cluster.advance(wait)
    if answers and holder.pings:
        holder.answers_pings = True
        holder.transport.arrive(client_frame(holder.pings[-1], 0xA))
    cluster.advance(20.0)
    if answers and not holder.over:
        assert all(each.of(c.IdInUse) for each in newcomers)
    else:
        assert [each.over for each in newcomers] == [True] * (len(newcomers) - 1) + [False]
    assert len(cluster.sessions(1)) == 1
    cluster.check_settled()
