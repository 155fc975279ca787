"""How much is sent to each push server, and which are left alone for a while. By origin, in memory alone.

Whoever registers chooses the server, and ids cost nothing. So a stranger may choose one that never answers, and hold
workers with it; may share a server with many people here, and try to have it left alone for all of them; or may name a
server that is no push server, and have us post to it. Against that:

- A server that does not answer, or says 503, is left alone, for longer each time.
- 429 is about one subscription (RFC 8030 §8.4), and that one waits as it is asked to. But a plain ntfy counts what one
  *sender* posts, and whoever goes on gets blocked. So when several tokens of a server are told 429, and nothing was
  taken in between, the whole server rests. One taken push ends that: it serves us. A stranger with tokens of their own
  that are told 429 so delays others by seconds, and only where nobody else's pushes come through meanwhile.
- A server that never took a push is posted to a few times a minute, all such servers together so many times a second,
  and one that took some no faster than any real user base needs. What only web sites answer counts against it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_FAULTS: Final = 3
"""Faults in a row after which a server is left alone. One device alone does not get there while others succeed."""
_FIRST_PAUSE: Final = 15.0
_LONGEST_PAUSE: Final = 300.0
_LONGEST_UNSERVED: Final = 3600.0
"""Seconds of rest: at first, at most, and at most for servers that never took a push."""
_LIMITED_TOKENS: Final = 3
"""Tokens of a server that are told 429, with nothing taken in between, after which it rests."""
_LIMITED_WINDOW: Final = 60.0
"""Seconds within which that has to happen."""
_LIMITED_KEPT: Final = 16
"""Tokens remembered for that, of each server."""
_LIMITED_WAIT: Final = 60.0
"""Seconds of rest where a 429 names none: what ntfy's and most other limits need to have room for some pushes again."""
_CALL_TRY: Final = 10.0
"""Seconds between two calls that try a server which rests for 429s: a call cannot wait until the rest is over."""
_STRANGE: Final = 20
"""Answers in a row that no push service gives, after which a server counts as one that never took a push."""
_ORIGINS_MAX: Final = 1000
"""Servers remembered that took pushes, and four times as many that did not: some 3 MB. The longest unused goes."""
_UNPROVEN_EACH: Final = 5
"""Pushes in a row to a server that never took one; then as many a minute as the limit says."""
_UNPROVEN_ALL: Final = 20.0
"""Pushes a second to all of them together: with names under one domain there is any number of servers."""
_BURST: Final = 10.0
"""Seconds of its rate that a server may get at once."""
_LINE_MAX: Final = 120.0
"""Most seconds for which somebody is sent away because of others before them: so nobody's line is full for good."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Pushes a second to one server that took some before, and pushes a minute to one that never did."""

    proven: float = 50.0
    unproven: float = 6.0


@dataclass(slots=True)
class _Bucket:
    """Lets through `rate` a second, and `most` at once. Who is sent away is given a time that nobody else was given."""

    rate: float
    most: float
    level: float
    at: float
    line: float = 0.0
    """Until when those who were sent away have been given times."""

    def wait(self, now: float, urgent: bool) -> float:
        """Return 0 and take one, or the seconds until there may be one."""
        self.level = min(self.most, self.level + (now - self.at) * self.rate)
        self.at = now
        # The last fifth is for calls.
        floor = 1.0 if urgent else 1.0 + min(self.most / 5, self.most - 1.0)
        if self.level >= floor:
            self.level -= 1.0
            return 0.0
        short = (floor - self.level) / self.rate
        if urgent:
            return short
        self.line = min(max(self.line, now + short) + 1.0 / self.rate, now + _LINE_MAX)
        return self.line - now

    def give_back(self) -> None:
        """Take the last one back: it was not sent."""
        self.level += 1.0


