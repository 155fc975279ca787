"""What is done once per event-loop turn: queued frames are written, and work that can wait is done in slices.

Frames for one recipient that arrive in one turn leave in one write. Seals (a 0x03 or a presence frame costs about
20 µs) wait in line per session and are done for a few milliseconds per turn, so that neither a flood of refusals nor
a change that ten thousand watch holds the loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.session import Session


class Turns:
    """The queue of sessions to flush, of sessions with answers to seal, and of longer tasks.

    Args:
        loop: calls us once a turn when there is something to do.
        slice_: seconds per turn for work that can wait.
        clock: measures them; not the loop's own, which stands still during a turn.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, slice_: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._loop = loop
        self._slice = slice_
        self._clock = clock
        self._dirty: deque[Session] = deque()
        self._working: deque[Session] = deque()
        self._tasks: deque[Iterator[None]] = deque()
        self._scheduled = False

    def touch(self, session: "Session") -> None:
        """Flush this session at the end of the turn."""
        session.dirty = True
        self._dirty.append(session)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.run)

    def work(self, session: "Session") -> None:
        """Let this session seal what waits for it, when it is its turn."""
        if not session.working:
            session.working = True
            self._working.append(session)
            self._schedule()

    def task(self, steps: Iterator[None]) -> None:
        """Run a task to its end, a step at a time, in turn with others."""
        self._tasks.append(steps)
        self._schedule()

    def run(self) -> None:
        """Do one slice of work, then write everything that is queued."""
        self._scheduled = False
        try:
            if self._tasks or self._working:
                self._run_slice()
            while self._dirty:
                session = self._dirty.popleft()
                session.dirty = False
                session.flush()
        finally:
            # Also after an error in one session: the others still wait.
            if not self.idle:
                self._schedule()

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not (self._tasks or self._working or self._dirty)

    def _run_slice(self) -> None:
        start = self._clock()
        # Tasks first, for half of the time: what several of them find for one session is then told in one frame.
        while self._tasks:
            task = self._tasks.popleft()
            if next(task, self) is not self:
                self._tasks.append(task)
            if self._clock() - start >= self._slice / 2:
                break
        while self._working:
            session = self._working.popleft()
            session.working = False
            if session.work():
                self.work(session)
            if self._clock() - start >= self._slice:
                return

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.run)
