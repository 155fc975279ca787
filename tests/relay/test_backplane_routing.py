"""Frames between clients of different nodes."""

from __future__ import annotations

import pytest

from relay.backplane.link import CHUNK
from relay.backplane.node import BACKLOG
from relay.backplane.outgoing import WINDOW
from relay.limits import Limits
from relay.reasons import Refusal
from tests.relay.cluster import Cluster
from tests.relay.harness import identity
from wire import commands as c
from wire.limits import MAX_FRAME
from wire.session import PeerFrame


def test_two_talk() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    sent = alice.send(bob)
    cluster.run()
    assert bob.delivered == [sent]
    assert [frame.sender_id for frame in bob.of(PeerFrame)] == [alice.id]
    back = bob.send(alice)
    cluster.run()
    assert alice.delivered == [back]
    cluster.advance(1.0)
    cluster.check_settled()


def test_nobody_has_the_id() -> None:
    cluster = Cluster()
    [alice] = cluster.connect(0, 1)
    sent = alice.send(b"12345678")
    cluster.run()
    assert alice.nacked == [sent]
    assert cluster.labs[0].core.counters.refusals[Refusal.OFFLINE] == 1


def test_order_while_the_first_lookup_is_under_way() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    cluster.medium.delay = 0.01
    sent = [alice.send(bob) for _ in range(3)]
    cluster.run()
    assert not bob.delivered
    sent += alice.send_many(bob, 5)
    cluster.advance(0.011)
    sent += alice.send_many(bob, 5)
    cluster.advance(1.0)
    assert bob.delivered == sent
    assert cluster.nodes[0].router.lookups == 1


@pytest.mark.parametrize("size", [112, 70_000, MAX_FRAME])
def test_sizes(size: int) -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    sent = [alice.send(bob, size) for _ in range(3)]
    cluster.advance(1.0)
    assert bob.delivered == sent


def test_frames_of_one_turn_leave_in_one_message() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.send(bob)
    cluster.run()
    before = cluster.buses[0].published
    alice.send_many(bob, 50)
    cluster.run()
    assert len(bob.delivered) == 51
    assert cluster.buses[0].published - before == 1


def test_a_recipient_that_left_is_looked_for_once_more() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    sent = [alice.send(bob)]
    cluster.run()
    bob.transport.die()
    cluster.run()
    [again] = cluster.connect(2, 2)
    sent += alice.send_many(again, 3)
    cluster.advance(1.0)
    assert bob.delivered + again.delivered == sent
    again.transport.die()
    cluster.run()
    lost = alice.send(again)
    cluster.advance(1.0)
    assert alice.nacked == [lost]


def test_a_recipient_that_moves_to_its_senders_node_and_back() -> None:
    cluster = Cluster()
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    cluster.medium.delay = 0.01
    sent = alice.send_many(bob, 3)
    cluster.advance(0.5)
    places = [bob]
    for node in (0, 1, 2, 0):
        sent += alice.send_many(bob, 2)
        places[-1].transport.die()
        sent += alice.send_many(bob, 2)
        newcomer = cluster.labs[node].peer(2).open()
        for _ in range(6):
            sent += alice.send_many(bob, 2)
            cluster.advance(0.004)
        cluster.advance(1.0)
        places.append(newcomer)
    got = [nonce for place in places for nonce in place.delivered]
    assert sorted(got + alice.nacked) == sorted(sent)
    assert got == [nonce for nonce in sent if nonce in set(got)]
    assert len(got) > len(sent) / 2
    cluster.check_settled()


def test_a_stalled_recipient_bounds_what_waits_and_tells_the_sender() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    alice.news()
    bob.stall()
    sent = [alice.send(bob, 500_000) for _ in range(20)]
    cluster.advance(2.0)
    assert alice.nacked
    bob.resume()
    cluster.advance(2.0)
    assert sorted(bob.delivered + alice.nacked) == sorted(sent)
    assert bob.delivered == [nonce for nonce in sent if nonce in set(bob.delivered)]
    # Only that makes it send again.
    assert (True, bob.public.x_pub) in alice.presence


