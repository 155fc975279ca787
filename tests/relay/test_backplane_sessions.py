"""Sessions of one id that began apart, watchers who begin at one moment, and nodes that were away themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from relay.backplane import nonces, shares
from relay.backplane.holdings import SAME_TIME, Held
from relay.backplane.records import Kind
from relay.limits import Limits
from tests.relay.cluster import Cluster
from tests.relay.harness import client_frame, identity, upgrade
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.relay.cluster import MemoryBus
    from tests.relay.harness import Peer

PONG = 0xA


# --- Two, three sessions of one id -----------------------------------------------------------------------------------


def separate(cluster: Cluster) -> None:
    cluster.medium.split(*([bus] for bus in cluster.buses))
    cluster.advance(7.0)


@pytest.mark.parametrize("delay", [0.0, 0.02])
@pytest.mark.parametrize("gap", [0.0, 1.0, 2.0, 2.9, 3.1, 6.0])
@pytest.mark.parametrize("count", [3, 4])
def test_of_sessions_that_began_without_the_bus_one_stays(count: int, gap: float, delay: float) -> None:
    """Also where the first is as old as the second, the second as the third, and the first is older than the third."""
    cluster = Cluster(count)
    cluster.medium.delay = delay
    for bus in cluster.buses:
        bus.cut()
    cluster.advance(7.0)
    for at in range(count):
        cluster.connect(at, 1)
        cluster.advance(gap)
    # They all meet in one moment, and each pair judges by itself.
    for bus in cluster.buses:
        bus.restore()
    cluster.advance(15.0)
    assert len(cluster.sessions(1)) == 1
    cluster.check_settled()


def test_who_is_judged_twice_does_not_end_the_other_and_then_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what was measured on two ways, just below and just above what counts as one time."""
    cluster = Cluster(2)
    separate(cluster)
    cluster.connect(0, 1)
    cluster.advance(3.0)
    cluster.connect(1, 1)
    theirs = cluster.nodes[1].holdings._held[identity(1).id]
    # Of what they say to each other in that moment nothing counts yet.
    cluster.medium.heal()
    peer = cluster.nodes[0].peer(cluster.nodes[1].number)
    for node in cluster.nodes:
        monkeypatch.setattr(node.holdings, "told_of", lambda _peer, _body: None)
    while not peer.up:
        cluster.advance(0.25)
    mine = cluster.nodes[0].holdings
    ours = cluster.loop.now - (mine._held[identity(1).id].admitted or 0.0)
    for late in (-0.01, 0.01):
        mine._two(peer, identity(1).id, theirs.serial, ours - SAME_TIME - late)
    cluster.advance(5.0)
    assert len(cluster.sessions(1)) == 1


def test_old_sessions_are_passed_over_in_slices() -> None:
    """A link that was silent for a moment: all are looked at, and none is young enough to be told of."""
    cluster = Cluster(2)
    node = cluster.nodes[0]
    [peer] = node.peers
    [alice] = cluster.connect(0, 1)
    old = Held(alice.session, "", 1, 0.0)
    old.admitted = -1000.0
    for number in range(10_000):
        node.holdings._held[number.to_bytes(8, "big")] = old
    assert sum(1 for _ in node.holdings.tell(peer, 10.0)) >= 5
    node.holdings._held = {alice.id: node.holdings._held[alice.id]}


# --- Replayed handshakes ---------------------------------------------------------------------------------------------


def test_a_replay_at_a_node_that_did_not_know_it_is_not_held_against_the_next_handshake() -> None:
    cluster = Cluster(2)
    [alice] = [cluster.labs[0].peer(1)]
    alice.transport.arrive(upgrade())
    hello = alice.wire.hello()
    alice.message(hello)
    cluster.run()
    alice.close()
    cluster.run()
    # As at a node that listens before it has all, or heard of it a moment too late.
    cluster.labs[1].core.handshakes_seen._held.clear()
    thief = cluster.labs[1].peer(999)
    thief.transport.arrive(upgrade())
    thief.message(hello)
    cluster.run()
    assert cluster.sessions(1) == [1]
    thief.transport.die()
    cluster.run()
    # Alice has a session where it is known, loses it, and comes to the other node with a handshake of her own.
    [there] = cluster.connect(0, 1)
    there.answers_pings = False
    [again] = [cluster.labs[1].peer(1).open()]
    cluster.advance(5.0)
    assert again.of(c.HandshakeOk)
    assert cluster.sessions(1) == [1]


