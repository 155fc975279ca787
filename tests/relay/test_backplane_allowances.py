"""What a client may spend is the same however many nodes it goes through, and no less for one who only moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from relay.backplane import shares
from relay.backplane.records import LACK, Kind
from relay.control import RATES
from relay.limits import Limits
from relay.reasons import Refusal
from tests.relay.cluster import Cluster
from tests.relay.harness import identity
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.relay.harness import Peer

NODES = 4
LIMITS = Limits(
    introductions_burst=12,
    introductions_per_second=0.001,
    introductions_pair_burst=4,
    introductions_pair_per_second=0.001,
    wakes_burst=12,
    wakes_per_second=0.001,
    wakes_pair_burst=4,
    wakes_pair_per_second=0.001,
    wakes_target_burst=6,
    wakes_target_per_second=0.001,
    registrations_burst=8,
    registrations_per_second=0.001,
)
NOTIFIER = identity(50)


def come(cluster: Cluster, at: int, number: int) -> Peer:
    """Return a client that was let in, whether it has a session elsewhere or not, and is not proven."""
    peer = cluster.labs[at].peer(number).open()
    cluster.run()
    assert peer.of(c.HandshakeOk)
    return peer


def leave_first(cluster: Cluster, peer: Peer | None) -> None:
    if peer is not None:
        peer.close()
        cluster.run()


def stay(_cluster: Cluster, peer: Peer | None) -> None:
    """Let the old session be ended by the new one."""
    if peer is not None:
        peer.answers_pings = False


def somebody_new(turn: int) -> bytes:
    return identity(100 + turn).id


def somebody(_turn: int) -> bytes:
    return identity(60).id


@pytest.mark.parametrize("go", [leave_first, stay])
@pytest.mark.parametrize(
    ("say", "got", "allowed"),
    [
        (lambda turn: c.Introduce(identity(60).id, f"A{turn}"), c.IntroFrom, 4),
        (lambda turn: c.Wake(somebody(turn), 1), c.Wake, 4),
        (lambda turn: c.Wake(somebody_new(turn), 1), c.Wake, 12),
        (lambda turn: c.PushRegister(1, b"token %d" % turn), c.PushForward, 8),
    ],
    ids=["introductions to one", "wakes to one", "wakes to many", "registrations"],
)
def test_who_goes_from_node_to_node_gets_what_one_gives(
    go: Callable[[Cluster, Peer | None], None], say: Callable[[int], c.ClientBody], got: type, allowed: int
) -> None:
    cluster = Cluster(NODES, LIMITS, NOTIFIER)
    cluster.medium.delay = 0.001
    [notifier] = cluster.labs[0].connect(NOTIFIER)
    [friend] = cluster.connect(1, 60)
    cluster.advance(1.0)
    peer = None
    for turn in range(3 * NODES):
        go(cluster, peer)
        peer = cluster.labs[turn % NODES].peer(1).open()
        cluster.advance(cluster.labs[0].core.limits.claim_wait + 1.0)
        assert peer.of(c.HandshakeOk)
        for number in range(10):
            peer.say(say(10 * turn + number))
        cluster.advance(0.1)
    assert len((friend if got is c.IntroFrom else notifier).of(got)) == allowed


def test_who_leaves_and_comes_in_one_moment() -> None:
    cluster = Cluster(NODES, LIMITS, NOTIFIER)
    [notifier] = cluster.labs[0].connect(NOTIFIER)
    peer = None
    for turn in range(3 * NODES):
        again = cluster.labs[turn % NODES].peer(1)
        if peer is not None:
            peer.transport.die()
        again.open()
        for number in range(10):
            again.message(again.command(c.Wake(somebody_new(10 * turn + number), 1)))
        cluster.run()
        assert again.of(c.HandshakeOk)
        peer = again
    assert len(notifier.of(c.Wake)) == 12


def test_what_is_missing_is_on_its_way_before_the_id_is_given_back() -> None:
    cluster = Cluster(2, LIMITS, NOTIFIER)
    cluster.labs[0].connect(NOTIFIER)
    peer = come(cluster, 1, 1)
    bus = cluster.buses[1]
    unsubscribe, published = bus.unsubscribe, []

    def listen(subject: str) -> None:
        published.append(bus.published - before)
        unsubscribe(subject)

    bus.unsubscribe = listen  # type: ignore[method-assign]
    peer.say(c.Wake(somebody(0), 1))
    cluster.run()
    before = bus.published
    peer.close()
    cluster.run()
    assert published == [1]


def test_who_says_all_with_the_handshake() -> None:
    """Nothing lies between the session and what is spent in it: no word can come in between."""
    cluster = Cluster(NODES, LIMITS, NOTIFIER)
    cluster.medium.delay = 0.01
    [notifier] = cluster.labs[0].connect(NOTIFIER)
    cluster.advance(1.0)
    peers = []
    for turn in range(3 * NODES):
        peer = cluster.labs[turn % NODES].peer(1).open()
        for number in range(10):
            peer.message(peer.command(c.Wake(somebody_new(10 * turn + number), 1)))
        peers.append(peer)
        peer.answers_pings = False
        cluster.advance(cluster.labs[0].core.limits.claim_wait + 1.0)
    assert all(peer.of(c.HandshakeOk) for peer in peers)
    assert len(notifier.of(c.Wake)) == 12


def test_what_was_earned_back_is_not_missing_elsewhere() -> None:
    cluster = Cluster(2, Limits(introductions_pair_burst=3, introductions_pair_per_second=0.1))
    [friend] = cluster.connect(1, 60)
    for turn in range(20):
        peer = come(cluster, turn % 2, 1)
        peer.say(c.Introduce(friend.id, "Alice"))
        cluster.run()
        peer.close()
        cluster.advance(11.0)
    assert len(friend.of(c.IntroFrom)) == 20
    assert cluster.labs[0].core.counters.refusals[Refusal.RATE] == 0


def test_a_client_that_moves_bears_no_more_introductions() -> None:
    cluster = Cluster(NODES, Limits(introductions_target_burst=6, introductions_target_per_second=0.001))
    got = 0
    for turn in range(NODES):
        friend = come(cluster, turn, 60)
        for number in range(5):
            come(cluster, number % NODES, 1000 + 10 * turn + number).say(c.Introduce(friend.id, "Spam"))
        cluster.run()
        got += len(friend.of(c.IntroFrom))
        friend.close()
        cluster.run()
    assert got == 6


def test_the_notifier_moves_and_targets_are_woken_no_more_often() -> None:
    cluster = Cluster(3, LIMITS, NOTIFIER)
    got = 0
    for turn in range(3):
        notifier = come(cluster, turn, 50) if turn else cluster.labs[0].connect(NOTIFIER)[0]
        for number in range(4):
            come(cluster, number % 3, 1000 + 10 * turn + number).say(c.Wake(identity(60).id, 1))
        cluster.run()
        got += len(notifier.of(c.Wake))
        notifier.close()
        cluster.run()
    assert got == 6


def test_what_is_told_names_nobody_and_is_told_once() -> None:
    cluster = Cluster(2, LIMITS, NOTIFIER)
    cluster.labs[0].connect(NOTIFIER)
    heard: list[bytes] = []
    record = cluster.nodes[1].record

    def listen(peer, kind, body):  # type: ignore[no-untyped-def]
        if kind == Kind.LACKS:
            heard.append(body)
        record(peer, kind, body)

    cluster.nodes[1].record = listen  # type: ignore[method-assign]
    peer = come(cluster, 0, 1)
    for target in range(3):
        peer.say(c.Wake(identity(70 + target).id, 1))
    cluster.run()
    assert not heard
    peer.close()
    cluster.run()
    names = [RATES[body[0]] for body in heard]
    assert sorted(names) == ["wakes", "wakes_pair"]
    [sender] = [body for body in heard if RATES[body[0]] == "wakes"]
    assert LACK.unpack(sender[1:])[1] == 3000
    for body in heard:
        for each in (peer.id, identity(70).id):
            assert each not in body
    assert not cluster.nodes[0].shares._spenders


def test_what_is_kept_of_spenders_is_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_SPENDERS", 9)
    monkeypatch.setattr(shares, "_SPENDER", 6)
    cluster = Cluster(2, Limits(wakes_pair_burst=1, wakes_pair_per_second=0.1, wakes_per_second=0.0), NOTIFIER)
    cluster.labs[0].connect(NOTIFIER)
    mine = cluster.nodes[1].shares
    peers = [come(cluster, 1, number) for number in range(3)]
    for number, peer in enumerate(peers):
        for target in range(8):
            peer.say(c.Wake(somebody_new(10 * number + target), 1))
        cluster.run()
        assert sum(map(len, mine._spenders.values())) == mine._spender_buckets == 6
        assert list(mine._spenders) == [peer.id]
    cluster.advance(60.0)
    assert not mine._spenders
    assert mine._spender_buckets == 0
    for peer in peers:
        assert not peer.over


def test_what_others_say_that_cannot_be() -> None:
    cluster = Cluster(2, LIMITS)
    node = cluster.nodes[0]
    [peer] = node.peers
    for body in (b"", b"\xff", bytes((len(RATES),)) + bytes(20), b"\0" + bytes(19)):
        node.record(peer, Kind.LACKS, body)
    rates = cluster.labs[0].core.control.rates.values()
    assert not any(len(buckets) for buckets in rates)
    # The most that can be said is a debt of one burst.
    node.record(peer, Kind.LACKS, b"\0" + LACK.pack(bytes(16), 0xFFFFFFFF))
    assert cluster.labs[0].core.control.rates[RATES[0]].missing(bytes(16), node.clock()) == 24.0
