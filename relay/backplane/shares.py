"""What all nodes count together: tokens spent by addresses, their connections, and nonces that were seen.

Nothing is asked before a decision: each node decides by its own memory, into which it writes what the others tell.

**Rates.** A node tells what it let an address spend once that is a `SHARE` of the burst, divided by the nodes. So what
is not told yet is less than `SHARE` of one burst in the whole cluster, however many nodes an address comes to. What was
let through beyond that while the word was on its way becomes a debt, and is paid back before anything else. So a flood
over all nodes gets one burst and a `SHARE`, and what they can compute within the time that a word takes: at a tenth of
a millisecond and more for a handshake that is little on one site, and on several what fits into their distance.

**Connections** of an address are told in the same way, and those of a node that is gone are forgotten.

**Nonces** of handshakes and commands are told at once, with the batch of the same turn. Until it arrives, some
milliseconds, another node would take the same handshake. It then claims the id of a session that is there, at the node
that has it; and that node was told of the nonce first, in the same stream, and knew it: the newcomer is sent away.
A node that starts knows no nonce from before, as a relay that starts anew.

Addresses, keys and nonces are digests under a key of the cluster, at the nodes and between them.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from keys.primitives import keyed_digest
from relay.backplane.link import Peer
from relay.backplane.records import SEEN, SPENT, Kind, split

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.guard import Buckets, ReplayMemory

_HANDSHAKES: Final = 0
_REPEATED: Final = 4096
_KEY_DIGEST: Final = 16
_UNTOLD: Final = 65_536
"""Addresses with an amount that is not told yet; whose is the oldest is forgiven it, as by `Buckets`."""
SHARE: Final = 0.25
"""The part of a burst, or of the connections of one address, that all nodes together may not know of."""


class Shares:
    """Tells other nodes what is spent here, and writes down what they tell."""

    def __init__(self, node: "Backplane") -> None:
        core, key = node.core, node.seals.shared_key
        self._node = node
        self._rates: tuple[Buckets, ...] = (core.handshake_rate, core.door.token_failures, core.door.tls_rate)
        self._memories: tuple[ReplayMemory, ...] = (core.handshakes_seen, core.commands_seen)
        self._places: dict[bytes, int] = {}
        self._repeated: dict[tuple[Peer, bytes], None] = {}
        self._untold: OrderedDict[tuple[int, bytes], int] = OrderedDict()
        for number, buckets in enumerate(self._rates):
            buckets.share(key, lambda digest, number=number: self._spent(number, digest))  # type: ignore[misc]
        for number, memory in enumerate(self._memories):
            memory.share(key, lambda entry, number=number: self._seen(number, entry))  # type: ignore[misc]
        core.door.tally.share(key, self._placed)

    def __len__(self) -> int:
        return len(self._untold)

    def close(self) -> None:
        """Tell nobody any more."""
        for buckets in self._rates:
            buckets.alone()
        for memory in self._memories:
            memory.alone()
        self._node.core.door.tally.alone()

    def _threshold(self, most: float) -> int:
        return max(1, int(most * SHARE / (len(self._node.peers) + 1)))

    def expire(self) -> None:
        """Forget small amounts that were never told: their buckets are full again by now."""
        self._untold = OrderedDict(
            ((number, digest), count)
            for (number, digest), count in self._untold.items()
            if self._rates[number].remembers(digest)
        )

    # --- Said by us --------------------------------------------------------------------------------------------------

    def _spent(self, number: int, digest: bytes) -> None:
        count = self._untold.get((number, digest), 0) + 1
        if count < self._threshold(self._rates[number].burst):
            self._untold[number, digest] = count
            if len(self._untold) > _UNTOLD:
                self._untold.popitem(last=False)
            return
        self._untold.pop((number, digest), None)
        body = bytes((number,)) + SPENT.pack(digest, count)
        for peer in self._node.peers:
            peer.put(Kind.SPENT, body)

    def _placed(self, digest: bytes, count: int, most: int) -> None:
        told = self._places.get(digest, 0)
        if abs(count - told) < self._threshold(most) and (count or not told):
            return
        if count:
            self._places[digest] = count
        else:
            self._places.pop(digest, None)
        body = SPENT.pack(digest, count)
        for peer in self._node.peers:
            peer.put(Kind.PLACES, body)

    def _seen(self, number: int, entry: tuple[bytes, bytes]) -> None:
        body = bytes((number,)) + SEEN.pack(*entry)
        for peer in self._node.peers:
            peer.put(Kind.SEEN, body)

    def established(self, peer: Peer) -> None:
        """Tell a node that is new to us of the addresses with many connections here."""
        for digest, count in self._places.items():
            peer.put(Kind.PLACES, SPENT.pack(digest, count))

    # --- Said by others ----------------------------------------------------------------------------------------------

    def spent(self, body: bytes) -> None:
        """Another node let addresses spend tokens."""
        if body and body[0] < len(self._rates):
            now = self._node.clock()
            for part in split(body[1:], SPENT.size):
                digest, count = SPENT.unpack(part)
                self._rates[body[0]].spent_elsewhere(digest, count, now)

    def places(self, peer: Peer, body: bytes) -> None:
        """Another node tells how many connections an address has there."""
        for part in split(body, SPENT.size):
            self._node.core.door.tally.elsewhere(peer.number, *SPENT.unpack(part))

    def seen(self, peer: Peer, body: bytes) -> None:
        """Another node saw nonces."""
        if body and body[0] < len(self._memories):
            for part in split(body[1:], SEEN.size):
                key, digest = SEEN.unpack(part)
                if not self._memories[body[0]].remember(key, digest) and body[0] == _HANDSHAKES:
                    if len(self._repeated) >= _REPEATED:
                        self._repeated.clear()
                    self._repeated[peer, key] = None

    def repeated(self, peer: Peer, x_pub: bytes) -> bool:
        """Tell, once, whether the last handshake with a key that another node took was one that we had seen."""
        entry = (peer, keyed_digest(self._node.seals.shared_key, x_pub, _KEY_DIGEST))
        if entry not in self._repeated:
            return False
        del self._repeated[entry]
        return True

    def node_gone(self, peer: Peer) -> None:
        """A node is gone: nobody is connected to it."""
        self._node.core.door.tally.forget_elsewhere(peer.number)
        self._repeated = {entry: None for entry in self._repeated if entry[0] is not peer}
