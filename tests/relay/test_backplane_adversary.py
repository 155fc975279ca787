"""Whoever runs NATS and has no cluster secret: what it repeats, sends back and makes up changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.backplane import recovery, shares
from relay.backplane.lookup import ANSWER_WITHIN
from tests.relay.cluster import Cluster
from tests.relay.harness import identity
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from relay.session import Session


def test_a_node_is_not_its_own_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(2)
    reachable = cluster.medium.reachable

    def also_itself(source: Any, to: Any) -> bool:
        return source is to or reachable(source, to)

    monkeypatch.setattr(cluster.medium, "reachable", also_itself)
    alice = cluster.labs[0].peer(1).open()
    # It gets no answer, as from a node that is hung.
    cluster.advance(ANSWER_WITHIN)
    for _ in range(8):
        assert cluster.sessions(1) == [0]
        assert [peer.number for peer in cluster.nodes[0].peers] == [cluster.nodes[1].number]
        cluster.advance(1.0)
    assert cluster.nodes[0].two_sessions == 0
    assert identity(1).id == alice.id


class Watched(dict[bytes, None]):
    """What a session watches; counts how often somebody goes through it."""

    walks = 0

    def __iter__(self) -> Iterator[bytes]:
        self.walks += 1
        return super().__iter__()


def test_a_client_who_sends_to_nobody_neither_holds_the_loop_nor_takes_the_place_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "REMEMBERED", 300)
    monkeypatch.setattr(recovery, "REMEMBERED_EACH", 200)
    cluster = Cluster(2)
    [mallory, alice], [bob] = cluster.connect(0, 1, 2), cluster.connect(1, 3)
    for each in (mallory, alice):
        each.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    session: Session = cluster.labs[0].core.sessions[mallory.id]
    assert session.watching is not None
    watched = session.watching = Watched(session.watching)
    cluster.buses[0].cut()
    for number in range(1, 1001):
        mallory.send(number.to_bytes(8, "big"))
    alice.send(bob)
    cluster.run()
    told = len(alice.presence)
    watched.walks = 0
    cluster.buses[0].restore()
    cluster.advance(3.0)
    assert watched.walks == 1
    assert alice.presence[told:] == [(True, bob.public.x_pub)]


def test_a_flood_from_many_addresses_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_UNTOLD", 8)
    cluster = Cluster(2)
    core, node = cluster.labs[0].core, cluster.nodes[0]
    for number in range(100):
        assert core.handshake_rate.allow(number.to_bytes(4, "big"), core.clock())
    assert len(node.shares) == 8
