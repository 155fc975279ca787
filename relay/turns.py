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

from relay.metered import HOLD_TURN
from relay.websocket import Phase

if TYPE_CHECKING:
    from relay.session import Session

    Handler = Callable[[Session, bytes], None]


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
        self._began: float | None = None
        self._patience = slice_
        self._postponed: deque[tuple[Session, Handler | None, bytes]] = deque()

    def late(self) -> bool:
        """Tell whether this turn has had its time, from the first call of this in it: what costs much then waits."""
        now = self._clock()
        if self._began is None:
            self._began = now
            self._schedule()
        return now - self._began > self._patience

    def change(self, slice_: float) -> None:
        """Give so many seconds per turn from now on to work that can wait."""
        if self._patience == self._slice:  # and not without end, as the relay stops
            self._patience = slice_
        self._slice = slice_

    def postpone_no_more(self) -> None:
        """Take everything as it comes: the relay stops, and what is postponed now would not be read again."""
        self._patience = float("inf")

    def heavy(self, session: "Session", handle: "Handler", message: bytes) -> None:
        """Handle a message that costs a key exchange or a signature check: now, or if it is late in a later turn.

        Until then the session is not read from, so that what it sent behind that message stays behind it. One turn of
        the loop is thus held for a slice and one message, however many sessions send such messages at once.
        """
        if self.late():
            self._postpone(session, handle, message)
        else:
            handle(session, message)

    def postpone(self, session: "Session") -> None:
        """Read on from this session in a later turn."""
        self._postpone(session, None, b"")

    def _postpone(self, session: "Session", handle: "Handler | None", message: bytes) -> None:
        session.hold(HOLD_TURN)
        self._postponed.append((session, handle, message))
        self._schedule()

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
        self._began = None
        try:
            if self._tasks or self._working or self._postponed:
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
        return not (self._tasks or self._working or self._dirty or self._postponed)

    def _run_slice(self) -> None:
        start = self._clock()
        for _ in range(len(self._postponed)):
            session, handle, message = self._postponed.popleft()
            if session.phase is Phase.OPEN:
                if handle is not None:
                    handle(session, message)
                session.release(HOLD_TURN)
            if self._clock() - start >= self._slice / 2:
                break
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
