"""Who takes a record that came from another node, by its kind."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.backplane.link import Peer
from relay.backplane.records import Kind

if TYPE_CHECKING:
    from relay.backplane.node import Backplane


def take(node: "Backplane", peer: Peer, kind: int, body: bytes) -> None:
    """Hand a record to its part of a node; one that nobody knows is counted."""
    if kind <= Kind.RECOVERED:
        node.parcels.take(peer, kind, body)
        return
    known = _TAKE.get(kind)
    if known is None:
        node.count("unknown")
    else:
        known(node, peer, body)


_TAKE: Final[dict[int, Callable[["Backplane", Peer, bytes], None]]] = {
    Kind.CLAIM: lambda node, peer, body: node.claims.claimed(peer, body),
    Kind.CLAIM_ANSWER: lambda node, peer, body: node.claims.claim_answered(peer, body),
    Kind.CLAIM_OFF: lambda node, peer, body: node.claims.claim_off(peer, body),
    Kind.CAME: lambda node, peer, body: node.presence.came(peer, body),
    Kind.WENT: lambda node, peer, body: node.presence.went(peer, body),
    Kind.WHO: lambda node, peer, body: node.presence.asked(peer, body),
    Kind.HERE: lambda node, peer, body: node.presence.answered(peer, body),
    Kind.HOLDS: lambda node, peer, body: node.holdings.told_of(peer, body),
    Kind.DROP: lambda node, _peer, body: node.holdings.dropped(body),
    Kind.SPENT: lambda node, _peer, body: node.shares.spent(body),
    Kind.PLACES: lambda node, peer, body: node.shares.places(peer, body),
    Kind.SEEN: lambda node, peer, body: node.shares.nonces.seen(peer, body),
    Kind.MEET: lambda node, peer, body: node.shares.nonces.met(peer, body),
    Kind.MISSED: lambda node, peer, body: node.shares.nonces.missed(peer, body),
    Kind.PAST_ASKED: lambda node, peer, body: node.shares.nonces.past_asked(peer, body),
    Kind.PAST: lambda node, peer, body: node.shares.nonces.past(peer, body),
    Kind.PAST_ENDED: lambda node, peer, body: node.shares.nonces.past_ended(peer, body),
    Kind.LACKS: lambda node, _peer, body: node.shares.lacks(body),
    Kind.LEAVE: lambda node, peer, _body: node.node_left(peer),
    Kind.SYNC: lambda node, peer, body: node.barriers.asked(peer, body),
    Kind.SYNCED: lambda node, peer, body: node.barriers.answered(peer, body),
    Kind.RETRY: lambda node, peer, body: node.recovery.asked(peer, body),
}
