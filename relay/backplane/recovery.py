"""When to send again: whose frames were refused on their way to another node is told ONLINE, as under one relay.

A client sends again only at PEER_ONLINE (PROTOCOL.md §8.7), so nobody is told that before the recipient takes frames.
What a recipient itself refused its own node answers for. Here are the pairs whose frames did not come so far: once that
way is free again the recipient's node is asked, and says RECOVERED at once, or when what is queued there has drained.

Each way is waited for by itself. Where somebody is who moved meanwhile, or what was refused because the bus was lost,
is found by the presence of those that the sender watches: nobody else would be told.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from keys.identity import ID_SIZE
from relay.backplane.link import Peer
from relay.backplane.records import KEYS_PER_RECORD, PAIR, Kind, split
from relay.outbox import Correspondent

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.session import Session

REMEMBERED: Final = 65_536
"""Pairs of a sender and a recipient whose frames were refused on the way."""
REMEMBERED_EACH: Final = 1024
"""Of these, those of one sender: as many keys as it may watch, unless an operator raised that."""


class Recovery:
    """The pairs of a sender here and a recipient elsewhere whose frames were refused on the way."""

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        # By the node whose way was not free; None where that is not known.
        self._refused: dict[Peer | None, dict[bytes, set[bytes]]] = {}
        self._counts: dict[bytes, int] = {}
        self._pairs = 0

    def __len__(self) -> int:
        return self._pairs

    def remember(self, sender: bytes, target: bytes, peer: Peer | None) -> None:
        """A frame was refused, because of what lies before a node or because it is not known where its recipient is."""
        count = self._counts.get(sender, 0)
        # Who sends to ids at random must not take the others' room.
        if count >= REMEMBERED_EACH or self._pairs >= REMEMBERED:
            return
        targets = self._refused.setdefault(peer, {}).setdefault(sender, set())
        if target not in targets:
            targets.add(target)
            self._counts[sender] = count + 1
            self._pairs += 1

    def recover(self) -> None:
        """Ask for those to whom the way is free by now."""
        for peer in list(self._refused):
            if peer is None or not peer.alive or peer.flows:
                refused = self._refused.pop(peer)
                for sender, targets in refused.items():
                    self._pairs -= len(targets)
                    self._counts[sender] -= len(targets)
                    if not self._counts[sender]:
                        del self._counts[sender]
                self._node.core.turns.task(self._recover_steps(refused))

    def _recover_steps(self, refused: dict[bytes, set[bytes]]) -> Iterator[None]:
        for sender, targets in refused.items():
            session = self._node.core.sessions.get(sender)
            if session is None or session.watching is None:
                continue
            asked: defaultdict[Peer, list[bytes]] = defaultdict(list)
            # Once through what it watches, however many of its frames were refused.
            for x_pub in session.watching:
                if x_pub[:ID_SIZE] in targets:
                    peer = self._recover(session, x_pub)
                    if peer is not None:
                        asked[peer].append(PAIR.pack(sender, x_pub[:ID_SIZE]))
            for peer, pairs in asked.items():
                for start in range(0, len(pairs), KEYS_PER_RECORD):
                    peer.put(Kind.RETRY, b"".join(pairs[start : start + KEYS_PER_RECORD]))
            yield

    def _recover(self, session: "Session", x_pub: bytes) -> Peer | None:
        """Return the node to ask for a recipient, if it is at another one and the way there is free."""
        node, target = self._node, x_pub[:ID_SIZE]
        recipient = node.core.hub.online(x_pub)
        if recipient is not None:
            _tell(recipient, session)
            return None
        where = node.presence.where(x_pub)
        if node.router.waits(target) or (not where and node.presence.asks(x_pub)):
            self.remember(session.id, target, None)
            return None
        for peer in where:
            if peer.flows:
                return peer
        if where:
            self.remember(session.id, target, where[0])
        # Else it is offline, as far as anybody here was told, and whoever watches it is told when it comes.
        return None

    def asked(self, peer: Peer, body: bytes) -> None:
        """Frames of these senders at another node were refused on their way to these recipients of ours."""
        for pair in split(body, PAIR.size):
            sender, target = PAIR.unpack(pair)
            session = self._node.core.sessions.get(target)
            # Without one it went meanwhile, and that it did, and came back, is news for whoever watches it.
            if session is not None:
                _tell(session, self._node.parcels.sender(peer, sender))


def _tell(recipient: "Session", sender: Correspondent) -> None:
    if recipient.outbox.stalled:
        recipient.remember_refused(sender)
    else:
        sender.recovered(recipient.public.x_pub)
