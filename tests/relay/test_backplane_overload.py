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
