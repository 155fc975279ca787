"""Queues that fill up: what the tests of stalled readers have in common."""

from typing import Final

from relay.limits import KIB, Limits
from tests.relay.harness import Lab, Peer
from wire import commands as c

SMALL: Final = Limits(
    flush_size=4 * KIB, queue_size=32 * KIB, queue_share=8 * KIB, queue_total=64 * KIB, handshakes_per_second=0
)


def refusals(lab: Lab) -> dict[str, int]:
    return {str(reason): count for reason, count in lab.core.counters.refusals.items() if count}


def stalled(peer: Peer, by: Peer) -> Peer:
    """Let a peer's transport be full with one frame of another's."""
    peer.stall()
    by.send(peer)
    peer.lab.run()
    assert peer.session.blocked
    return peer


def fill(sender: Peer, to: Peer, size: int) -> list[bytes]:
    """Send frames of a kibibyte each."""
    nonces = sender.send_many(to, size // KIB, KIB)
    sender.lab.run()
    return nonces


def watch(peer: Peer, whom: Peer) -> None:
    peer.say(c.Subscribe((whom.public.x_pub,)))
    peer.lab.run()
    peer.news()