@pytest.mark.parametrize("keys", [100, 200, 300, 400, 500, 700])
def test_a_newcomer_has_what_a_far_node_took_while_a_near_one_gave_it_all(
    keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nonces, "SLICE", 32)
    monkeypatch.setattr(nonces, "AHEAD", 2)
    cluster = Cluster(2)
    far = cluster.buses[0]
    near = cluster.labs[1].core.handshakes_seen
    for key in range(keys):
        near.first_time(key.to_bytes(32, "big"), bytes(24))
    cluster.run()
    carry = cluster.medium.carry

    def uneven(source: MemoryBus, to: MemoryBus, call: Callable[..., None], *args: object) -> None:
        cluster.loop.call_later(0.1 if far in (source, to) else 0.001, carry, source, to, call, *args)

    monkeypatch.setattr(cluster.medium, "carry", uneven)
    # The newcomer is the one who greets: so its link is up for as long as a word takes before it is told anything.
    unheard = iter(range(1))
    cluster.medium.lose = lambda _source, to, _data: to is far and next(unheard, None) is not None
    memory = cluster.labs[0].core.handshakes_seen
    new = missing = None
    for count in range(200):
        if count == 50:
            new = cluster.add()
            cluster.nodes[0]._announce()
        memory.first_time((1000 + count).to_bytes(32, "big"), bytes(24))
        cluster.advance(0.01)
        linked = [] if new is None else [peer.up for peer in new.peers]
        if new is not None and missing is None and linked == [True, True] and new.shares.nonces.whole:
            # It listens from here on: only what is on its way in this moment is still to come.
            missing = count - new.shares.nonces._have[cluster.nodes[0].number]
    assert missing is not None
    assert missing < 15
    cluster.advance(5.0)
    assert new is not None
    assert len(new.core.handshakes_seen) == keys + 200
    # And it knows that it has: what that one takes from now on is in order.
    [other] = [peer for peer in new.peers if peer.number == cluster.nodes[0].number]
    assert new.shares.nonces._have[other.number] == 200


# --- Who watches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comes", [False, True])
def test_who_was_told_hears_of_changes_while_another_still_asks(comes: bool) -> None:
    cluster = Cluster()
    [first], [second] = cluster.connect(0, 1), cluster.connect(0, 2)
    [bob] = [None] if comes else cluster.connect(1, 3)
    x_pub = identity(3).public.x_pub
    cluster.buses[2].pause()
    first.say(c.Subscribe.of([x_pub]))
    cluster.advance(0.9)
    second.say(c.Subscribe.of([x_pub]))
    cluster.advance(0.3)
    # The first was told; for the second the slow node is still waited for.
    assert first.presence == ([] if comes else [(True, x_pub)])
    if bob is None:
        cluster.connect(1, 3)
    else:
        bob.close()
    cluster.advance(0.2)
    cluster.buses[2].read_on()
    cluster.advance(60.0)
    assert first.presence[-1] == (comes, x_pub)
    assert not second.presence or second.presence[-1] == (comes, x_pub)
    assert not cluster.nodes[0].presence._asking


# --- A node that was away itself -------------------------------------------------------------------------------------


def stop(cluster: Cluster, at: int) -> None:
    """Let a process stand still: it reads nothing, and nothing of it is called that its own pause did not make due."""
    timer = cluster.nodes[at]._beat_timer
    assert timer is not None
    timer.cancel()
    cluster.buses[at].pause()


def go_on(cluster: Cluster, at: int) -> None:
    cluster.buses[at].read_on()
    cluster.nodes[at]._beat()


