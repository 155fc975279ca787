"""Which push servers are left alone for a while, because they failed again and again.

Whoever registers chooses the server, and so may choose one that never answers. Each push there would hold one of the
channel's workers until its time is out; the pushes of everybody else wait behind it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_FAULTS: Final = 3
"""Faults in a row after which a server is left alone. One device alone does not get there while others succeed."""
_FIRST_PAUSE: Final = 15.0
_LONGEST_PAUSE: Final = 300.0
_ORIGINS_MAX: Final = 1000
"""Servers that are remembered; the one with the oldest fault is forgotten first."""


@dataclass(slots=True)
class _State:
    faults: int = 0
    until: float = 0.0


class Breaker:
    """Counts faults by origin, in memory alone.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._states: OrderedDict[str, _State] = OrderedDict()

    def wait(self, origin: str) -> float:
        """Return for how many seconds nothing is to be sent there, 0 for "go on".

        Once the time is over one push goes through and the rest wait for how it ends.
        """
        state = self._states.get(origin)
        if state is None or state.faults < _FAULTS:
            return 0.0
        now = self._clock()
        if now < state.until:
            return state.until - now
        state.until = now + _FIRST_PAUSE
        return 0.0

    def succeeded(self, origin: str) -> None:
        """The server answered, if only that it wants nothing for this one device."""
        self._states.pop(origin, None)

    def failed(self, origin: str, retry_after: float | None = None) -> None:
        """The server did not answer, or cannot serve anybody (and says for how many seconds)."""
        state = self._states.setdefault(origin, _State())
        self._states.move_to_end(origin)
        if len(self._states) > _ORIGINS_MAX:
            self._states.popitem(last=False)
        state.faults += 1
        if state.faults >= _FAULTS:
            pause = max(_FIRST_PAUSE * 2.0 ** min(state.faults - _FAULTS, 10), retry_after or 0.0)
            state.until = self._clock() + min(pause, _LONGEST_PAUSE)
