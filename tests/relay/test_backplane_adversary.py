"""Whoever runs NATS and has no cluster secret: what it repeats, sends back and makes up changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.backplane.lookup import ANSWER_WITHIN
from tests.relay.cluster import Cluster
from tests.relay.harness import identity

if TYPE_CHECKING:
    import pytest




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
