"""Who is connected, and who wants to know. Pure: sessions are opaque here, `now` is passed in.

Nothing here outlives the sessions it speaks of, but for the flapping memory of :class:`Presence`: it holds the public
keys that somebody watched for (burst + 1) / rate seconds after their last change, 70 by default.
"""

from collections import OrderedDict
from collections.abc import Iterable
from enum import IntFlag
from typing import Generic, Protocol, TypeVar

from keys.identity import ID_SIZE, PublicIdentity


class Connected(Protocol):
    """What the hub needs of a session."""

    @property
    def public(self) -> PublicIdentity:
        """The public keys that the session's handshake proved."""


Session = TypeVar("Session", bound=Connected)


class Change(IntFlag):
    """What happened to a key since its watchers were told: both, when a session was replaced."""

    OFFLINE = 1
    ONLINE = 2


class Hub(Generic[Session]):
    """The sessions by id. One id, one session: `relay.claims` decides whose."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {}

    def add(self, session: Session) -> None:
        """Enter a session; its id must be free."""
        if session.public.id in self.sessions:
            raise AssertionError("the id is taken")
        self.sessions[session.public.id] = session

    def remove(self, session: Session) -> bool:
        """Take a session out; tell whether it was in."""
        if self.sessions.get(session.public.id) is not session:
            return False
        del self.sessions[session.public.id]
        return True

    def online(self, x_pub: bytes) -> Session | None:
        """Return the session of the owner of `x_pub`, by the whole key and not its id alone."""
        session = self.sessions.get(x_pub[:ID_SIZE])
        return session if session is not None and session.public.x_pub == x_pub else None


class Presence(Generic[Session]):
    """Who watches whom, and how often what changed is told.

    A key may change `burst` times at once; after that its watchers are told of its state at `rate` per second, so that
    one client that flaps does not make the relay seal for thousands.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        # dict, not set: told in the order of subscribing, and removal is as cheap.
        self._watchers: dict[bytes, dict[Session, None]] = {}
        self._pending: dict[bytes, Change] = {}
        self._due: OrderedDict[bytes, float] = OrderedDict()
        self._changes: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self.subscriptions = 0
        """Pairs of a session and a key that it watches."""

    def change(self, rate: float, burst: int, now: float) -> None:
        """Damp in another way from now on; what waits to be told waits no longer than it would by the new rate."""
        self._rate = rate
        self._burst = float(burst)
        for x_pub, when in self._due.items():
            # A debt is one at most, and one more is needed to be told.
            self._due[x_pub] = min(when, now + 2 / rate) if rate > 0 else now

    def watch(self, session: Session, x_pubs: Iterable[bytes]) -> None:
        """Let a session watch these keys."""
        for x_pub in x_pubs:
            watchers = self._watchers.setdefault(x_pub, {})
            if session not in watchers:
                watchers[session] = None
                self.subscriptions += 1

    def unwatch(self, session: Session, x_pubs: Iterable[bytes]) -> None:
        """Let a session no longer watch these keys."""
        for x_pub in x_pubs:
            watchers = self._watchers.get(x_pub)
            if watchers is not None and session in watchers:
                del watchers[session]
                self.subscriptions -= 1
                if not watchers:
                    del self._watchers[x_pub]

    def changed(self, x_pub: bytes, change: Change, now: float) -> bool:
        """Note a change of a key that somebody watches; tell whether its watchers are to be told now.

        If not, :meth:`due` gives the key when it is time.
        """
        if x_pub not in self._watchers:
            return False
        waiting = x_pub in self._pending
        self._pending[x_pub] = self._pending.get(x_pub, Change(0)) | change
        if waiting:
            return False
        tokens, since = self._changes.get(x_pub, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        # Debt is allowed down to one: it is the turn of the one announcement that waits.
        self._changes[x_pub] = (max(tokens - 1, -1.0), now)
        self._changes.move_to_end(x_pub)
        if tokens >= 1 or self._rate <= 0:
            return True
        self._due[x_pub] = now + (1 - tokens) / self._rate
        return False

    def due(self, now: float) -> list[bytes]:
        """Return the keys whose damped announcements are due, and forget who has long been steady."""
        ready = [x_pub for x_pub, when in self._due.items() if when <= now]
        for x_pub in ready:
            del self._due[x_pub]
        lifetime = (self._burst + 1) / self._rate if self._rate > 0 else 0.0
        while self._changes:
            x_pub, (_, since) = next(iter(self._changes.items()))
            if now - since < lifetime:
                break
            del self._changes[x_pub]
        return ready

    def announce(self, x_pub: bytes) -> tuple[Change, list[Session]]:
        """Return what changed of a key since it was last told, and whom to tell."""
        change = self._pending.pop(x_pub, Change(0))
        return change, list(self._watchers.get(x_pub, ()))

    def is_watched(self, x_pub: bytes) -> bool:
        """Tell whether anybody watches a key."""
        return x_pub in self._watchers

    def watched_keys(self) -> list[bytes]:
        """Return all keys that somebody watches."""
        return list(self._watchers)

    @property
    def watched(self) -> int:
        """How many keys are watched."""
        return len(self._watchers)
