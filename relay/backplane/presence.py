"""Who is online anywhere in the cluster, as far as somebody here watches.

Each node tells all others who came to it and who went. That is 37 bytes for each change and node, in batches that are
sent anyway, and it makes the order certain: what one node says of a key stands in one stream. What a node keeps is only
who is where of the keys that are watched at it. Of keys that nobody watched here before, all nodes are asked.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from keys.identity import ID_SIZE
from keys.primitives import KEY_SIZE
from relay.backplane.link import Peer
from relay.backplane.records import KEYS_PER_RECORD, Kind, split
from relay.hub import Change

if TYPE_CHECKING:
    from relay.backplane.node import Backplane

ANSWER_WITHIN: Final = 1.0
"""Seconds after which a watcher is told without the nodes that have not answered; what they say later is told then."""


class _Question:
    """Nodes that were asked, and whom to tell when all have answered."""

    __slots__ = ("asked", "done", "x_pubs")

    def __init__(self, asked: set[Peer], x_pubs: list[bytes], done: Callable[[], None]) -> None:
        self.asked = asked
        self.x_pubs = x_pubs
        self.done = done


class RemotePresence:
    """The keys that are watched here and online elsewhere."""

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        # More than one while a client moves: what two nodes say comes in any order, and each is right about itself.
        self._where: dict[bytes, tuple[Peer, ...]] = {}
        # How many of them begin with an id.
        self._ids: dict[bytes, int] = {}
        # With nodes that are forgotten, and not told yet. Gone they are already: the node may speak again at any time.
        self._leaving: set[bytes] = set()
        self._questions: dict[int, _Question] = {}
        self._asking: dict[bytes, int] = {}
        # Those of them of which nobody was told yet: whoever asked first waits for the answer.
        self._untold: set[bytes] = set()
        self._number = 0

    def __len__(self) -> int:
        return len(self._where)

    def online(self, x_pub: bytes) -> bool:
        """Whether a watched key is online at another node."""
        return x_pub in self._where

    def where(self, x_pub: bytes) -> tuple[Peer, ...]:
        """Return the other nodes at which a watched key is online: more than one while it moves."""
        return self._where.get(x_pub, ())

    def asks(self, x_pub: bytes) -> bool:
        """Whether the other nodes are being asked for a key."""
        return x_pub in self._asking

    def said_online(self, client_id: bytes) -> bool:
        """Whether watchers here believe that somebody with this id is online at another node."""
        return client_id in self._ids

    def _count(self, x_pub: bytes, change: int) -> None:
        client_id = x_pub[:ID_SIZE]
        count = self._ids.get(client_id, 0) + change
        if count:
            self._ids[client_id] = count
        else:
            del self._ids[client_id]

    def unknown(self, x_pub: bytes) -> bool:
        """Whether the other nodes must be asked for a key: nobody watches it here, or that is not answered yet."""
        return x_pub in self._asking or not self._node.core.presence.is_watched(x_pub)

    # --- Said by us --------------------------------------------------------------------------------------------------

    def changed(self, x_pub: bytes, *, online: bool) -> None:
        """Tell all nodes that a client came to us, or left."""
        self._node.tell_all(Kind.CAME if online else Kind.WENT, x_pub)

    def ask(self, x_pubs: list[bytes], done: Callable[[], None]) -> None:
        """Ask all nodes for keys that were not watched here before; `done` is called once they have answered."""
        node = self._node
        asked = {peer for peer in node.peers if peer.up} if node.bus.connected else set()
        for peer in node.peers:
            if peer not in asked:
                # Nobody waits for these. The question goes when there is a link again: if that goes on with what was
                # said before, nothing else would bring the answer.
                self._who(peer, 0, x_pubs)
        if not asked:
            done()
            return
        self._number = self._number + 1 & 0xFFFFFFFF
        number = self._number
        self._questions[number] = _Question(set(asked), x_pubs, done)
        for x_pub in x_pubs:
            count = self._asking.get(x_pub, 0)
            self._asking[x_pub] = count + 1
            if not count:
                self._untold.add(x_pub)
        for peer in asked:
            self._who(peer, number, x_pubs)
        node.later(ANSWER_WITHIN, self._overdue, number)

    @staticmethod
    def _who(peer: Peer, number: int, x_pubs: list[bytes]) -> None:
        peer.put(Kind.WHO, number.to_bytes(4, "big") + b"".join(x_pubs))

    def _overdue(self, number: int) -> None:
        question = self._questions.get(number)
        if question is not None:
            self._done(number, question)

    def _done(self, number: int, question: _Question) -> None:
        del self._questions[number]
        for x_pub in question.x_pubs:
            self._asking[x_pub] -= 1
            if not self._asking[x_pub]:
                del self._asking[x_pub]
        # Whoever asked is told now. From here on changes are news, also while another still waits for its own answer.
        self._untold.difference_update(question.x_pubs)
        question.done()

    def ask_all(self, peer: Peer) -> Iterator[None]:
        """Ask a node that is new to us for all keys that are watched here, in slices."""
        watched = self._node.core.presence.watched_keys()
        for start in range(0, len(watched), KEYS_PER_RECORD):
            if not peer.alive:
                return
            self._who(peer, 0, watched[start : start + KEYS_PER_RECORD])
            yield

    # --- Said by others ----------------------------------------------------------------------------------------------

    def came(self, peer: Peer, body: bytes) -> None:
        """Somebody came to another node."""
        if len(body) == KEY_SIZE:
            self._here(peer, body)

    def _here(self, peer: Peer, x_pub: bytes) -> None:
        core = self._node.core
        before = self._where.get(x_pub, ())
        if peer in before or not core.presence.is_watched(x_pub):
            return
        self._where[x_pub] = (*before, peer)
        if not before:
            self._count(x_pub, 1)
        moved = bool(before) or x_pub in self._leaving
        self._leaving.discard(x_pub)
        if x_pub in self._untold:
            return  # whoever asked is told in a moment, and nobody else watches it
        # One that was elsewhere was replaced: its watchers are told both.
        core.presence_changed(x_pub, Change.ONLINE | Change.OFFLINE if moved else Change.ONLINE)

    def _gone(self, peer: Peer, x_pub: bytes) -> None:
        if self._forget(peer, x_pub) and x_pub not in self._untold:
            self._node.core.presence_changed(x_pub, Change.OFFLINE)

    def _forget(self, peer: Peer, x_pub: bytes) -> bool:
        """Count a key as gone from a node; tell whether it is now nowhere else, and was there."""
        before = self._where.get(x_pub, ())
        if peer not in before:
            return False
        left = tuple(other for other in before if other is not peer)
        if left:
            self._where[x_pub] = left
            return False
        del self._where[x_pub]
        self._count(x_pub, -1)
        return True

    def went(self, peer: Peer, body: bytes) -> None:
        """Somebody left another node."""
        self._gone(peer, body)

    def asked(self, peer: Peer, body: bytes) -> None:
        """Another node asks which of these keys are here."""
        hub = self._node.core.hub
        here = [x_pub for x_pub in split(body[4:], KEY_SIZE) if hub.online(x_pub) is not None]
        peer.put(Kind.HERE, body[:4] + b"".join(here))

    def answered(self, peer: Peer, body: bytes) -> None:
        """Another node says which keys are with it."""
        number = int.from_bytes(body[:4], "big")
        question = self._questions.get(number)
        for x_pub in split(body[4:], KEY_SIZE):
            self._here(peer, x_pub)
        if question is not None:
            question.asked.discard(peer)
            self._complete(number, question)

    def _complete(self, number: int, question: _Question) -> None:
        if not question.asked:
            self._done(number, question)

    # --- Nodes come and go -------------------------------------------------------------------------------------------

    def node_gone(self, peer: Peer) -> Iterator[None]:
        """A node is gone, or begins anew: who was with it is offline until it is said otherwise; told in slices."""
        for number, question in list(self._questions.items()):
            question.asked.discard(peer)
            self._complete(number, question)
        there = [x_pub for x_pub, where in self._where.items() if peer in where]
        # All at once: what the node says from now on, should it begin anew, is not to be taken for what it said before.
        gone = [x_pub for x_pub in there if self._forget(peer, x_pub)]
        self._leaving.update(gone)
        return self._tell_gone(gone)

    def _tell_gone(self, gone: list[bytes]) -> Iterator[None]:
        for count, x_pub in enumerate(gone, 1):
            if x_pub in self._leaving:
                self._leaving.discard(x_pub)
                if x_pub not in self._untold:
                    self._node.core.presence_changed(x_pub, Change.OFFLINE)
            if count % 64 == 0:
                yield

    def forget_unwatched(self, x_pubs: Iterable[bytes]) -> None:
        """Keep nothing of keys that nobody here watches any more."""
        for x_pub in x_pubs:
            if self._where.pop(x_pub, None) is not None:
                self._count(x_pub, -1)
            self._leaving.discard(x_pub)
