"""The replay memory of all nodes: what one of them saw, none takes again, those neither that come later.

**Live.** A nonce that a node takes is told to all others at once, with the batch of the same turn. Until it arrives,
some milliseconds, another node would take the same handshake. It then claims the id of a session that is there, at the
node that has it; and that node was told of the nonce first, in the same stream, and knew it: the newcomer is sent away.

**After a separation.** Each node counts the nonces that it took itself, and keeps the last `LOGGED` of them. When two
nodes meet they tell each other how far they have got; what the other missed is sent. So every node holds for each of
the others how many of its nonces it has, without a gap.

**Who comes later.** A node that meets others who were there before asks one of them for its whole memory, a part at a
time, the keys used last first. With it comes how many nonces of each node are in it: of those that it names none has to
be asked again, but for what lies between that and the meeting. One that cannot be reached any more is replaced by
another. So a newcomer costs its cluster one copy of the memory (53 MB if both are full, and less than half a second of
a core at either end), never more than `AHEAD` parts of `SLICE` bytes are on their way, and any node that has all can
give it. Until it has all it does not listen, for `PATIENCE` seconds of :mod:`relay.backplane.joining` at most.

**What cannot be promised.** While nodes are separated each side takes what the other has seen. So does a node that was
told to listen before it had all. Of a node that is killed is lost what it took and nobody was told of yet; of a
separation in which one node took more than `LOGGED`, the nonces of keys for which the others have no room any more.
When no node is left that knows it, all is forgotten, as by a relay that starts anew.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from relay.backplane.link import Peer
from relay.backplane.records import HAVE, MEET, NEVER, NONCE, RING, SEEN, SERIAL, Kind, split
from relay.guard import NONCE_DIGEST, ReplayMemory

if TYPE_CHECKING:
    from relay.backplane.node import Backplane

LOGGED: Final = 65_536
"""Nonces of our own that are kept for nodes which were away: 1.6 MB, less than frames may wait for a node."""
SLICE: Final = 16 * 1024
"""Bytes of one part of a memory that is handed over: under a millisecond at either end."""
AHEAD: Final = 8
"""Such parts on their way to one newcomer."""
_HANDSHAKES: Final = 0
_REPEATED: Final = 4096
_TRIM: Final = 4096
_AT_ONCE: Final = 1024
_STEP: Final = 128
_NODES: Final = 1024
_MOST: Final = 2**63
_RING: Final = 4096
"""Nonces of one key that are handed over, where an operator lets more be remembered."""


class View:
    """What a node hands over: how many nonces of each node are in it, and the keys of each memory."""

    __slots__ = ("_keys", "have")

    def __init__(self, have: dict[bytes, int]) -> None:
        self.have = have
        self._keys: dict[int, list[bytes]] = {}

    def keys(self, number: int, memory: ReplayMemory) -> list[bytes]:
        """Return the keys of a memory, as of when they were first wanted: some milliseconds for one that is full."""
        if number not in self._keys:
            self._keys[number] = memory.latest()
        return self._keys[number]


class Nonces:
    """Tells other nodes of nonces, and remembers what they tell."""

    def __init__(self, node: "Backplane") -> None:
        core, key = node.core, node.seals.shared_key
        self._node = node
        self._memories: tuple[ReplayMemory, ...] = (core.handshakes_seen, core.commands_seen)
        self._repeated: dict[tuple[Peer, bytes], None] = {}
        # Our own: how many there were, and the last of them, packed.
        self._serial = self._base = 0
        self._log = bytearray()
        # Of each other node, by its number: how many of its own we have without a gap.
        self._have: dict[bytes, int] = {}
        # Nodes whose past is not here yet, with how many of their own they had when we met.
        self._lacking: dict[Peer, int] = {}
        # Nodes that have yet to say how many they took, or to send what of these is missing here: up to which.
        self._awaited: dict[Peer, int] = {}
        self._joined = False
        self._donor: Peer | None = None
        self._giving: dict[Peer, Iterator[tuple[Kind, bytes]]] = {}
        self._view: View | None = None
        for number, memory in enumerate(self._memories):
            memory.share(key, partial(self._taken, number))

    def close(self) -> None:
        """Tell nobody any more."""
        for memory in self._memories:
            memory.alone()

    def joined(self) -> None:
        """This node listens from now on: whoever comes later may ask it for what came before, once it has that."""
        self._joined = True

    @property
    def whole(self) -> bool:
        """Whether the past of all nodes with a link is here."""
        told = not self._lacking and not self._awaited
        return told and all(peer.number in self._have for peer in self._node.peers if peer.up)

    # --- Live --------------------------------------------------------------------------------------------------------

    def _taken(self, number: int, key: bytes, digest: bytes) -> None:
        body = SEEN.pack(self._serial, number, key, digest)
        self._serial += 1
        self._log += body[SERIAL.size :]
        if len(self._log) >= (LOGGED + _TRIM) * NONCE.size:
            del self._log[: _TRIM * NONCE.size]
            self._base += _TRIM
        self._node.tell_all(Kind.SEEN, body)

    def seen(self, peer: Peer, body: bytes) -> None:
        """Another node saw a nonce just now."""
        if len(body) != SEEN.size:
            self._node.count("malformed")
            return
        serial, number, key, digest = SEEN.unpack(body)
        # What we know already is a repetition only where all of before is here: else somebody else told it first.
        in_order = self._have.get(peer.number) == serial
        if in_order:
            self._have[peer.number] = serial + 1
        if number >= len(self._memories):
            self._node.count("unknown")
        elif self._memories[number].remember(key, digest):
            if number == _HANDSHAKES:
                # What was repeated before may have claimed nothing here; this one is its owner's.
                self._repeated.pop((peer, key), None)
        elif number == _HANDSHAKES and in_order and not self._lacking:
            if len(self._repeated) >= _REPEATED:
                self._repeated.clear()
            self._repeated[peer, key] = None

    def repeated(self, peer: Peer, x_pub: bytes) -> bool:
        """Tell, once, whether the last handshake with a key that another node took was one that we had seen."""
        entry = (peer, self._memories[_HANDSHAKES].digest(x_pub))
        if entry not in self._repeated:
            return False
        del self._repeated[entry]
        return True

    # --- Meeting -----------------------------------------------------------------------------------------------------

    def established(self, peer: Peer) -> None:
        """There is a link to a node that knows nothing of what was said before."""
        self._awaited[peer] = NEVER
        self._meet(peer, self._have.get(peer.number, NEVER))

    def _meet(self, peer: Peer, have: int) -> None:
        peer.put(Kind.MEET, MEET.pack(self._serial, have, self._joined and not self._lacking))

    def met(self, peer: Peer, body: bytes) -> None:
        """Another node tells how many it took itself, how many of ours it has, and whether it has all there is."""
        if len(body) != MEET.size:
            self._node.count("malformed")
            return
        serial, have, whole = MEET.unpack(body)
        if serial > _MOST:
            self._node.count("malformed")
            return
        self._awaited.pop(peer, None)
        if peer.number not in self._have:
            self._known(peer.number, serial)
            if whole:
                self._lacks(peer, serial)
            elif serial:
                # It is as new as we are, or still asks others for the past: all that it can add is its own.
                self._meet(peer, 0)
                self._awaited[peer] = serial
        elif serial > self._have[peer.number]:
            self._awaited[peer] = serial
        if have != NEVER:
            self._tell_missed(peer, have)
        self._node.linked()

    def _known(self, number: bytes, serial: int) -> None:
        self._have[number] = serial
        if len(self._have) > _NODES:
            here = {peer.number for peer in self._node.peers}
            del self._have[next(each for each in self._have if each not in here)]

    def _tell_missed(self, peer: Peer, have: int) -> None:
        # One after another in the stream, and ahead of all that is taken from now on: there is no gap after it. It is
        # some megabytes at most, and copying them is all that it takes here.
        for first in range(max(have, self._base), self._serial, _AT_ONCE):
            start = (first - self._base) * NONCE.size
            part = self._log[start : start + _AT_ONCE * NONCE.size]
            peer.put(Kind.MISSED, SERIAL.pack(first) + part)

    def missed(self, peer: Peer, body: bytes) -> None:
        """Another node tells what it took while we did not hear it."""
        if len(body) < SERIAL.size:
            self._node.count("malformed")
            return
        (first,) = SERIAL.unpack_from(body)
        if first > _MOST:
            self._node.count("malformed")
            return
        have = self._have.get(peer.number)
        if have is not None:
            if first > have:
                # It is too much for what it keeps; somebody's memory has more of it.
                self._lacks(peer, first)
            have = max(have, first + (len(body) - SERIAL.size) // NONCE.size)
            self._have[peer.number] = have
            if have >= self._awaited.get(peer, NEVER):
                del self._awaited[peer]
                self._node.linked()
        self._node.core.turns.task(self._remember(body[SERIAL.size :]))

    def _remember(self, entries: bytes) -> Iterator[None]:
        for count, part in enumerate(split(entries, NONCE.size), 1):
            number, key, digest = NONCE.unpack(part)
            if number < len(self._memories):
                self._memories[number].remember(key, digest)
            if count % _STEP == 0:
                yield

    # --- Asking for the past -----------------------------------------------------------------------------------------

    def _lacks(self, peer: Peer, serial: int) -> None:
        self._lacking[peer] = serial
        self._ask()

    def _ask(self) -> None:
        if self._donor is None and self._lacking:
            peers = list(self._lacking)
            # Any of them, so that many newcomers do not all ask the same one.
            chosen = int.from_bytes(self._node.random(4), "big") % len(peers) if len(peers) > 1 else 0
            self._donor = peers[chosen]
            self._donor.put(Kind.PAST_ASKED, bytes((AHEAD,)))

    def past(self, peer: Peer, body: bytes) -> None:
        """Take a part of the memory of the node that was asked."""
        if peer is self._donor and body:
            peer.put(Kind.PAST_ASKED, b"\1")
            if body[0] < len(self._memories):
                self._inherit(self._memories[body[0]], body[1:])

    @staticmethod
    def _inherit(memory: ReplayMemory, body: bytes) -> None:
        at = 0
        while at + RING.size <= len(body):
            key, count = RING.unpack_from(body, at)
            at += RING.size
            ring = body[at : at + NONCE_DIGEST * count]
            at += len(ring)
            if ring and len(ring) == NONCE_DIGEST * count:
                memory.inherit(key, ring)

    def past_ended(self, peer: Peer, body: bytes) -> None:
        """The node that was asked gave all, and tells how many nonces of each node were in that."""
        if peer is not self._donor:
            return
        self._donor = None
        lacking = {each.number: each for each in self._lacking}
        linked = {each.number: each for each in self._node.peers if each.up}
        for part in split(body, HAVE.size):
            number, have = HAVE.unpack(part)
            node = lacking.get(number)
            if node is None:
                if number not in self._have and number != self._node.number and have <= _MOST:
                    self._known(number, have)
                    if number in linked:
                        # It was told that we have nothing of it, and its word is on its way: what it took since the
                        # donor heard of it nobody else would bring.
                        self._meet(linked[number], have)
            else:
                serial = self._lacking.pop(node)
                if serial > have:
                    # Told to the one that gave, and to us, at times between which it took some.
                    self._meet(node, have)
                    self._awaited[node] = serial
        self._lacking.pop(peer, None)
        self._ask()
        self._node.linked()

    # --- Giving it ---------------------------------------------------------------------------------------------------

    def past_asked(self, peer: Peer, body: bytes) -> None:
        """Another node wants our memory: the first parts of it, or one more."""
        count = body[0] if body else 0
        if count != 1:
            self._giving[peer] = self._parts(self._current_view())
        parts = self._giving.get(peer)
        if parts is not None:
            self._node.core.turns.task(self._give(peer, parts, min(count, AHEAD)))

    def _current_view(self) -> View:
        # One for all who ask at the same time.
        if self._view is None:
            lacking = {peer.number for peer in self._lacking}
            have = {number: count for number, count in self._have.items() if number not in lacking}
            self._view = View({**have, self._node.number: self._serial})
        return self._view

    def _give(self, peer: Peer, parts: Iterator[tuple[Kind, bytes]], count: int) -> Iterator[None]:
        for _ in range(count):
            if self._giving.get(peer) is not parts:
                return
            part = next(parts, None)
            if part is None:
                self._given(peer)
                return
            peer.put(*part)
            yield

    def _given(self, peer: Peer) -> None:
        self._giving.pop(peer, None)
        if not self._giving:
            self._view = None

    def _parts(self, view: View) -> Iterator[tuple[Kind, bytes]]:
        for number, memory in enumerate(self._memories):
            part = bytearray((number,))
            for key in view.keys(number, memory):
                ring = memory.ring(key)[-NONCE_DIGEST * _RING :]
                part += RING.pack(key, len(ring) // NONCE_DIGEST) + ring
                if len(part) >= SLICE:
                    yield Kind.PAST, bytes(part)
                    part = bytearray((number,))
            if len(part) > 1:
                yield Kind.PAST, bytes(part)
        yield Kind.PAST_ENDED, b"".join(HAVE.pack(number, count) for number, count in view.have.items())

    def node_gone(self, peer: Peer) -> None:
        """A node is gone, or begins anew."""
        self._repeated = {entry: None for entry in self._repeated if entry[0] is not peer}
        self._given(peer)
        self._awaited.pop(peer, None)
        if peer.number in self._have:
            # Who asks next is to get all that this one said.
            self._view = None
        if self._lacking.pop(peer, None) is not None:
            # Should it come back it is asked again.
            del self._have[peer.number]
        if self._donor is peer:
            self._donor = None
            self._ask()
            self._node.linked()
