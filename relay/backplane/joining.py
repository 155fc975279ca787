"""How a relay becomes a node: it says that it is here, and waits for links to those who answer."""

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from relay.backplane.bus import Outcome
from relay.backplane.options import ClusterError

if TYPE_CHECKING:
    from relay.backplane.node import Backplane

LEAST_PAYLOAD: Final = 16 * 1024
"""Bytes that NATS must take in one message."""
_QUIET: Final = 0.25
_JOIN: Final = 3.0
PATIENCE: Final = 10.0
"""Seconds for which the replay memory of the others is waited for: 50 MB in both when they are full."""


async def find_others(node: "Backplane") -> None:
    """Begin; return when there are links to the nodes that answer, and what they remember is here, or nobody does.

    Who takes a client before that would take handshakes which the others know. So it is waited for, but not for ever:
    `PATIENCE` is more than it takes on one site, and a cluster that is hardly reachable is to come up all the same.

    Raises:
        ClusterError: NATS takes too little, or a relay with other keys, or of a version that does not fit, has the
            secret of this cluster.
    """
    bus = node.bus
    if bus.max_payload < LEAST_PAYLOAD:
        await bus.close()
        raise ClusterError(
            f"NATS takes no more than {bus.max_payload} bytes in a message; relays need {LEAST_PAYLOAD} at least, "
            "better 1 MiB: raise max_payload in nats.conf"
        )
    changed = asyncio.Event()
    node.linked = changed.set
    alone = asyncio.get_running_loop().create_future()

    def answered(outcome: Outcome, _data: bytes) -> bool:
        if not alone.done():
            alone.set_result(outcome is Outcome.NO_RESPONDERS)
        return False

    node.begin()
    bus.request(node.seals.all_subject, node.announcement(), _JOIN / 2, answered)
    if not await alone:
        await _linked_to_all(node, changed)
        await _told_all(node, changed)
    node.linked = _nothing
    if node.outsiders.refusal is not None:
        # The running ones serve clients, who would be in two clusters at once: better that the newcomer has none.
        await node.close()
        raise ClusterError(node.outsiders.refusal)
    log = structlog.get_logger()
    if not node.shares.nonces.whole:
        log.warning("cluster_memory_late", node=node.label, seconds=PATIENCE)
    node.shares.nonces.joined()
    log.info("cluster_joined", node=node.label, nodes=len(node.peers) + 1)


async def _linked_to_all(node: "Backplane", changed: asyncio.Event) -> None:
    until = node.clock() + _JOIN
    # The nodes answer within milliseconds; when none has for a while all are there.
    while node.clock() < until and node.outsiders.refusal is None:
        changed.clear()
        try:
            await asyncio.wait_for(changed.wait(), _QUIET)
        except TimeoutError:
            if all(peer.up for peer in node.peers):
                return


async def _told_all(node: "Backplane", changed: asyncio.Event) -> None:
    until = node.clock() + PATIENCE
    while not node.shares.nonces.whole and node.outsiders.refusal is None:
        changed.clear()
        try:
            await asyncio.wait_for(changed.wait(), until - node.clock())
        except TimeoutError:
            return


def _nothing() -> None:
    """Nobody waits for links any more."""
