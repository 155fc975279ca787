"""One session per id, presence, and commands, over several nodes."""

from __future__ import annotations

import pytest

from keys.identity import Identity, PublicIdentity
from relay.limits import Limits
from relay.reasons import Refusal
from tests.relay.cluster import Cluster
from tests.relay.harness import Peer, identity, upgrade
from wire import commands as c


def prove(peer: Peer) -> None:
    """Answer the challenge that `connect` took."""
    peer.say(c.Subscribe.of([identity(99).public.x_pub]))


def test_an_unproven_holder_elsewhere_is_put_out() -> None:
    cluster = Cluster()
    [alice] = cluster.connect(0, 1)
    [again] = cluster.connect(1, 1)
    assert alice.over
    assert alice.close_code == 1008
    assert cluster.sessions(1) == [1]
    assert not again.over


def test_a_proven_holder_that_answers_keeps_its_id() -> None:
    cluster = Cluster()
    [alice] = cluster.connect(0, 1)
    prove(alice)
    cluster.run()
    newcomer = cluster.labs[2].peer(1).open()
    cluster.advance(0.5)
    assert len(alice.pings) == 1
    assert newcomer.of(c.IdInUse)
    assert cluster.sessions(1) == [0]
    # The id is not kept by whoever was refused.
    alice.transport.die()
    cluster.connect(1, 1)
    assert cluster.sessions(1) == [1]


def test_a_proven_holder_that_is_silent_is_put_out() -> None:
    cluster = Cluster()
    [alice] = cluster.connect(0, 1)
    prove(alice)
    cluster.run()
    alice.answers_pings = False
    newcomer = cluster.labs[2].peer(1).open()
    cluster.advance(1.0)
    assert cluster.sessions(1) == [0]
    cluster.advance(2.0)
    assert cluster.sessions(1) == [2]
    assert newcomer.of(c.HandshakeOk)
    assert alice.over


def test_other_keys_are_refused() -> None:
    cluster = Cluster()
    cluster.connect(0, 1)
    seeds = identity(1).seeds
    newcomer = cluster.labs[1].peer(Identity(seeds[0], b"\x55" * 32)).open()
    cluster.run()
    assert newcomer.of(c.IdInUse)
    assert cluster.sessions(1) == [0]


def test_newcomers_at_two_nodes_at_once() -> None:
    cluster = Cluster()
    cluster.medium.delay = 0.01
    one, two = cluster.labs[0].peer(1).open(), cluster.labs[1].peer(1).open()
    cluster.advance(3.0)
    assert len(cluster.sessions(1)) == 1
    assert [one.over, two.over].count(True) == 1


def test_a_holder_that_is_far_away_counts_before_a_claim_that_is_near() -> None:
    cluster = Cluster()
    [alice] = cluster.connect(2, 1)
    prove(alice)
    cluster.run()
    alice.answers_pings = False
    # Two newcomers, whose nodes hear each other before they hear the holder's.
    carry = cluster.medium.carry

    def far(source: object, to: object, call: object, *args: object) -> None:
        if source is cluster.buses[2] or to is cluster.buses[2]:
            cluster.loop.call_later(0.01, carry, source, to, call, *args)
        else:
            carry(source, to, call, *args)  # type: ignore[arg-type]

    cluster.medium.carry = far  # type: ignore[method-assign]
    one, two = cluster.labs[1].peer(1).open(), cluster.labs[0].peer(1).open()
    cluster.advance(1.0)
    assert not one.of(c.HandshakeOk)
    assert not two.of(c.HandshakeOk)
    assert len(alice.pings) == 1
    cluster.advance(8.0)
    assert len(cluster.sessions(1)) == 1
    assert alice.over


def test_a_newcomer_that_leaves_while_it_waits() -> None:
    cluster = Cluster()
    [alice] = cluster.connect(0, 1)
    prove(alice)
    cluster.run()
    alice.answers_pings = False
    newcomer = cluster.labs[1].peer(1).open()
    cluster.advance(0.5)
    newcomer.transport.die()
    cluster.advance(3.0)
    # Nobody else wants its id, so its silence is the pulse's affair.
    assert cluster.sessions(1) == [0]
    assert cluster.nodes[1].claims.asking == 0
    cluster.advance(3.0)
    cluster.check_settled()


