"""How long to wait before a process that ended is started again."""

import time
from collections.abc import Callable
from typing import Final

LEAST: Final = 0.1
MOST: Final = 10.0
SETTLED: Final = 30.0
"""Seconds that a process has to run for its next end to count as the first."""


class Backoff:
    """Doubles from `LEAST` to `MOST` seconds, and begins anew after a process that ran for `SETTLED` seconds.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wait = LEAST
        self._started = clock()

    def next(self) -> float:
        """Return the seconds to wait now that it ended; it is taken to run again after them."""
        now = self._clock()
        if now - self._started >= SETTLED:
            self._wait = LEAST
        wait, self._wait = self._wait, min(2 * self._wait, MOST)
        self._started = now + wait
        return wait
