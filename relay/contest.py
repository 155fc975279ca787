"""Whose an id is: the holder that is asked, the newcomers that wait in line, and other nodes (PROTOCOL.md §8.3).

The rules are a table in `relay.claims`; here are the sessions to which it is applied. In a cluster the line of an id is
at the node that has, or had, its holder. It moves on when the first in it is *decided*: let in, refused or gone. For a
newcomer at another node that takes some messages after the id is free, and until then nobody behind it is judged.
"""

from typing import TYPE_CHECKING

from websockets.frames import CloseCode

from keys.identity import PublicIdentity
from relay.claims import Elsewhere, Verdict, decide
from relay.metered import HOLD_CLAIM
from relay.reasons import Ending
from relay.session import Session

if TYPE_CHECKING:
    import asyncio

    from relay.core import Core

_PING_SIZE = 8
_REPLACED = "replaced by a newer session"


class Contest:
    """Decides between those who want the same id."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        # The probe under way for an id: who is asked, for whom, and when the waiting ends.
        self._probes: dict[bytes, tuple[Session, Session | Elsewhere, asyncio.TimerHandle]] = {}
        self._settling: set[bytes] = set()
        # Newcomers for whom the other nodes of the cluster are asked.
        self._asking: dict[bytes, Session] = {}
        # Newcomers at other nodes that may have an id as far as this one is concerned, and did not say yet what came
        # of it.
        self._given: dict[bytes, Elsewhere] = {}

    def claim(self, session: Session) -> None:
        """Let a newcomer have its id, or wait for it, or be refused."""
        claims = self._core.claims
        if claims.waiting(session.id):
            holder = self._holder(session.id)
            same = holder is None or holder.public == session.public
            if not same or not claims.join(session.id, session):
                self._refuse(session)
            else:
                session.hold(HOLD_CLAIM)
            return
        claims.join(session.id, session)
        self._settle(session.id)
        if claims.first(session.id) is session:
            session.hold(HOLD_CLAIM)

    def _settle(self, client_id: bytes) -> None:
        """Judge those who wait for an id, in turn, until one has to wait for somebody's answer."""
        core = self._core
        if client_id in self._settling:
            return
        self._settling.add(client_id)
        try:
            while (first := self._next(client_id)) is not None:
                holder = self._holder(client_id)
                if isinstance(first, Session):
                    if core.draining:
                        # It is closed in a moment, and whoever stands behind it at another node is not to wait for it.
                        core.claims.leave(client_id, first)
                        continue
                    if holder is None and core.cluster is not None:
                        # It may be held at another node: until that is known the line stands still.
                        self._asking[client_id] = first
                        core.cluster.claims.claim(first)
                        return
                verdict = self._judge(holder, first.public)
                if verdict is Verdict.REFUSE:
                    core.claims.leave(client_id, first)
                    self._refuse(first)
                elif verdict is Verdict.PROBE and holder is not None and not core.draining:
                    self._probe(holder, first)
                    return
                else:
                    if holder is not None:
                        self._put_out(holder)
                    self._let_in(first)
        finally:
            self._settling.discard(client_id)

    def _next(self, client_id: bytes) -> Session | Elsewhere | None:
        """Return the first in line, if nobody's answer is waited for."""
        if client_id in self._probes or client_id in self._asking or client_id in self._given:
            return None
        return self._core.claims.first(client_id)

    @staticmethod
    def _judge(holder: Session | None, newcomer: PublicIdentity) -> Verdict:
        if holder is None:
            return decide(None, False, newcomer)
        return decide(holder.public, holder.opened_wire.proven, newcomer)

    def _holder(self, client_id: bytes) -> Session | None:
        return self._core.sessions.get(client_id)

    def _refuse(self, newcomer: Session | Elsewhere) -> None:
        if isinstance(newcomer, Session):
            self._core.entry.refuse_in_use(newcomer)
        else:
            newcomer.decided(free=False)

    def _let_in(self, newcomer: Session | Elsewhere) -> None:
        if isinstance(newcomer, Session):
            self._core.claims.leave(newcomer.id, newcomer)
            self._core.entry.let_in(newcomer)
        else:
            # It stays the first in line until its node says that it is decided.
            self._given[newcomer.id] = newcomer
            newcomer.decided(free=True)

    def _put_out(self, holder: Session) -> None:
        if self._core.draining:
            # It would go in a moment anyway, whether it answers or not, and its client is where it shall be.
            holder.end(Ending.SHUTDOWN, CloseCode.GOING_AWAY, "the relay goes away")
        else:
            holder.end(Ending.REPLACED, CloseCode.POLICY_VIOLATION, _REPLACED)

    # --- The holder is asked -----------------------------------------------------------------------------------------

    def _probe(self, holder: Session, newcomer: Session | Elsewhere) -> None:
        core = self._core
        timer = core.loop.call_later(core.limits.claim_wait, self._holder_silent, holder)
        self._probes[holder.id] = (holder, newcomer, timer)
        holder.send_ping(core.random(_PING_SIZE))

    def probing(self, session: Session) -> bool:
        """Tell whether this holder is being asked: another ping would make its answer unknown to us."""
        probe = self._probes.get(session.id)
        return probe is not None and probe[0] is session

    def holder_answered(self, holder: Session) -> None:
        """A pong to our last ping came; if a newcomer waited for it, the holder keeps the id."""
        probe = self._probes.get(holder.id)
        if probe is None or probe[0] is not holder:
            return
        del self._probes[holder.id]
        _, newcomer, timer = probe
        timer.cancel()
        if self._core.claims.first(holder.id) is newcomer:
            self._core.claims.leave(holder.id, newcomer)
            self._refuse(newcomer)
        self._settle(holder.id)

    def _holder_silent(self, holder: Session) -> None:
        if holder.held and not holder.blocked:
            # It is we who do not read: whatever it answered waits in the kernel, so it cannot be judged dead. One that
            # does not read either is held because of that, and may be as dead as it looks.
            self.holder_answered(holder)
            return
        _, newcomer, _ = self._probes.pop(holder.id)
        let_in = not (self._core.draining and isinstance(newcomer, Session))
        if let_in and self._core.claims.first(holder.id) is newcomer:
            self._settling.add(holder.id)
            self._put_out(holder)
            self._settling.discard(holder.id)
            self._let_in(newcomer)
        self._settle(holder.id)

    # --- Somebody leaves ---------------------------------------------------------------------------------------------

    def id_free(self, client_id: bytes) -> None:
        """The holder of an id is gone: whoever waits is next."""
        probe = self._probes.pop(client_id, None)
        if probe is not None:
            probe[2].cancel()
        self._settle(client_id)

    def gave_up(self, session: Session) -> None:
        """A session ended before it had its id."""
        if self._asking.get(session.id) is session:
            del self._asking[session.id]
            if self._core.cluster is not None:
                self._core.cluster.claims.cancel(session)
        if self._core.claims.leave(session.id, session):
            # The probe that was under way for it goes on, and its answer serves nobody.
            self._settle(session.id)

    # --- Other nodes of the cluster ----------------------------------------------------------------------------------

    def cluster_decided(self, session: Session, refused: Ending | None) -> None:
        """The other nodes leave its id to a newcomer of ours, or it ends in this way."""
        core = self._core
        del self._asking[session.id]
        core.claims.leave(session.id, session)
        if core.draining:
            pass  # it is closed in a moment, with all others
        elif refused is None:
            core.entry.let_in(session)
        elif refused is Ending.REPLAYED_HANDSHAKE:
            core.entry.refuse_replayed(session)
        elif refused is Ending.REPLACED:
            session.end(Ending.REPLACED, CloseCode.POLICY_VIOLATION, _REPLACED)
        else:
            self._refuse(session)
        self._settle(session.id)

    def claimed_elsewhere(self, newcomer: Elsewhere) -> None:
        """A newcomer at another node claims an id that we have, or had until just now."""
        holder = self._holder(newcomer.id)
        same = holder is None or holder.public == newcomer.public
        if same and self._core.claims.join(newcomer.id, newcomer):
            self._settle(newcomer.id)
        else:
            newcomer.decided(free=False)

    def gave_up_elsewhere(self, newcomer: Elsewhere) -> None:
        """A newcomer at another node is decided, or gone: it stands in line no longer."""
        if self._given.get(newcomer.id) is newcomer:
            del self._given[newcomer.id]
        if self._core.claims.leave(newcomer.id, newcomer):
            self._settle(newcomer.id)

    def in_line(self, client_id: bytes, node: bytes) -> bool:
        """Tell whether a newcomer at this node stands in line here for an id."""
        return any(
            not isinstance(newcomer, Session) and newcomer.node == node
            for newcomer in self._core.claims.line(client_id)
        )
