"""Looks after the process itself: how late the event loop is, and whether files can still be opened.

One timer, four times a second. Nothing here is done for a connection or a frame.
"""

import asyncio
import os
import resource
import time
from collections.abc import Callable
from typing import Final

import structlog

from relay.counters import Counters
from relay.guard import Seldom

_TICK: Final = 0.25
_TICKS_PER_FILE: Final = 4
_SAY_AGAIN: Final = 60.0
"""Seconds before running out of files is logged again, while it goes on or comes back."""


class Watch:
    """Measures.

    Args:
        loop: whose lateness is measured.
        counters: where it is counted.
        clock: measures; not the loop's own, which stands still during a turn and counts milliseconds.
        can_open: tells whether the process can open one more file.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
        can_open: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._counters = counters
        self._clock = clock
        self._can_open = can_open or can_open_file
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._ticks = 0
        self._tell = Seldom(_SAY_AGAIN)

    def start(self) -> None:
        """Begin."""
        self._due = self._clock() + _TICK
        self._timer = self._loop.call_later(_TICK, self._tick)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self._clock()
        # Whatever held the loop when this was due held every frame for as long.
        self._counters.loop_lag.observe(max(0.0, now - self._due))
        self.start()
        self._ticks += 1
        if self._ticks % _TICKS_PER_FILE == 0:
            self.look_at_files(now)

    def look_at_files(self, now: float) -> None:
        """Count, and log once a minute at most, that no more files can be opened.

        Without this nobody would know: libuv keeps one file in reserve, with which it accepts the connections that
        there is no room for and closes them at once. No callback is called, and nothing is logged.
        """
        if self._can_open():
            return
        self._counters.out_of_files += 1
        if self._tell.due(now):
            structlog.get_logger().warning("out_of_files", limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def can_open_file() -> bool:
    """Tell whether the process can open one more file (or socket), by opening one."""
    try:
        file = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(file)
    return True
