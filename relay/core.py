"""What the sessions share: the hub, the budgets, the memories, and the rules that touch more than one session."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from websockets.frames import CloseCode

from keys.identity import Identity
from keys.primitives import random_bytes
from relay.about import About
from relay.admission import Admission
from relay.callout import Asker
from relay.claims import Elsewhere, Queue
from relay.contest import Contest
from relay.control import Control
from relay.counters import Counters
from relay.crowding import Crowding
from relay.door import Door
from relay.entry import Entry
from relay.guard import Buckets, ReplayMemory
from relay.hub import Change, Hub, Presence
from relay.journal import Journal
from relay.limits import Limits
from relay.metered import MeteredSocket
from relay.outbox import Budget, Correspondent, Outbox
from relay.pages import Pages
from relay.proxies import Front
from relay.ready import Ready
from relay.reasons import Ending, Held, Refusal
from relay.session import Session
from relay.settling import Settling
from relay.turns import Turns
from relay.websocket import Phase
from wire.frames import Random

if TYPE_CHECKING:
    from relay.backplane.link import Peer
    from relay.backplane.node import Backplane


class Core:
    """The relay without its sockets' listening side.

    Args:
        loop: the event loop that the sessions' transports belong to.
        identity: the relay's own keys, the only secret it has.
        limits: see :class:`relay.limits.Limits`.
        notifier_id: the client id (8 bytes) of the push notifier, if there is one.
        random: gives nonces, challenges and ping payloads.
        about: what the operator says of the relay; its notice goes to every client.
        journal: takes a line for each session under a pseudonym; without one there is no such line.
        admission: who may use the relay; everybody without it.
        callout: asks the operator's own service about each client, if there is one.
        front: whose word about addresses is taken.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        identity: Identity,
        limits: Limits,
        notifier_id: bytes | None = None,
        random: Random = random_bytes,
        about: About | None = None,
        journal: Journal | None = None,
        admission: Admission | None = None,
        callout: Asker | None = None,
        front: Front | None = None,
    ) -> None:
        self.loop = loop
        self.clock: Callable[[], float] = loop.time
        self.identity = identity
        self.limits = limits
        self.notifier_id = notifier_id
        self.random = random
        self.about = about or About()
        self.journal = journal
        self.ready = Ready()
        self.admission = admission or Admission()
        self.callout = callout
        self.front = front or Front()
        self.crowding = Crowding()
        self.counters = Counters()
        self.turns = Turns(loop, limits.slice)
        self.hub: Hub[Session] = Hub()
        self.sessions = self.hub.sessions
        self.presence: Presence[Session] = Presence(limits.presence_per_second, limits.presence_burst)
        self.budget: Budget[Correspondent, Session] = Budget(limits)
        self.remote: dict[bytes, Peer] = {}
        """Nodes of ids that are not here, as far as known; always empty without a cluster."""
        self.cluster: Backplane | None = None
        """The other relays that are one with this, if there are any."""
        self.subscriptions = 0
        self.partial_used = 0
        self.partials: dict[MeteredSocket, None] = {}
        self.handshakes_seen = ReplayMemory(limits.replay_ring, limits.replay_keys, random)
        self.commands_seen = ReplayMemory(limits.replay_ring_commands, limits.replay_keys, random)
        self.handshake_rate = Buckets(*limits.rate("handshakes"), limits.rate_keys, random)
        self.claims: Queue[Session | Elsewhere] = Queue(limits.claim_queue)
        self.control = Control(self)
        self.door = Door(self)
        self.entry = Entry(self)
        self.contest = Contest(self)
        # Each with the time at which it was accepted.
        self.connections: dict[Session, float] = {}
        # In the order of their deadlines, which are equal: the pulse looks at the front alone.
        self.opening: dict[Session, float] = {}
        self.closing: dict[Session, float] = {}
        self.draining = False
        """Nobody is let in any more, and no presence told: all go, and all will be back."""
        self.stopping = False
        """What is still owed is paid at once, whatever the pace was."""
        self._settling: Settling | None = None
        self._relieving = False
        self._heaviest: Outbox[Correspondent] | None = None
        self._next_scan = 0.0
        self.pages = Pages(self, "ws://127.0.0.1/ws", url_is_set=False)

    def listens_at(self, url: str, *, is_set: bool) -> None:
        """Tell the pages under which URL clients reach the relay, and whether the operator said so."""
        self.pages = Pages(self, url, url_is_set=is_set)
        self.pages.draw()

    # --- Sessions come and go ----------------------------------------------------------------------------------------

    def leave(self, session: Session) -> None:
        """Take a session out of everything, once; what was queued for it is answered to its senders."""
        self.opening.pop(session, None)
        if session.phase is Phase.CLOSING and session in self.connections:
            self.closing.setdefault(session, self.clock())
        self._set_partial(session, 0)
        self.budget.resume(session.outbox)
        session.outbox.clear_marks()
        if session.wire is None:
            return
        session.wire.close()
        if session.unmask is None:
            self.contest.gave_up(session)
            return
        if not self.hub.remove(session):
            return
        if self.journal is not None:
            now = self.clock()
            age = now - self.connections.get(session, now)
            self.journal.ended(session, session.ended or Ending.CLIENT, age, session.malformed, now)
        if session.place is not None:
            self.crowding.left(session.place)
        if session.watching is not None:
            self.subscriptions -= len(session.watching)
            self.unwatch(session, session.watching)
            session.watching = None
        session.presence = session.refusals = session.refused = None
        self.refuse_all(session, session.outbox.drop_peer_frames(), Refusal.RECIPIENT_GONE)
        self.presence_changed(session.public.x_pub, Change.OFFLINE)
        if self.cluster is not None:
            self.cluster.left(session)
        self.contest.id_free(session.id)

    def lost(self, session: Session) -> None:
        """Forget a connection whose transport is gone."""
        self.closing.pop(session, None)
        if self._heaviest is session.outbox:
            self._heaviest, self._next_scan = None, 0.0
        self.door.left(session)
        if session in self.connections:
            del self.connections[session]
            ending = session.ended or Ending.CLIENT
            self.counters.endings[ending] += 1
            if self.journal is not None:
                self.journal.forget(session)
                if session.wire is not None and session.unmask is None:
                    self.journal.refused(session, ending, self.clock())

    # --- Refusals and presence ---------------------------------------------------------------------------------------

    def online(self, x_pub: bytes) -> bool:
        """Tell whether the owner of a key that is watched here is online, here or at another node."""
        if self.hub.online(x_pub) is not None:
            return True
        return self.cluster is not None and self.cluster.presence.online(x_pub)

    def refuse_all(self, recipient: Session, frames: Iterator[tuple[Correspondent, bytes]], refusal: Refusal) -> None:
        """Answer frames that were queued for a recipient with 0x03, in slices: there can be tens of thousands."""
        self.turns.task(self._refuse_steps(recipient.id, frames, refusal))

    @staticmethod
    def _refuse_steps(target: bytes, frames: Iterator[tuple[Correspondent, bytes]], refusal: Refusal) -> Iterator[None]:
        for count, (sender, nonce) in enumerate(frames):
            sender.refuse(target, nonce, refusal)
            if count % 64 == 63:
                yield

    def presence_changed(self, x_pub: bytes, change: Change) -> None:
        """Tell the watchers of a key of a change, now or when its flapping allows."""
        if not self.draining and self.presence.changed(x_pub, change, self.clock()):
            self.announce(x_pub)

    def unwatch(self, session: Session, x_pubs: Iterable[bytes]) -> None:
        """Let a session no longer watch these keys."""
        self.presence.unwatch(session, x_pubs)
        if self.cluster is not None:
            self.cluster.presence.forget_unwatched(x_pub for x_pub in x_pubs if not self.presence.is_watched(x_pub))

    def announce(self, x_pub: bytes) -> None:
        """Tell the watchers of a key what changed since they were last told, in slices."""
        self.turns.task(self._announce_steps(x_pub))

    def _announce_steps(self, x_pub: bytes) -> Iterator[None]:
        change, watchers = self.presence.announce(x_pub)
        for count, watcher in enumerate(watchers):
            # Each may have gone, or stopped watching, since the list was made.
            if watcher.watching is not None and x_pub in watcher.watching:
                watcher.note_presence(x_pub, change)
            if count % 64 == 63:
                yield

    # --- Memory ------------------------------------------------------------------------------------------------------

    def make_way(self, outbox: Outbox[Correspondent], size: int) -> bool:
        """Find room in the total for `size` bytes more of a stalled outbox; heavier ones give way to it."""
        if self.budget.fits(outbox, size):
            self.relieve_if_exceeded()
            return True
        # Looking for the heaviest costs time for each stalled outbox: whoever is it need not be told so at every frame.
        now = self.clock()
        if now < self._next_scan and self._heaviest in (None, outbox):
            return False
        self.budget.reclaim()
        if self.budget.fits(outbox, size):
            return True
        heaviest = self.budget.heaviest(now, beyond_share=True)
        while heaviest is not None and heaviest is not outbox:
            self._shed(heaviest)
            if not outbox.stalled:
                return False  # it ended with what had to give way
            if self.budget.fits(outbox, size):
                return True
            heaviest = self.budget.heaviest(now, beyond_share=True)
        self._heaviest, self._next_scan = heaviest, now + 0.05
        return False

    def reserve_partial(self, session: MeteredSocket, size: int) -> bool:
        """Reserve room for an unfinished message, 0 to give it back; the oldest ones give way to it, in time.

        Without that, as many as fill the pool and then go on slowly would keep all others waiting.
        """
        limits = self.limits
        if size <= session.partial_size:
            self._set_partial(session, size)
            return True
        oldest = self.clock() - limits.partial_grace
        while self.partial_used - session.partial_size + size > limits.partial_total:
            # In the order of their first reservation. The first always gets its room, so it never waits for it, and is
            # answerable for its time.
            first = next(iter(self.partials), session)
            if first is session:
                break
            if first.held or first.partial_since > oldest or first.partial_since == 0.0:
                return False
            first.end(Ending.SLOW_FRAME, CloseCode.POLICY_VIOLATION, "no room for a message that comes so slowly")
        self._set_partial(session, size)
        return True

    def _set_partial(self, session: MeteredSocket, size: int) -> None:
        self.partial_used += size - session.partial_size
        session.partial_size = size
        if size:
            self.partials[session] = None
        else:
            self.partials.pop(session, None)

    def relieve_if_exceeded(self) -> None:
        """If shares and frames of our own took the total over its bound, bring it back once this turn is over."""
        if self.budget.exceeded and not self._relieving:
            self._relieving = True
            self.loop.call_soon(self._relieve)

    def _relieve(self) -> None:
        self._relieving = False
        if self.budget.exceeded:
            self.budget.reclaim()
        while self.budget.exceeded:
            now = self.clock()
            heaviest = self.budget.heaviest(now, beyond_share=True)
            if heaviest is None:
                # Nobody has more than a share: there are too many shares.
                heaviest = self.budget.heaviest(now)
            if heaviest is None:
                return
            self._shed(heaviest)

    def _shed(self, outbox: Outbox[Correspondent]) -> None:
        """Let a stalled outbox give way: its frames are answered 0x03; with none left, its session ends."""
        session = self.budget.stalled[outbox]
        self.counters.shed += 1
        if outbox.size == 0:
            session.abort(Ending.STALLED)
            return
        for sender in outbox.peers():
            session.remember_refused(sender)
        self.refuse_all(session, outbox.drop_peer_frames(), Refusal.SHED)
        if outbox.size:
            # The server's own frames: without them the client would be told less than the truth.
            session.abort(Ending.STALLED)
        else:
            self.budget.shrunk(outbox, session.transport.get_write_buffer_size())

    # --- Limits that change ------------------------------------------------------------------------------------------

    def change_limits(self, limits: Limits) -> None:
        """Go by other limits from now on, with those too who are here already. Nobody's session ends by that.

        What would end sessions comes into force in time (see :class:`relay.settling.Settling`).
        """
        now = self.clock()
        self._settling = Settling(self.limits, limits, now)
        self.turns.change(limits.slice)
        self.presence.change(limits.presence_per_second, limits.presence_burst, now)
        self.handshakes_seen.change(limits.replay_ring, limits.replay_keys)
        self.commands_seen.change(limits.replay_ring_commands, limits.replay_keys)
        self.handshake_rate.change(*limits.rate("handshakes"), limits.rate_keys)
        self.claims.change(limits.claim_queue)
        self.control.change(limits)
        self.door.change(limits)
        if self.callout is not None:
            self.callout.change(limits)
        self.settle_limits(now)
        self.turns.task(self._change_steps())

    def settle_limits(self, now: float) -> None:
        """Let those limits come into force whose time it is."""
        if self._settling is None:
            return
        self.limits = self._settling.in_force(now, self.budget.used, self.partial_used)
        self.budget.change(self.limits)
        if self._settling.settled:
            self._settling = None

    def _change_steps(self) -> Iterator[None]:
        # In slices, for there may be a hundred thousand; each takes the limits that are in force when it is its turn.
        for count, session in enumerate(list(self.connections)):
            if session in self.connections:
                session.limits_changed()
                if session.refusals:
                    self.turns.work(session)  # their pace may be another, or none
                if not session.outbox.stalled:
                    session.outbox.room = self.limits.flush_size
            if count % 64 == 63:
                yield

    # --- Time --------------------------------------------------------------------------------------------------------

    def hold_for(self, session: MeteredSocket, reason: int, seconds: float, spent: Held) -> None:
        """Hold a session's reads for a while, 10 ms at least."""
        if not session.held & reason:
            self.counters.held[spent] += 1
            if self.journal is not None:
                self.journal.slowed(session)
            session.hold(reason)
            self.loop.call_later(max(seconds, 0.01), session.release, reason)

    def later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Call something later."""
        self.loop.call_later(seconds, call, *args)
