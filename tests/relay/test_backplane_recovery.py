"""A sender whose frames were refused while a recipient could not be reached is told when to send again."""

from __future__ import annotations

from tests.relay.cluster import Cluster
from tests.relay.harness import identity
from wire import commands as c


def test_who_was_refused_because_nobody_could_find_the_recipient_is_told_when_it_is_found_again() -> None:
    """The node that has the id is cut off for a moment: too short to be given up, so presence says nothing of it."""
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    alice.news()
    cluster.medium.split([cluster.buses[1]], [cluster.buses[0], cluster.buses[2]])
    # It was never asked for: the question goes out now, and there is nobody who would answer it.
    nonce = alice.send(bob)
    cluster.run()
    assert alice.nacked == [nonce]
    cluster.advance(1.0)
    cluster.medium.heal()
    cluster.advance(3.0)
    assert cluster.nodes[0].nodes_lost == 0
    assert (False, bob.public.x_pub) not in alice.presence
    assert alice.presence[-1:] == [(True, bob.public.x_pub)]
    nonce = alice.send(bob)
    cluster.run()
    assert bob.delivered == [nonce]
    alice.news()
    cluster.advance(3.0)
    assert not alice.presence


def test_who_sends_to_somebody_that_is_offline_is_told_nothing_more() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub, identity(3).public.x_pub]))
    cluster.run()
    bob.transport.die()
    cluster.run()
    alice.news()
    for target in (bob.id, identity(3).id, identity(4).id):
        alice.send(target)
    cluster.run()
    assert len(alice.nacked) == 3
    cluster.connect(2, 2, 3)
    cluster.advance(3.0)
    assert alice.presence == [(True, bob.public.x_pub), (True, identity(3).public.x_pub)]


def test_of_two_keys_with_one_id_each_counts() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    presence = cluster.nodes[0].presence
    assert not presence.said_online(bob.id)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    assert presence.said_online(bob.id)
    [peer] = [peer for peer in cluster.nodes[0].peers if peer.number == cluster.nodes[1].number]
    twin = bob.id + bytes(24)
    alice.say(c.Subscribe.of([twin]))
    cluster.run()
    presence.came(peer, twin)
    presence.went(peer, twin)
    assert presence.said_online(bob.id)
    presence.came(peer, twin)
    presence.forget_unwatched([bob.public.x_pub])
    assert presence.said_online(bob.id)
    presence.forget_unwatched([twin, bob.public.x_pub])
    assert not presence.said_online(bob.id)


def test_whom_somebody_begins_to_watch_while_the_bus_is_lost_is_asked_for_when_it_is_back() -> None:
    """Both nodes go on with the link that they have: neither begins anew, which would bring all that is watched."""
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    cluster.buses[0].cut()
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.advance(1.0)
    assert alice.presence == []
    cluster.buses[0].restore()
    cluster.advance(3.0)
    assert cluster.nodes[0].nodes_lost == cluster.nodes[1].nodes_lost == 0
    assert alice.presence == [(True, bob.public.x_pub)]
    bob.transport.die()
    cluster.advance(1.0)
    assert alice.presence[1:] == [(False, bob.public.x_pub)]


def test_whom_somebody_begins_to_watch_while_one_link_is_broken_is_asked_for_when_it_is_whole() -> None:
    cluster = Cluster()
    [alice], [bob], [carol] = cluster.connect(0, 1), cluster.connect(1, 2), cluster.connect(2, 3)
    [peer] = [peer for peer in cluster.nodes[0].peers if peer.number == cluster.nodes[1].number]
    peer.suspect(cluster.loop.now)
    assert not peer.up
    alice.say(c.Subscribe.of([bob.public.x_pub, carol.public.x_pub]))
    cluster.advance(3.0)
    assert sorted(alice.presence) == sorted([(True, bob.public.x_pub), (True, carol.public.x_pub)])
