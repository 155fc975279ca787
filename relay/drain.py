"""The way down: nobody is let in, everybody is told, sessions are closed one after another, and nothing read is lost.

A second process that listens on the same port (SO_REUSEPORT) or takes its place behind the proxy gets the clients back
over that time, and not in one moment.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from websockets.frames import CloseCode

from relay.core import Core
from relay.metered import HOLD_SHUTDOWN, HOLD_TURN
from relay.reasons import Ending, Refusal
from relay.session import Session
from relay.websocket import Phase
from wire import commands as c

_RECONNECT_MS: Final = (500, 5000)
"""Clients are told to come back at a random time between these, so that they do not all come at once."""
_STEP: Final = 0.05
_PER_STEP: Final = 64


class Drain:
    """Ends all sessions of a relay.

    Args:
        core: the relay.
        seconds: over which sessions that take what is written are closed; 0 closes all at once.
    """

    def __init__(self, core: Core, seconds: float) -> None:
        self._core = core
        self.seconds = seconds
        self._told: set[Session] = set()

    def change(self, seconds: float) -> None:
        """Take so long, if it has not begun."""
        if not self._core.draining:
            self.seconds = seconds

    def hurry(self) -> None:
        """Close all that are left at once: whoever runs the relay will not wait."""
        self.seconds = 0.0

    async def spread(self) -> None:
        """Tell everybody and close one after another, for `seconds` at most; those who are left go on talking."""
        core = self._core
        core.draining = True
        if self.seconds <= 0:
            return
        begun = core.clock()
        # A copy: the hub changes while we wait. Nobody new can come.
        sessions = list(core.sessions.values())
        core.turns.task(self._tell_steps(sessions))
        due = 0
        waiting: list[Session] = []
        while core.sessions and (elapsed := core.clock() - begun) < self.seconds:
            begin, due = due, int(len(sessions) * elapsed / self.seconds)
            candidates, waiting = waiting + sessions[begin:due], []
            for count, session in enumerate(candidates, 1):
                if not self._let_go(session):
                    waiting.append(session)
                if count % _PER_STEP == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(min(_STEP, self.seconds / 10))

    def _tell_steps(self, sessions: list[Session]) -> Iterator[None]:
        for count, session in enumerate(sessions):
            self._tell(session)
            if count % 16 == 15:
                yield

    def _tell(self, session: Session) -> None:
        """Send RESTARTING, once."""
        if session in self._told or session.phase is not Phase.OPEN or session.outbox.stalled:
            return
        self._told.add(session)
        least, most = _RECONNECT_MS
        spread = int.from_bytes(self._core.random(4), "little") % (most - least)
        session.send(c.Restarting(least + spread))

    def _let_go(self, session: Session) -> bool:
        """Close a session; tell whether it is over. One that is stalled, or owed answers, is not ready for it yet."""
        if session.phase is not Phase.OPEN:
            return True
        if session.outbox.stalled:
            return False  # it goes on meanwhile: what is queued for it may yet be taken
        session.hold(HOLD_SHUTDOWN)
        session.parse_held()
        # What is owed and paced waits for a timer: neither in line for its turn nor done.
        if session.working or session.refusals or session.held & HOLD_TURN or session.outbox.stalled:
            return session.phase is not Phase.OPEN
        self._tell(session)
        session.end(Ending.SHUTDOWN, CloseCode.GOING_AWAY, "the relay goes away")
        return True

    async def finish(self) -> None:
        """Write or answer what was read and close every session with 1001, within `limits.shutdown_deadline`.

        Reads stop first, so that from then on nothing is read that could not be forwarded. Queues that their readers
        still take get half of the time; what is left then is answered to its senders with 0x03.
        """
        core = self._core
        core.draining = core.stopping = True
        deadline = core.clock() + core.limits.shutdown_deadline
        core.turns.postpone_no_more()
        sessions = list(core.sessions.values())
        for session in sessions:
            session.hold(HOLD_SHUTDOWN)
            session.parse_held()
            if session.refusals:
                core.turns.work(session)  # at once now, whatever the pace was
        core.turns.run()
        await self._until(
            lambda: not core.budget.stalled and core.turns.idle and (core.cluster is None or core.cluster.idle),
            core.limits.shutdown_deadline / 2,
        )
        for outbox, session in list(core.budget.stalled.items()):
            core.refuse_all(session, outbox.drop_peer_frames(), Refusal.RECIPIENT_GONE)
        await self._until(lambda: core.turns.idle, core.limits.shutdown_deadline / 4)
        for session in sessions:
            self._tell(session)
        for connection in list(core.connections):
            connection.end(Ending.SHUTDOWN, CloseCode.GOING_AWAY, "the relay goes away")
        await self._until(lambda: not core.connections, deadline - core.clock())
        for connection in list(core.connections):
            connection.transport.abort()
        await self._until(lambda: not core.connections, 0.2)

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait for something that happens in callbacks, for so long at most."""
        clock = self._core.clock
        until = clock() + seconds
        # Asked again and again, for a few seconds at the end of the process: an event for each of these conditions
        # would put a test on the path of every frame.
        while not done() and clock() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
