"""Both ends of a link with more to say than may be on its way: it goes on, and nothing is lost or overtaken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.limits import Limits
from tests.relay.cluster import Cluster

if TYPE_CHECKING:
    from tests.relay.harness import Peer

    Pairs = list[tuple[Peer, Peer]]

SIZE = 250_000
LIMITS = Limits(queue_total=32 * 1024 * 1024)
PAIRS = 17


def full_both_ways(cluster: Cluster) -> tuple[Pairs, list[list[bytes]]]:
    """Let many clients of both nodes send to each other while nothing arrives: each that waits adds a frame."""
    here, there = cluster.connect(0, *range(10, 10 + PAIRS)), cluster.connect(1, *range(40, 40 + PAIRS))
    pairs = [*zip(here, there, strict=True), *zip(there, here, strict=True)]
    for sender, to in pairs:
        sender.send(to)
    cluster.advance(0.1)
    for bus in cluster.buses:
        bus.pause()
    sent = [[sender.send(to, SIZE) for _ in range(3)] for sender, to in pairs]
    cluster.advance(0.05)
    for node in cluster.nodes:
        [peer] = node.peers
        assert peer._waiting_bytes > peer.bound
    return pairs, sent


def check_all_arrived(cluster: Cluster, pairs: Pairs, sent: list[list[bytes]]) -> None:
    for (sender, to), nonces in zip(pairs, sent, strict=True):
        assert to.delivered[1:] == nonces
        assert not sender.nacked
    cluster.check_settled()


def test_two_nodes_that_both_have_too_much_for_each_other_go_on() -> None:
    cluster = Cluster(2, LIMITS)
    pairs, sent = full_both_ways(cluster)
    for bus in cluster.buses:
        bus.read_on()
    cluster.advance(3.0)
    check_all_arrived(cluster, pairs, sent)


def test_a_link_is_made_again_while_both_have_too_much_for_each_other() -> None:
    cluster = Cluster(2, LIMITS)
    pairs, sent = full_both_ways(cluster)
    # Each took what was under way to it, and the word of that was lost with the link.
    cluster.medium.lose = lambda *_: True
    for bus in cluster.buses:
        bus.read_on()
    cluster.advance(0.1)
    for node in cluster.nodes:
        for peer in node.peers:
            peer.suspect(cluster.loop.now)
    cluster.medium.lose = lambda *_: False
    cluster.advance(3.0)
    check_all_arrived(cluster, pairs, sent)
    assert [node.refused["malformed"] for node in cluster.nodes] == [0, 0]


def test_another_server_may_take_less_in_a_message() -> None:
    cluster = Cluster(2, LIMITS)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.send(bob)
    cluster.advance(0.1)
    for bus in cluster.buses:
        bus.cut()
        bus.max_payload = 16 * 1024
        bus.restore()
    cluster.advance(1.0)
    cluster.medium.seen.clear()
    sent = alice.send(bob, SIZE)
    cluster.advance(0.1)
    assert bob.delivered[1:] == [sent]
    assert max(len(data) for _, data in cluster.medium.seen) <= 16 * 1024
    # None that works; a node that meets one must not stand still for that.
    for bus in cluster.buses:
        bus.cut()
        bus.max_payload = 100
        bus.restore()
    assert [node.chunk > 0 for node in cluster.nodes] == [True, True]


def test_an_error_at_one_recipient_neither_loses_nor_doubles_what_is_for_others() -> None:
    cluster = Cluster(2, LIMITS)
    [alice], [bob, carol] = cluster.connect(0, 1), cluster.connect(1, 2, 3)
    for to in (bob, carol):
        alice.send(to)
    cluster.advance(0.1)
    errors: list[object] = []
    cluster.loop.call_exception_handler = errors.append  # type: ignore[attr-defined]
    session, mask = carol.session, carol.session.mask
    session.mask = None  # type: ignore[assignment]
    sent = [alice.send(bob), alice.send(bob)]
    alice.send(carol)
    sent += [alice.send(bob), alice.send(bob)]
    cluster.advance(0.1)
    session.mask = mask
    cluster.advance(2.0)
    assert errors
    assert bob.delivered[1:] == sent
    kept = alice.send(carol)
    cluster.advance(1.0)
    assert carol.delivered[1:] == [kept]
    cluster.check_settled()