def test_a_node_that_reads_nothing_is_bounded_at_the_sender() -> None:
    limits = Limits(queue_size=1 << 20, queue_total=32 << 20)
    cluster = Cluster(2, limits)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.send(bob)
    cluster.run()
    cluster.buses[1].pause()
    sent = [alice.send(bob, 200_000) for _ in range(40)]
    cluster.advance(1.0)
    [peer] = cluster.nodes[0].peers
    # More than what may wait for one recipient, but a part of what may wait for all; and the last is taken beyond that,
    # for its sender is not read from after it.
    assert peer.bound == limits.queue_total // BACKLOG
    assert limits.queue_size < peer.waiting <= peer.bound + 200_200
    refused = alice.nacked
    assert refused
    assert cluster.labs[0].core.counters.refusals[Refusal.NODE_FULL] == len(refused)
    # No more than a window of it lies in the buffers between.
    assert sum(len(args[1]) for _, args in cluster.buses[1].unread) < WINDOW + CHUNK
    cluster.buses[1].read_on()
    cluster.advance(3.0)
    assert sorted(bob.delivered[1:] + alice.nacked) == sorted(sent)
    cluster.check_settled()


def test_messages_that_are_lost_come_again() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    lost = 0

    def lose(*_: object) -> bool:
        nonlocal lost
        lost += 1
        return lost % 20 == 0

    cluster.medium.lose = lose
    sent = []
    for _ in range(100):
        sent += alice.send_many(bob, 2)
        sent += bob.send_many(alice, 2)
        cluster.advance(0.1)
    cluster.medium.lose = lambda *_: False
    cluster.advance(5.0)
    assert sorted(bob.delivered + alice.delivered + bob.nacked + alice.nacked) == sorted(sent)
    assert bob.delivered == sorted(bob.delivered)
    assert alice.delivered == sorted(alice.delivered)
    assert len(bob.delivered + alice.delivered) == len(sent)
    assert lost > 200
    cluster.check_settled()


def test_a_node_that_dies_is_given_up_and_its_frames_answered() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.send(bob)
    cluster.advance(0.1)
    cluster.buses[1].die()
    sent = alice.send_many(bob, 3)
    cluster.advance(7.0)
    assert alice.nacked == sent
    assert not cluster.nodes[0].peers
    assert cluster.nodes[0].nodes_lost == 1
    cluster.check_settled()


def test_without_the_bus_local_traffic_goes_on_and_remote_is_answered_at_once() -> None:
    cluster = Cluster(2)
    [alice, carol], [bob] = cluster.connect(0, 1, 3), cluster.connect(1, 2)
    alice.send(bob)
    cluster.run()
    cluster.buses[0].cut()
    assert cluster.nodes[0].degraded
    assert bool(cluster.labs[0].core.ready.losses)
    lost = alice.send(bob)
    unknown = alice.send(b"87654321")
    local = alice.send(carol)
    cluster.run()
    assert carol.delivered == [local]
    assert alice.nacked == [lost, unknown]
    cluster.buses[0].restore()
    cluster.advance(1.0)
    assert not cluster.labs[0].core.ready.losses
    after = alice.send(bob)
    cluster.advance(1.0)
    assert bob.delivered[-1] == after
    cluster.check_settled()


def test_what_nats_sees_names_nobody() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    alice.say(c.Introduce(bob.id, "Alice Liddell"))
    alice.send(bob)
    cluster.advance(1.0)
    assert bob.of(c.IntroFrom)
    for subject, data in cluster.medium.seen:
        for secret in (alice.id, bob.id, alice.public.x_pub, b"Liddell", identity(1).id.hex().encode()):
            assert secret not in data
            assert secret not in subject.encode()


def test_whoever_was_refused_for_want_of_the_bus_is_told_when_it_is_back() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    alice.news()
    cluster.buses[0].cut()
    lost = alice.send(bob)
    cluster.advance(1.0)
    assert alice.nacked == [lost]
    assert not alice.presence
    cluster.buses[0].restore()
    cluster.advance(1.0)
    # Only that makes it send again; nobody was gone for long enough to be told OFFLINE.
    assert alice.presence == [(True, bob.public.x_pub)]