def test_a_handshake_is_accepted_once_in_the_whole_cluster() -> None:
    cluster = Cluster()
    alice = cluster.labs[0].peer(1)
    alice.transport.arrive(upgrade())
    hello = alice.wire.hello()
    alice.message(hello)
    cluster.run()
    assert alice.of(c.HandshakeOk)
    thief = cluster.labs[2].peer(1)
    thief.transport.arrive(upgrade())
    thief.message(hello)
    cluster.run()
    assert thief.over
    assert thief.close_code == 1008
    assert not alice.over
    alice.transport.die()
    cluster.advance(1.0)
    again = cluster.labs[1].peer(1)
    again.transport.arrive(upgrade())
    again.message(hello)
    cluster.run()
    assert again.over


def test_a_handshake_that_is_repeated_before_the_other_node_can_know_of_it() -> None:
    cluster = Cluster()
    cluster.medium.delay = 0.01
    alice = cluster.labs[0].peer(1)
    alice.transport.arrive(upgrade())
    hello = alice.wire.hello()
    alice.message(hello)
    cluster.run()
    assert alice.of(c.HandshakeOk)
    thief = cluster.labs[2].peer(1)
    thief.transport.arrive(upgrade())
    thief.message(hello)
    cluster.advance(1.0)
    assert thief.close_code == 1008
    assert not thief.of(c.IdInUse)
    assert not alice.over
    assert cluster.sessions(1) == [0]
    # An honest newcomer is judged as ever.
    again = cluster.labs[2].peer(1).open()
    cluster.advance(1.0)
    assert again.of(c.HandshakeOk)
    assert cluster.sessions(1) == [2]


def test_a_split_leaves_one_session_after_it_heals() -> None:
    cluster = Cluster()
    [alice] = cluster.connect(0, 1)
    cluster.advance(10.0)
    cluster.medium.split(cluster.buses[:1], cluster.buses[1:])
    cluster.advance(20.0)
    assert not cluster.nodes[0].peers
    [again] = cluster.connect(2, 1)
    cluster.advance(20.0)
    assert cluster.sessions(1) == [0, 2]
    cluster.medium.heal()
    cluster.advance(10.0)
    # The later one: that is where its client is now.
    assert cluster.sessions(1) == [2]
    assert alice.close_code == 1008
    assert not again.over


@pytest.mark.parametrize("seconds", [1.5, 4.0])
@pytest.mark.parametrize("second", [0, 2])
def test_a_short_split_too(seconds: float, second: int) -> None:
    cluster = Cluster()
    first = 2 - second
    cluster.connect(first, 1)
    cluster.advance(30.0)
    cluster.medium.split([cluster.buses[0]], cluster.buses[1:])
    cluster.advance(0.5)
    cluster.connect(second, 1)
    cluster.advance(seconds)
    assert cluster.sessions(1) == [0, 2]
    cluster.medium.heal()
    cluster.advance(10.0)
    assert cluster.sessions(1) == [second]


def test_claims_without_the_bus_are_settled_when_it_is_back() -> None:
    cluster = Cluster(2)
    cluster.connect(0, 1)
    cluster.advance(30.0)
    cluster.buses[1].cut()
    cluster.connect(1, 1)
    assert cluster.sessions(1) == [0, 1]
    cluster.advance(2.0)
    cluster.buses[1].restore()
    cluster.advance(5.0)
    assert cluster.sessions(1) == [1]


# --- Presence ---------------------------------------------------------------------------------------------------------


def test_presence_at_subscribe_and_after() -> None:
    cluster = Cluster()
    [alice], [bob], [carol] = cluster.connect(0, 1), cluster.connect(1, 2), cluster.connect(2, 3)
    alice.say(c.Subscribe.of([each.public.x_pub for each in (bob, carol)] + [identity(4).public.x_pub]))
    cluster.run()
    [told] = alice.of(c.PeerOnline)
    assert set(told.x_pubs) == {bob.public.x_pub, carol.public.x_pub}
    alice.news()
    [dave] = cluster.connect(1, 4)
    assert alice.presence == [(True, dave.public.x_pub)]
    bob.transport.die()
    cluster.run()
    assert alice.presence[1:] == [(False, bob.public.x_pub)]
    [late] = cluster.connect(0, 5)
    late.say(c.Subscribe.of([dave.public.x_pub]))
    cluster.run()
    assert late.presence == [(True, dave.public.x_pub)]


def test_a_session_that_is_replaced_elsewhere_is_told_as_both() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    alice.news()
    cluster.connect(2, 2)
    cluster.run()
    assert alice.presence == [(False, bob.public.x_pub), (True, bob.public.x_pub)]


