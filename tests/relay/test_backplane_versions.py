"""Nodes of different versions in one cluster: what can be ignored is, and who cannot work together says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog

from relay.backplane.joining import find_others
from relay.backplane.node import Backplane
from relay.backplane.options import ClusterError
from relay.backplane.outsiders import spoken
from relay.backplane.records import Kind
from relay.backplane.seals import HELLO
from tests.relay.cluster import OPTIONS, Cluster, Medium, MemoryBus
from tests.relay.harness import Lab

if TYPE_CHECKING:
    from relay.backplane.link import Peer


def of_versions(*versions: tuple[int, int]) -> Cluster:
    """Return nodes that speak these versions, in this order."""
    cluster = Cluster(0)
    for each in versions:
        cluster.add().versions = each
    cluster.advance(3.0)
    return cluster


def lengthened(node: Backplane, more: bytes) -> None:
    """Let a node put something behind each of its hellos, as a later version may."""
    seal = node.seals.seal_call

    def longer(kind: int, body: bytes, subject: str, to: bytes = bytes(8), context: bytes = b"") -> bytes:
        return seal(kind, body + more if kind == HELLO else body, subject, to, context)

    node.seals.seal_call = longer  # type: ignore[method-assign]


def errors(logs: list[structlog.typing.EventDict]) -> list[structlog.typing.EventDict]:
    return [entry for entry in logs if entry["log_level"] == "error"]


@pytest.mark.parametrize(("one", "other"), [((2, 1), (1, 1)), ((4, 2), (3, 1)), ((9, 3), (3, 3)), ((255, 0), (1, 1))])
def test_versions_that_overlap_work_together(one: tuple[int, int], other: tuple[int, int]) -> None:
    cluster = of_versions(one, other)
    assert [[peer.up for peer in node.peers] for node in cluster.nodes] == [[True], [True]]
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    sent = alice.send_many(bob, 3)
    back = bob.send(alice)
    cluster.advance(1.0)
    assert (bob.delivered, alice.delivered) == (sent, [back])
    assert not any(node.refused["other_version"] for node in cluster.nodes)


def test_what_a_later_version_adds_to_a_hello_is_ignored() -> None:
    cluster = Cluster(0)
    for versions in ((1, 1), (2, 1)):
        node = cluster.add()
        node.versions = versions
        if versions[0] > 1:
            lengthened(node, bytes(range(200)))
    cluster.advance(3.0)
    assert [[peer.up for peer in node.peers] for node in cluster.nodes] == [[True], [True]]
    assert not any(node.refused["malformed"] for node in cluster.nodes)


def test_a_hello_that_is_too_short_is_counted() -> None:
    cluster = Cluster(2)
    node = cluster.nodes[0]
    [peer] = node.peers
    peer.greeted(bytes(30), 0.0)
    assert node.refused["malformed"] == 1
    assert peer.up


@pytest.mark.parametrize("kind", [max(Kind) + 1, 200, 255])
def test_records_that_are_not_known_are_counted_acknowledged_and_passed_over(kind: int) -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    first = alice.send(bob)
    cluster.advance(0.1)
    here, there = cluster.nodes
    to_there: Peer = next(iter(here.peers))
    taken = there.records_in
    for body in (b"", bytes(70_000)):
        to_there.put(kind, body)
    second = alice.send(bob)
    cluster.advance(0.1)
    assert there.refused["unknown"] == 2
    assert there.records_in == taken + 3
    assert to_there.settled
    assert to_there._sent_bytes == 0
    assert bob.delivered == [first, second]
    assert to_there.up


def test_unknown_records_are_counted_once_when_they_are_sent_again() -> None:
    """A record that was skipped is one of those of which the next link is told."""
    cluster = Cluster(2)
    here, there = cluster.nodes
    to_there: Peer = next(iter(here.peers))
    # Its acknowledgement is lost, so the next link begins before it.
    cluster.medium.lose = lambda source, _to, _data: source is cluster.buses[1]
    to_there.put(200, b"from the future")
    cluster.advance(0.5)
    assert there.refused["unknown"] == 1
    assert to_there._sent_bytes
    cluster.medium.lose = lambda _source, _to, _data: False
    to_there.suspect(cluster.loop.now)
    cluster.advance(2.0)
    assert to_there.up
    assert to_there.settled
    assert there.refused["unknown"] == 1


@pytest.mark.parametrize(("one", "other"), [((1, 1), (2, 2)), ((5, 4), (3, 1)), ((1, 1), (255, 9))])
def test_versions_that_do_not_fit_stay_apart_and_say_so_once(one: tuple[int, int], other: tuple[int, int]) -> None:
    with structlog.testing.capture_logs() as logs:
        cluster = of_versions(one, other)
        lengthened(cluster.nodes[1], b"whatever it is")
        [alice, carol], [bob] = cluster.connect(0, 1, 3), cluster.connect(1, 2)
        # Each is a relay to its own clients, and to the others' it says what is so.
        local = alice.send(carol)
        lost, theirs = alice.send(bob), bob.send(alice)
        cluster.advance(30.0)
    assert carol.delivered == [local]
    assert (alice.nacked, bob.nacked) == ([lost], [theirs])
    assert not bob.delivered
    assert not any(peer.up for node in cluster.nodes for peer in node.peers)
    assert all(node.refused["other_version"] for node in cluster.nodes)
    assert not any(node.refused["malformed"] for node in cluster.nodes)
    said = errors(logs)
    assert [entry["event"] for entry in said] == ["cluster_other_version"] * 2
    assert {(entry["speaks"], entry["other"]) for entry in said} == {
        (spoken(*one), spoken(*other)),
        (spoken(*other), spoken(*one)),
    }
    assert all("stop all relays" in entry["advice"] for entry in said)
    # And when that node is replaced by one that fits, they are one again.
    cluster.buses[1].die()
    cluster.add().versions = one
    cluster.advance(10.0)
    assert [peer.up for peer in cluster.nodes[0].peers] == [True]


def test_three_of_which_one_does_not_fit() -> None:
    cluster = of_versions((1, 1), (1, 1), (2, 2))
    assert [sum(peer.up for peer in node.peers) for node in cluster.nodes] == [1, 1, 0]
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    sent = alice.send_many(bob, 5)
    cluster.advance(5.0)
    assert bob.delivered == sent


def test_a_newcomer_that_does_not_fit_does_not_start() -> None:
    cluster = of_versions((2, 2))
    medium: Medium = cluster.medium
    lab = Lab(loop=cluster.loop, name="late", first=9_000_000_000)
    node = Backplane(lab.core, OPTIONS, MemoryBus(medium))
    node.versions = (1, 1)

    async def join() -> None:
        finding = asyncio.ensure_future(find_others(node))
        while not finding.done():
            cluster.loop.advance(0.05)
            await asyncio.sleep(0)
        await finding

    with pytest.raises(ClusterError, match=r"it speaks version 2, this one 1\): stop all relays of the cluster"):
        asyncio.run(join())
    assert lab.core.cluster is None
    assert cluster.nodes[0].refused["other_version"]


def test_what_is_spoken_is_told() -> None:
    assert spoken(1, 1) == "1"
    assert spoken(4, 2) == "2 to 4"
