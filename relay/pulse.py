"""One pulse for everything that has a deadline: there is no timer per connection.

Openings and closings stand in the order of their deadlines, so only the front is looked at. Sessions are looked at in
slices; only those that were silent cost more than a comparison.
"""

from typing import TYPE_CHECKING

from websockets.frames import CloseCode

from relay.reasons import Ending

if TYPE_CHECKING:
    import asyncio

    from relay.core import Core
    from relay.session import Session

_TICK = 1.0
_SWEEP = 2.0
_SLICE = 200
_PING_SIZE = 8


class Pulse:
    """Ticks once a second; sweeps over all sessions every two."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping = False
        self._swept = core.clock()

    def start(self) -> None:
        """Begin to tick."""
        self._timer = self._core.loop.call_later(_TICK, self._tick)

    def stop(self) -> None:
        """Tick no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self._core.clock()
        # Armed first: whatever goes wrong in one tick, the next one comes.
        self._timer = self._core.loop.call_later(_TICK, self._tick)
        self.deadlines(now)
        if now - self._swept >= _SWEEP and not self._sweeping:
            self._swept = now
            self._sweeping = True
            self._sweep(list(self._core.sessions.values()), 0, self._core.random(_PING_SIZE))

    def deadlines(self, now: float) -> None:
        """Do what is due at `now`, but for the sweep."""
        core = self._core
        core.settle_limits(now)
        limits = core.limits
        for session in _due(core.opening, now - limits.opening_deadline):
            session.end(Ending.SLOW_OPENING, CloseCode.POLICY_VIOLATION, "no handshake in time")
        for session in _due(core.closing, now - limits.closing_deadline):
            core.closing.pop(session, None)
            session.transport.abort()
        for outbox, session in list(core.budget.stalled.items()):
            if not outbox.stalled:
                continue  # it gave way to what ended with one before it
            core.budget.shrunk(outbox, session.transport.get_write_buffer_size())
            core.counters.queue_depth.observe(outbox.untaken)
            if outbox.age(now) >= limits.queue_age:
                session.abort(Ending.STALLED)
            else:
                outbox.mark(now)
        for x_pub in core.presence.due(now):
            core.announce(x_pub)
        core.handshake_rate.forget_full(now)
        core.door.expire(now)
        core.control.expire(now)
        if core.callout is not None:
            core.callout.expire(now)

    def _sweep(self, sessions: "list[Session]", start: int, payload: bytes) -> None:
        # Said first: whatever goes wrong in one slice, the next sweep comes.
        self._sweeping = False
        now = self._core.clock()
        for session in sessions[start : start + _SLICE]:
            self.look(session, now, payload)
        if start + _SLICE < len(sessions):
            self._sweeping = True
            self._core.loop.call_soon(self._sweep, sessions, start + _SLICE, payload)

    def look(self, session: "Session", now: float, payload: bytes) -> None:
        """Ping a session that was silent in either direction, and drop one that was silent too long."""
        limits = self._core.limits
        silence = now - session.last_in
        if silence < limits.ping_after and now - session.last_out < limits.ping_after and not session.partial_since:
            return
        if self._core.sessions.get(session.id) is not session:
            return
        if silence >= limits.silent_after and not session.held:
            session.end(Ending.SILENT, CloseCode.POLICY_VIOLATION, "silent for too long")
        elif session.partial_since and now - session.partial_since >= limits.partial_deadline and not session.held:
            session.end(Ending.SLOW_FRAME, CloseCode.POLICY_VIOLATION, "the frame took too long")
        elif now - session.last_out >= limits.ping_after or (silence >= limits.ping_after and session.ping is None):
            session.beat(payload)


def _due(since: "dict[Session, float]", before: float) -> "list[Session]":
    due = []
    for session, when in since.items():
        if when > before:
            break
        due.append(session)
    return due
