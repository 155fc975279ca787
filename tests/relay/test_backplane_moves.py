"""Clients who move from one node to another while something is lost: what their watchers are told in the end."""

from __future__ import annotations

from relay.reasons import Refusal
from tests.relay.cluster import Cluster
from tests.relay.harness import identity
from wire import commands as c


def test_who_came_here_before_their_node_was_given_up_stays_online() -> None:
    cluster = Cluster()
    [alice], [carol], [bob] = cluster.connect(0, 1), cluster.connect(2, 3), cluster.connect(1, 2)
    for watcher in (alice, carol):
        watcher.say(c.Subscribe.of([bob.public.x_pub]))
        cluster.run()
        watcher.news()
    cluster.buses[1].die()
    cluster.advance(1.0)
    cluster.connect(0, 2)
    cluster.advance(7.0)
    for watcher in (alice, carol):
        assert watcher.presence[-1] == (True, bob.public.x_pub)


def test_what_a_node_says_while_it_is_forgotten_counts() -> None:
    cluster = Cluster(2)
    [alice] = cluster.connect(0, 1)
    keys = [identity(number).public.x_pub for number in range(100, 300)]
    alice.say(c.Subscribe.of(keys))
    cluster.run()
    presence = cluster.nodes[0].presence
    [peer] = cluster.nodes[0].peers
    presence.answered(peer, bytes(4) + b"".join(keys))
    cluster.run()
    alice.news()
    forgetting = presence.node_gone(peer)
    next(forgetting)
    presence.answered(peer, bytes(4) + b"".join(keys))
    for _ in forgetting:
        pass
    cluster.advance(60.0)
    assert all(presence.online(x_pub) for x_pub in keys)
    last = {x_pub: online for online, x_pub in alice.presence}
    assert last == dict.fromkeys(keys, True)


def test_what_an_earlier_session_sent_is_answered_to_no_later_one() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    # It is asked where bob is, and there is no answer for a while.
    cluster.buses[1].pause()
    alice.send(bob)
    cluster.run()
    alice.transport.die()
    cluster.run()
    again = cluster.labs[0].peer(1).open()
    cluster.advance(3.0)
    assert again.of(c.HandshakeOk)
    assert not again.nacked
    assert cluster.labs[0].core.counters.refusals[Refusal.NODE_LOST] == 1


def test_who_comes_back_while_a_frame_is_sent_back_gets_no_later_one_before_it() -> None:
    cluster = Cluster()
    cluster.medium.delay = 0.02
    [alice], [bob] = cluster.connect(2, 1), cluster.connect(0, 2)
    sent = [alice.send(bob)]
    cluster.advance(1.0)
    assert bob.delivered == sent
    sent.append(alice.send(bob))
    bob.close()
    [moved] = cluster.connect(1, 2)
    cluster.advance(0.02)
    assert bob.over
    # The first is on its way back, since bob is not there; the second is not yet, and now he is.
    sent.append(alice.send(moved))
    moved.close()
    [back] = cluster.connect(0, 2)
    cluster.advance(1.0)
    assert moved.delivered + back.delivered == sent[1:]
    assert not alice.nacked
    sent.append(alice.send(back))
    cluster.advance(1.0)
    assert back.delivered[-1] == sent[-1]
    assert not any(node.parcels._bouncing.get(peer) for node in cluster.nodes for peer in node.peers)
