"""Nodes that take less than is sent to them: who waits, who is refused, and when it is time to send again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from relay.limits import Limits
from relay.metered import HOLD_WAY
from relay.reasons import Refusal
from tests.relay.cluster import Cluster
from wire import commands as c

if TYPE_CHECKING:
    from tests.relay.harness import Peer

SIZE = 200_000
# As much may wait for a node as for one recipient.
LIMITS = Limits(queue_total=32 * 1024 * 1024)


def watching(cluster: Cluster, peer: Peer, *others: Peer) -> None:
    peer.say(c.Subscribe.of([other.public.x_pub for other in others]))
    cluster.run()
    peer.news()


def overrun(cluster: Cluster, sender: Peer, to: Peer, count: int = 40) -> list[bytes]:
    """Send more than may wait for a node."""
    sent = [sender.send(to, SIZE) for _ in range(count)]
    cluster.advance(0.01)
    return sent


# --- Waiting ---------------------------------------------------------------------------------------------------------


def test_whoever_sends_faster_than_a_node_takes_waits_for_a_moment_and_is_refused_nothing() -> None:
    cluster = Cluster(limits=LIMITS)
    [alice], [bob, carol] = cluster.connect(0, 1), cluster.connect(1, 2, 3)
    alice.send(bob)
    alice.send(carol)
    cluster.run()
    cluster.buses[1].pause()
    sent = overrun(cluster, alice, bob)
    sent_too = [alice.send(carol) for _ in range(3)]
    assert alice.session.held == HOLD_WAY
    assert not alice.transport.reading
    cluster.advance(0.3)
    cluster.buses[1].read_on()
    cluster.advance(1.0)
    assert bob.delivered[1:] == sent
    assert carol.delivered[1:] == sent_too
    assert not alice.nacked
    assert not alice.session.held
    cluster.check_settled()


def test_who_waits_for_two_nodes_waits_for_the_slower() -> None:
    cluster = Cluster(limits=LIMITS)
    [alice], [bob], [carol] = cluster.connect(0, 1), cluster.connect(1, 2), cluster.connect(2, 3)
    for other in (bob, carol):
        alice.send(other)
    cluster.run()
    for bus in cluster.buses[1:]:
        bus.pause()
    # In one chunk: the frames behind the one that was too much are parsed when the first way is free.
    sent = overrun(cluster, alice, bob, 23)
    cluster.advance(0.1)
    sent_too = overrun(cluster, alice, carol)
    cluster.buses[1].read_on()
    cluster.advance(0.2)
    assert bob.delivered[1:] == sent
    assert alice.session.held == HOLD_WAY
    cluster.buses[2].read_on()
    cluster.advance(1.0)
    assert carol.delivered[1:] == sent_too
    assert not alice.nacked
    cluster.check_settled()


def test_a_node_that_is_hung_holds_nobody_for_long_and_is_bounded() -> None:
    cluster = Cluster(limits=LIMITS)
    [alice, eve], [bob], [carol] = cluster.connect(0, 1, 4), cluster.connect(1, 2), cluster.connect(2, 3)
    for sender in (alice, eve):
        sender.send(bob)
        sender.send(carol)
    cluster.run()
    limits = cluster.labs[0].core.limits
    cluster.buses[1].pause()
    sent = overrun(cluster, alice, bob)
    kept = alice.send(carol)
    peer = next(peer for peer in cluster.nodes[0].peers if peer.number == cluster.nodes[1].number)
    assert limits.queue_size < peer.waiting <= limits.queue_size + SIZE + 200
    assert kept not in carol.delivered
    cluster.advance(1.1)
    # It goes on, and is told what could not be sent.
    assert carol.delivered[-1] == kept
    refused = len(alice.nacked)
    assert 10 < refused < 20
    assert alice.nacked == sent[-refused:]
    # Nobody waits for that way a second time before it was free.
    lost = eve.send(bob, SIZE)
    cluster.run()
    assert eve.nacked == [lost]
    assert not eve.session.held
    cluster.buses[1].read_on()
    cluster.advance(5.0)
    assert bob.delivered[2:] + alice.nacked == sent
    cluster.check_settled()


def test_the_total_of_those_who_wait_is_bounded() -> None:
    cluster = Cluster(2, Limits(queue_size=1_000_000, queue_total=8_000_000))
    senders = cluster.connect(0, *range(10, 30))
    [bob] = cluster.connect(1, 2)
    senders[0].send(bob)
    cluster.run()
    cluster.buses[1].pause()
    sent = [sender.send(bob, SIZE) for sender in senders]
    cluster.advance(0.01)
    [peer] = cluster.nodes[0].peers
    assert peer.waiting <= 2_000_000
    refused = [nonce for sender in senders for nonce in sender.nacked]
    assert refused
    assert cluster.labs[0].core.counters.refusals[Refusal.NODE_FULL] == len(refused)
    cluster.buses[1].read_on()
    cluster.advance(3.0)
    assert sorted(bob.delivered[1:] + refused) == sorted(sent)
    cluster.check_settled()


def test_senders_wait_while_it_is_asked_where_their_recipients_are() -> None:
    """All at once: what waits for answers is more than may wait for the node that has them all."""
    cluster = Cluster(2, Limits(queue_size=2_000_000, queue_total=16_000_000))
    senders, recipients = cluster.connect(0, *range(10, 26)), cluster.connect(1, *range(30, 46))
    cluster.medium.delay = 0.01
    sent = []
    for sender, recipient in zip(senders, recipients, strict=True):
        sent.append([sender.send(recipient, 30_000) for _ in range(40)])
    cluster.advance(0.005)
    assert all(sender.session.held for sender in senders)
    assert cluster.nodes[0].router.bytes < 2_000_000
    cluster.advance(5.0)
    for sender, recipient, nonces in zip(senders, recipients, sent, strict=True):
        assert recipient.delivered == nonces
        assert not sender.nacked
    cluster.check_settled()


def test_a_sender_that_leaves_while_it_waits() -> None:
    cluster = Cluster(2, LIMITS)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.send(bob)
    cluster.run()
    cluster.buses[1].pause()
    sent = overrun(cluster, alice, bob)
    alice.transport.die()
    cluster.advance(0.1)
    cluster.buses[1].read_on()
    cluster.advance(3.0)
    # What was read of it is delivered.
    assert bob.delivered[1:] == sent[: len(bob.delivered) - 1]
    assert len(bob.delivered) > 20
    cluster.check_settled()


def test_a_node_that_leaves_lets_go_of_those_who_wait() -> None:
    cluster = Cluster(2, LIMITS)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.send(bob)
    cluster.advance(0.1)
    cluster.buses[1].pause()
    sent = overrun(cluster, alice, bob)
    assert alice.session.held
    cluster.nodes[0].stop()
    cluster.run()
    assert not alice.session.held
    assert sorted(alice.nacked) == sorted(sent)


# --- When to send again ----------------------------------------------------------------------------------------------


def hung(cluster: Cluster, sender: Peer, to: Peer) -> None:
    """Let frames be refused on their way to a node that reads nothing for a while."""
    sender.send(to)
    cluster.run()
    cluster.buses[1].pause()
    overrun(cluster, sender, to, 60)
    cluster.advance(1.2)
    assert sender.nacked
    sender.news()


def test_a_recipient_that_reads_is_told_of_when_its_way_is_free() -> None:
    cluster = Cluster(2, LIMITS)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    watching(cluster, alice, bob)
    hung(cluster, alice, bob)
    assert len(cluster.nodes[0].recovery) == 1
    cluster.buses[1].read_on()
    cluster.advance(1.0)
    assert alice.presence == [(True, bob.public.x_pub)]
    assert len(cluster.nodes[0].recovery) == 0


def test_a_recipient_that_does_not_read_is_told_of_when_it_does() -> None:
    cluster = Cluster(2, LIMITS)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    watching(cluster, alice, bob)
    bob.stall()
    hung(cluster, alice, bob)
    cluster.buses[1].read_on()
    cluster.advance(3.0)
    assert not alice.presence
    # The way has been free for long.
    assert cluster.nodes[0].peers
    assert all(peer.flows for peer in cluster.nodes[0].peers)
    bob.resume()
    cluster.advance(1.0)
    assert alice.presence == [(True, bob.public.x_pub)]


def test_each_way_is_waited_for_by_itself() -> None:
    cluster = Cluster(limits=LIMITS)
    [alice], [bob], [carol] = cluster.connect(0, 1), cluster.connect(1, 2), cluster.connect(2, 3)
    watching(cluster, alice, bob, carol)
    alice.send(carol)
    cluster.run()
    cluster.buses[2].pause()
    overrun(cluster, alice, carol, 60)
    cluster.advance(1.2)
    hung(cluster, alice, bob)
    cluster.buses[1].read_on()
    cluster.advance(1.0)
    # The other one is hung still.
    assert alice.presence == [(True, bob.public.x_pub)]
    cluster.buses[2].read_on()
    cluster.advance(2.0)
    assert set(alice.presence) == {(True, bob.public.x_pub), (True, carol.public.x_pub)}


@pytest.mark.parametrize("to", [0, 2])
def test_a_recipient_that_moved_meanwhile_is_found(to: int) -> None:
    cluster = Cluster(limits=LIMITS)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    watching(cluster, alice, bob)
    hung(cluster, alice, bob)
    bob.transport.die()
    cluster.advance(0.5)
    # It waits until nothing can come back from where it was; but that node speaks, reads nothing, and never says so.
    again = cluster.labs[to].peer(2).open()
    cluster.advance(12.0)
    assert again.of(c.HandshakeOk)
    cluster.buses[1].read_on()
    cluster.advance(7.0)
    assert alice.presence[-1] == (True, bob.public.x_pub)
    sent = alice.send(again)
    cluster.advance(1.0)
    assert again.delivered[-1] == sent
    assert len(cluster.nodes[0].recovery) == 0


def test_nothing_is_remembered_of_senders_that_left_or_watch_nobody() -> None:
    cluster = Cluster(2, LIMITS)
    [alice, carol], [bob] = cluster.connect(0, 1, 3), cluster.connect(1, 2)
    hung(cluster, alice, bob)
    lost = carol.send(bob, SIZE)
    cluster.run()
    assert carol.nacked == [lost]
    assert len(cluster.nodes[0].recovery) == 2
    alice.transport.die()
    cluster.buses[1].read_on()
    cluster.advance(2.0)
    assert not carol.presence
    assert len(cluster.nodes[0].recovery) == 0


def test_what_is_remembered_is_bounded_for_each_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(2, LIMITS)
    monkeypatch.setattr("relay.backplane.recovery.REMEMBERED", 12)
    monkeypatch.setattr("relay.backplane.recovery.REMEMBERED_EACH", 8)
    recovery = cluster.nodes[0].recovery
    for sender in (b"sender a", b"sender b"):
        for target in range(100):
            recovery.remember(sender, target.to_bytes(8, "big"), None)
            recovery.remember(sender, target.to_bytes(8, "big"), None)
    assert len(recovery) == 12
    cluster.advance(1.0)
    assert len(recovery) == 0
    recovery.remember(b"sender b", bytes(8), None)
    assert len(recovery) == 1