@dataclass(slots=True)
class _State:
    few: _Bucket
    """While it takes none."""
    many: _Bucket | None = None
    """While it takes pushes; made when it first does, and kept: to lose that and win it back gains nothing."""
    proven: bool = False
    """Whether it takes pushes."""
    faults: int = 0
    strange: int = 0
    until: float = 0.0
    limited: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By token: when it was told 429, and until when it is to wait."""
    rests_until: float = 0.0
    try_at: float = 0.0
    try_step: float = _FIRST_PAUSE
    call_at: float = 0.0


class Breaker:
    """Counts by origin.

    Args:
        clock: seconds that only grow.
        rates: how much is sent.
    """

    def __init__(self, clock: Callable[[], float], rates: Rates | None = None) -> None:
        self._clock = clock
        self._rates = rates or Rates()
        self._proven: OrderedDict[str, _State] = OrderedDict()
        self._unproven: OrderedDict[str, _State] = OrderedDict()
        self._all_unproven = self._bucket(_UNPROVEN_ALL, _UNPROVEN_ALL * _BURST)

    def __len__(self) -> int:
        return len(self._proven) + len(self._unproven)

    def wait(
        self, origin: str, token: bytes = b"", *, call: bool = False, known: bool = False, trusted: bool = False
    ) -> float:
        """Return for how many seconds this push is not to be sent, 0 for "go on".

        Once a rest is over one push goes through, and the others wait for how it ends.

        Args:
            origin: the server.
            token: whose push it is.
            call: whether it is a call: those come first.
            known: whether this token's last push was taken, so that its server is a push server, whatever we forgot.
            trusted: whether the operator allowed the server: it has no rate then.
        """
        state = self._state(origin)
        now = self._clock()
        if known and not state.proven:
            self._prove(origin, state)
        if state.faults >= _FAULTS:
            if now < state.until:
                return state.until - now
            state.until = now + _FIRST_PAUSE
        elif (left := self._rest(state, hash(token), call, known, now)) > 0:
            return left
        if trusted:
            return 0.0
        if state.proven and state.many is not None:
            return state.many.wait(now, call)
        left = state.few.wait(now, call)
        if left == 0 and (left := self._all_unproven.wait(now, call)) > 0:
            state.few.give_back()
        return left

    def took(self, origin: str) -> None:
        """The server took a push: it serves us."""
        state = self._state(origin)
        state.faults = state.strange = 0
        state.limited.clear()
        state.rests_until = 0.0
        if not state.proven:
            self._prove(origin, state)

    def answered(self, origin: str) -> None:
        """The server answered, if only that it wants nothing for this one device."""
        self._state(origin).faults = 0

    def limited(self, origin: str, token: bytes, retry_after: float | None = None) -> None:
        """The server said 429 for a token, and for how many seconds."""
        state = self._state(origin)
        state.faults = 0
        now = self._clock()
        asked = min(max(_LIMITED_WAIT if retry_after is None else retry_after, 1.0), _LONGEST_PAUSE)
        state.limited.pop(hash(token), None)
        if state.rests_until <= 0:
            for each, (told, _) in list(state.limited.items()):
                if now - told > _LIMITED_WINDOW:
                    del state.limited[each]
        elif len(state.limited) >= _LIMITED_KEPT:
            del state.limited[next(iter(state.limited))]
        state.limited[hash(token)] = (now, now + asked)
        if state.rests_until > 0:
            state.rests_until = max(state.rests_until, now + asked)
        elif len(state.limited) >= _LIMITED_TOKENS:
            # The least that any was asked to wait: the others may have reasons of their own.
            state.rests_until = min(until for _, until in state.limited.values())
            state.try_step = _FIRST_PAUSE
            state.try_at, state.call_at = now + _FIRST_PAUSE, now + _CALL_TRY

    def failed(self, origin: str, retry_after: float | None = None) -> None:
        """The server did not answer, or cannot serve anybody (and says for how many seconds)."""
        state = self._state(origin)
        state.faults += 1
        if state.faults >= _FAULTS:
            pause = max(_FIRST_PAUSE * 2.0 ** min(state.faults - _FAULTS, 10), retry_after or 0.0)
            state.until = self._clock() + min(pause, _LONGEST_PAUSE if state.many else _LONGEST_UNSERVED)

    def erred(self, origin: str) -> None:
        """The server answered 5xx: it may mean one subscription, but does it serve any?"""
        if self._state(origin).proven:
            self.answered(origin)
        else:
            self.failed(origin)

    def strange(self, origin: str) -> None:
        """The server gave an answer that no push service gives.

        Where pushes are taken that is about one endpoint, which a stranger may have invented; where none were, about
        the server.
        """
        self.erred(origin)
        state = self._state(origin)
        state.strange += 1
        if state.proven and state.strange >= _STRANGE:
            state.proven = False
            del self._proven[origin]
            self._keep(self._unproven, origin, state)

    def _state(self, origin: str) -> _State:
        for states in (self._proven, self._unproven):
            state = states.get(origin)
            if state is not None:
                states.move_to_end(origin)
                return state
        return self._keep(self._unproven, origin, _State(self._bucket(self._rates.unproven / 60, _UNPROVEN_EACH)))

    def _keep(self, states: "OrderedDict[str, _State]", origin: str, state: _State) -> _State:
        states[origin] = state
        if len(states) > _ORIGINS_MAX * (1 if state.proven else 4):
            states.popitem(last=False)
        return state

    def _prove(self, origin: str, state: _State) -> None:
        state.proven = True
        state.faults = state.strange = 0
        if state.many is None:
            state.many = self._bucket(self._rates.proven, max(1.0, self._rates.proven * _BURST))
        self._unproven.pop(origin, None)
        self._keep(self._proven, origin, state)

    def _bucket(self, rate: float, most: float) -> _Bucket:
        return _Bucket(rate, most, most, self._clock())

    @staticmethod
    def _rest(state: _State, token: int, call: bool, known: bool, now: float) -> float:
        """Return how long a token has to wait for a server that rests because of 429s."""
        if state.rests_until <= 0:
            return 0.0
        if now >= state.rests_until:
            state.rests_until = now + _FIRST_PAUSE
            return 0.0
        if not known or token in state.limited:
            return state.rests_until - now
        # Whose last push was taken may be told something else than those were. They try, less and less often; calls
        # more often, for they cannot wait.
        if now >= state.try_at:
            state.try_step *= 2
            state.try_at = now + state.try_step
            return 0.0
        if call and now >= state.call_at:
            state.call_at = now + _CALL_TRY
            return 0.0
        return min(state.rests_until, state.try_at, *([state.call_at] if call else [])) - now