def test_nodes_that_die_take_their_clients_with_them() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    alice.news()
    cluster.buses[1].die()
    cluster.advance(7.0)
    assert alice.presence == [(False, bob.public.x_pub)]
    cluster.connect(2, 2)
    assert alice.presence[1:] == [(True, bob.public.x_pub)]


def test_a_node_that_leaves_is_gone_at_once() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    cluster.nodes[1].leave()
    cluster.run()
    assert alice.presence[1:] == [(False, bob.public.x_pub)]
    assert len(cluster.nodes[0].peers) == 1


def test_the_same_id_is_not_the_same_key() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub[:8] + bytes(23) + b"\x01"]))
    cluster.run()
    assert not alice.presence


def test_nothing_is_kept_of_keys_that_nobody_watches() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    assert len(cluster.nodes[0].presence) == 1
    alice.transport.die()
    cluster.run()
    assert len(cluster.nodes[0].presence) == 0


def test_a_node_that_joins_late_asks_for_what_is_watched() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    cluster.medium.split(cluster.buses[:1], cluster.buses[1:])
    cluster.advance(7.0)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    assert not alice.presence
    cluster.medium.heal()
    cluster.advance(4.0)
    assert alice.presence == [(True, bob.public.x_pub)]


# --- Commands ---------------------------------------------------------------------------------------------------------


def test_introduction() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Introduce(bob.id, "Alice"))
    alice.say(c.Introduce(b"12345678", "Alice"))
    cluster.run()
    assert bob.of(c.IntroFrom) == [c.IntroFrom(alice.public.x_pub, alice.public.ed_pub, "Alice")]
    assert not alice.nacked
    assert cluster.labs[0].core.counters.refusals[Refusal.OFFLINE] == 1


@pytest.mark.parametrize("notifier_at", [0, 1, 2])
def test_wakes_and_registrations_find_the_notifier(notifier_at: int) -> None:
    notifier_identity = identity(50)
    cluster = Cluster(3, Limits(), notifier_identity)
    [notifier] = cluster.labs[notifier_at].connect(notifier_identity)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.PushRegister(1, b"token"))
    alice.say(c.Wake(identity(9).id, 0))
    alice.say(c.Wake(bob.id, 1))
    alice.say(c.Wake(bob.id, 0))
    cluster.run()
    assert notifier.of(c.PushForward) == [c.PushForward(alice.id, 1, b"token")]
    wakes = notifier.of(c.Wake)
    assert sorted((wake.target_id, wake.type) for wake in wakes) == sorted([(identity(9).id, 0), (bob.id, 1)])
    # Somebody active needs no message wake, wherever they are.
    assert cluster.labs[1].core.counters.refusals[Refusal.TARGET_AWAKE] == 1


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_handshakes_of_one_address_are_counted_together() -> None:
    limits = Limits(handshakes_burst=40, handshakes_per_second=0.001)
    cluster = Cluster(3, limits)
    admitted = 0
    for number in range(120):
        peer = cluster.labs[number % 3].peer(100 + number).open()
        cluster.run()
        admitted += bool(peer.of(c.HandshakeOk))
    assert 40 <= admitted <= 60


def test_connections_of_one_address_are_counted_together() -> None:
    limits = Limits(connections_per_address=12)
    cluster = Cluster(3, limits)
    peers = []
    for number in range(36):
        peers.append(cluster.labs[number % 3].peer(100 + number).open())
        cluster.run()
    open_now = sum(bool(peer.of(c.HandshakeOk)) for peer in peers)
    assert 12 <= open_now <= 18
    for peer in peers:
        peer.transport.die()
    cluster.run()
    assert all(not lab.core.door.tally._elsewhere for lab in cluster.labs)


def test_another_relay_with_the_same_secret_is_refused() -> None:
    cluster = Cluster(1, notifier=identity(50))
    cluster._notifier = identity(51)
    cluster.add()
    cluster.run()
    assert not any(peer.up for node in cluster.nodes for peer in node.peers)
    assert cluster.nodes[0].refused["other_relay"]


def test_public_identity_is_checked() -> None:
    cluster = Cluster(2)
    [peer] = cluster.nodes[0].peers
    cluster.nodes[0].claims.claimed(peer, bytes(12) + bytes(64))
    assert cluster.nodes[0].refused["malformed"] == 1
    assert isinstance(identity(1).public, PublicIdentity)