def with_a_proven_holder() -> tuple[Cluster, Peer]:
    """Return two nodes, at the first of which a client has proven by a command that its session is its own."""
    cluster = Cluster(2)
    [alice] = cluster.connect(0, 1)
    alice.say(c.Subscribe.of([identity(99).public.x_pub]))
    cluster.run()
    return cluster, alice


def test_a_node_that_stood_still_does_not_take_the_holders_node_for_hung() -> None:
    cluster, alice = with_a_proven_holder()
    alice.answers_pings = False
    newcomer = cluster.labs[1].peer(1).open()
    cluster.advance(1.5)
    alice.transport.arrive(client_frame(alice.pings[-1], PONG))
    stop(cluster, 1)
    # The answer is there, and unread; what was to be looked at meanwhile is due.
    cluster.advance(3.0)
    assert not newcomer.of(c.HandshakeOk)
    go_on(cluster, 1)
    cluster.advance(6.0)
    assert newcomer.of(c.IdInUse)
    assert cluster.sessions(1) == [0]
    cluster.check_settled()


def test_a_question_that_ran_out_while_its_node_stood_still_is_asked_again() -> None:
    cluster, _ = with_a_proven_holder()
    cluster.medium.delay = 0.01
    newcomer = cluster.labs[1].peer(1).open()
    stop(cluster, 1)
    cluster.advance(2.5)
    assert not newcomer.of(c.HandshakeOk)
    go_on(cluster, 1)
    cluster.advance(6.0)
    assert newcomer.of(c.IdInUse)
    assert cluster.sessions(1) == [0]
    cluster.check_settled()


# --- Many in one step ------------------------------------------------------------------------------------------------


def longest(steps: Iterator[None], done: Callable[[], int]) -> int:
    """Return the most that is done in one of some steps."""
    most, before = 0, done()
    for _ in steps:
        most, before = max(most, done() - before), done()
    return max(most, done() - before)


def test_small_amounts_are_forgotten_in_slices() -> None:
    cluster = Cluster(2)
    mine = cluster.nodes[0].shares
    for number in range(10_000):
        mine._untold[0, number.to_bytes(16, "big")] = 1
    assert longest(mine._expire_steps(), lambda: 10_000 - len(mine._untold)) <= 1024
    assert not mine._untold


def test_a_new_node_is_told_of_connections_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(2)
    node = cluster.nodes[0]
    [peer] = node.peers
    heard: list[int] = []
    other = cluster.nodes[1]
    record = other.record

    def listen(peer, kind, body):  # type: ignore[no-untyped-def]
        if kind == Kind.PLACES:
            heard.append(len(body) // 20)
        record(peer, kind, body)

    monkeypatch.setattr(other, "record", listen)
    for number in range(5000):
        node.shares._places[number.to_bytes(16, "big")] = 7
    node.shares.established(peer)
    cluster.run()
    assert sum(heard) == 5000
    assert max(heard) <= 1024
    assert len(heard) < 10
    assert len(cluster.labs[1].core.door.tally._elsewhere) == 5000


# --- Allowances ------------------------------------------------------------------------------------------------------


def test_who_names_many_targets_does_not_have_its_own_spending_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused for the sender's sake still spends from a pair's bucket, and only so many are kept."""
    monkeypatch.setattr(shares, "_SPENDER", 6)
    cluster = Cluster(3, Limits(introductions_burst=3, introductions_per_second=0.001))
    friends = cluster.connect(0, *range(60, 64))
    for at in range(3):
        peer = cluster.labs[at].peer(1).open()
        cluster.advance(0.2)
        assert peer.of(c.HandshakeOk)
        for friend in friends:
            peer.say(c.Introduce(friend.id, "Alice"))
        for number in range(100, 120):
            peer.say(c.Introduce(identity(number).id, "Alice"))
        cluster.advance(0.2)
        spent = cluster.nodes[at].shares
        assert spent._spender_buckets == sum(map(len, spent._spenders.values()))
        assert len(spent._spenders[peer.id]) <= 6
        peer.close()
        cluster.advance(0.2)
    assert sum(len(friend.of(c.IntroFrom)) for friend in friends) == 3
