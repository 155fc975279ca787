"""What all nodes count together: what addresses and clients spent, and how many connections addresses have.

Nothing is asked before a decision: each node decides by its own memory, into which it writes what the others tell.

**Rates of addresses.** A node tells what it let an address spend once that is a `SHARE` of the burst, divided by the
nodes. So what is not told yet is less than `SHARE` of one burst in the whole cluster, however many nodes an address
comes to. What was let through beyond that while the word was on its way becomes a debt, and is paid back before
anything else. So a flood over all nodes gets one burst and a `SHARE`, and what they can compute within the time that a
word takes: at a tenth of a millisecond and more for a handshake that is little on one site, and on several what fits
into their distance.

**Allowances of clients** (introductions, wakes, registrations; and what one bears of others' introductions) are spent
where the client has its session, and it has one. So nothing is told before that ends; then all are told what is missing
in its buckets, and let no more be in theirs. A newcomer is let in after that was said, in the same stream or before its
id was given back: whoever goes from node to node finds what it left. What is missing for the targets of wakes is
counted where the notifier is, and told when that one leaves.

**Connections** of an address are told as rates are, and those of a node that is gone are forgotten.

A node that comes later knows nothing of what was spent before, as a relay that starts anew, and of a node that is
killed is lost what its clients spent in sessions that it had. Separated nodes each count for themselves.

Addresses and ids are digests under a key of the cluster, at the nodes and between them.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from relay.backplane.link import Peer
from relay.backplane.nonces import Nonces
from relay.backplane.records import KEYS_PER_RECORD, LACK, SPENT, Kind, split
from relay.control import RATES

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.guard import Buckets
    from relay.session import Session

_UNTOLD: Final = 65_536
"""Addresses with an amount that is not told yet; whose is the oldest is forgiven it, as by `Buckets`."""
_SPENDERS: Final = 65_536
"""Buckets that clients who are here spent from; those of whoever spent longest ago are forgiven."""
_SPENDER: Final = 1024
"""Of these, those of one client."""
_STEP: Final = 128
_PARTS: Final = 1000
_PAIRS: Final = frozenset(number for number, name in enumerate(RATES) if name.endswith("_pair"))
WAKES_TARGET: Final = RATES.index("wakes_target")
SHARE: Final = 0.25
"""The part of a burst, or of the connections of one address, that all nodes together may not know of."""


class Shares:
    """Tells other nodes what is spent here, and writes down what they tell."""

    def __init__(self, node: "Backplane") -> None:
        core, key = node.core, node.seals.shared_key
        self._node = node
        self._rates: tuple[Buckets, ...] = (core.handshake_rate, core.door.token_failures, core.door.tls_rate)
        self._allowances: tuple[Buckets, ...] = tuple(core.control.rates[name] for name in RATES)
        self.nonces: Nonces = Nonces(node)
        self._places: dict[bytes, int] = {}
        self._spenders: OrderedDict[bytes, dict[tuple[int, bytes], None]] = OrderedDict()
        self._spender_buckets = 0
        self._untold: OrderedDict[tuple[int, bytes], int] = OrderedDict()
        for number, buckets in enumerate(self._rates):
            buckets.share(key, partial(self._spent, number))
        for number, buckets in enumerate(self._allowances):
            buckets.share(key, partial(self._spent_by, number))
        core.door.tally.share(key, self._placed)

    def __len__(self) -> int:
        return len(self._untold)

    def close(self) -> None:
        """Tell nobody any more."""
        for buckets in (*self._rates, *self._allowances):
            buckets.alone()
        self.nonces.close()
        self._node.core.door.tally.alone()

    def _threshold(self, most: float) -> int:
        return max(1, int(most * SHARE / (len(self._node.peers) + 1)))

    def expire(self) -> None:
        """Forget small amounts that were never told: their buckets are full again by now."""
        self._node.core.turns.task(self._expire_steps())

    def _expire_steps(self) -> Iterator[None]:
        for count, untold in enumerate(list(self._untold), 1):
            number, digest = untold
            if not self._rates[number].remembers(digest):
                self._untold.pop(untold, None)
            if count % _STEP == 0:
                yield
        for count, owner in enumerate(list(self._spenders), 1):
            spent = self._spenders.pop(owner, None)
            if spent is not None:
                self._spender_buckets -= len(spent)
                left = dict.fromkeys(self._not_full(spent))
                if left:
                    self._spenders[owner] = left
                    self._spender_buckets += len(left)
            if count % _STEP == 0:
                yield

    def _not_full(self, buckets: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        now = self._node.clock()
        return (each for each in buckets if self._allowances[each[0]].missing(each[1], now) > 0)

    # --- Said by us --------------------------------------------------------------------------------------------------

    def _spent(self, number: int, digest: bytes, _owner: bytes) -> None:
        count = self._untold.get((number, digest), 0) + 1
        if count < self._threshold(self._rates[number].burst):
            self._untold[number, digest] = count
            if len(self._untold) > _UNTOLD:
                self._untold.popitem(last=False)
            return
        self._untold.pop((number, digest), None)
        self._node.tell_all(Kind.SPENT, bytes((number,)) + SPENT.pack(digest, count))

    def _placed(self, digest: bytes, count: int, most: int) -> None:
        told = self._places.get(digest, 0)
        if abs(count - told) < self._threshold(most) and (count or not told):
            return
        if count:
            self._places[digest] = count
        else:
            self._places.pop(digest, None)
        self._node.tell_all(Kind.PLACES, SPENT.pack(digest, count))

    def _spent_by(self, number: int, digest: bytes, owner: bytes) -> None:
        if number == WAKES_TARGET:
            return  # the bucket itself is looked at, when the notifier leaves
        spent = self._spenders.setdefault(owner, {})
        self._spenders.move_to_end(owner)
        if (number, digest) in spent:
            return
        spent[number, digest] = None
        self._spender_buckets += 1
        if len(spent) > _SPENDER:
            # A pair's: they can be made up without end, also by one whose own allowance is used up, and told no more.
            del spent[next(each for each in spent if each[0] in _PAIRS)]
            self._spender_buckets -= 1
        while self._spender_buckets > _SPENDERS:
            self._spender_buckets -= len(self._spenders.popitem(last=False)[1])

    def left(self, session: "Session") -> None:
        """A session of this node ended: whoever has the next one of this client knows what is left to it."""
        spent = self._spenders.pop(session.id, None)
        if spent is not None:
            self._spender_buckets -= len(spent)
            for number in range(len(self._allowances)):
                self._tell_missing(number, [digest for each, digest in spent if each == number])
            if not self._node.core.draining:
                # Out before the subject of the id is given back: who asks for that is not answered sooner.
                now = self._node.clock()
                for peer in self._node.peers:
                    peer.flush(now)
        if session.id == self._node.core.notifier_id:
            self._node.core.turns.task(self._targets_steps())

    def _targets_steps(self) -> Iterator[None]:
        digests = self._allowances[WAKES_TARGET].latest()
        for start in range(0, len(digests), KEYS_PER_RECORD):
            self._tell_missing(WAKES_TARGET, digests[start : start + KEYS_PER_RECORD])
            yield

    def _tell_missing(self, number: int, digests: Iterable[bytes]) -> None:
        now, buckets = self._node.clock(), self._allowances[number]
        missing = [(digest, int(buckets.missing(digest, now) * _PARTS)) for digest in digests]
        body = b"".join([LACK.pack(digest, min(count, 0xFFFFFFFF)) for digest, count in missing if count > 0])
        if body:
            self._node.tell_all(Kind.LACKS, bytes((number,)) + body)

    def established(self, peer: Peer) -> None:
        """Tell a node that is new to us of the addresses with many connections here."""
        self._node.core.turns.task(self._places_steps(peer))
        self.nonces.established(peer)

    def _places_steps(self, peer: Peer) -> Iterator[None]:
        digests = list(self._places)
        for start in range(0, len(digests), KEYS_PER_RECORD):
            # What they have now: what is told of them from now on comes after this.
            part = [digest for digest in digests[start : start + KEYS_PER_RECORD] if digest in self._places]
            if part and peer.alive:
                peer.put(Kind.PLACES, b"".join([SPENT.pack(digest, self._places[digest]) for digest in part]))
            yield

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

    def lacks(self, body: bytes) -> None:
        """Another node tells what is missing in the buckets of clients who left it."""
        if body and body[0] < len(self._allowances):
            now = self._node.clock()
            for part in split(body[1:], LACK.size):
                digest, count = LACK.unpack(part)
                self._allowances[body[0]].missing_elsewhere(digest, count / _PARTS, now)

    def node_gone(self, peer: Peer) -> None:
        """A node is gone: nobody is connected to it."""
        self._node.core.door.tally.forget_elsewhere(peer.number)
        self.nonces.node_gone(peer)
