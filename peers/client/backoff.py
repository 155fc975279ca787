"""When to try again. Pure: randomness comes in, and nothing here waits."""

from collections.abc import Callable
from typing import Final

Random = Callable[[int], bytes]

ASKED_MOST: Final = 600.0
"""The longest delay (seconds) that somebody else may impose on us: who does so is not always the relay."""
_FULL: Final = 2**64


class Backoff:
    """Delays that grow: each is drawn evenly between the least and a ceiling that doubles up to the most.

    Even draws over the whole span keep the clients of a relay that went away from coming back in step.

    Args:
        least: seconds, the least delay.
        most: seconds, the last ceiling.
        random: gives random bytes.
    """

    def __init__(self, least: float, most: float, random: Random) -> None:
        self._least = least
        self._most = most
        self._random = random
        self._ceiling = least

    def reset(self) -> None:
        """Begin anew: things went well."""
        self._ceiling = self._least

    def next(self, asked: float | None = None, floor: float = 0.0) -> float:
        """Return the next delay in seconds.

        Args:
            asked: what the other side asked for. It is exceeded by a tenth at most, or by what backoff says anyway: an
                answer of "0 s" that comes each time must not make us spin.
            floor: the least that makes sense in this case; a part of the least delay comes on top.
        """
        self._ceiling = min(self._most, self._ceiling * 2)
        delay = self._between(self._least, self._ceiling)
        if asked is not None:
            asked = clamp(asked)
            delay = max(delay, self._between(asked, asked * 1.1))
        if floor > delay:
            delay = self._between(floor, floor + self._least)
        return delay

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * int.from_bytes(self._random(8), "big") / _FULL


def clamp(asked: float) -> float:
    """Return a delay that somebody asked for, within what we accept."""
    return min(max(asked, 0.0), ASKED_MOST)
