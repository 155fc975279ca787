"""From a fresh connection to a session: the opening, the handshake, and who may in (PROTOCOL.md §8.2, §8.8).

Whose the id is decides `relay.contest`.
"""

from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import structlog
from websockets.frames import CloseCode

from relay.admission import Verdict as Admitted
from relay.admission import short_reason
from relay.callout import Answer, Asker
from relay.hub import Change
from relay.metered import HOLD_CALLOUT, HOLD_CLAIM
from relay.opening import Opening, Welcome
from relay.proxies import socket_peer
from relay.proxy_header import PROXY_HEADER, BadProxyHeader, ProxyHeader, read_header
from relay.reasons import Ending
from relay.replies import Reply
from relay.session import Session
from relay.websocket import Phase
from wire import commands as c
from wire.errors import WireError
from wire.limits import MAX_FRAME, PROTOCOL_VERSION
from wire.session import ServerSession

if TYPE_CHECKING:
    from relay.core import Core

_GONE: Final = Reply(HTTPStatus.BAD_REQUEST, "You have hung up.\n")
_NOT_OPEN: Final = "this relay is not open to you"


class Entry:
    """Lets clients in."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    # --- Opening -----------------------------------------------------------------------------------------------------

    def connected(self, session: Session) -> None:
        """A socket was accepted."""
        core = self._core
        core.connections[session] = now = core.clock()
        if core.stopping:
            session.abort(Ending.SHUTDOWN)
            return
        core.opening[session] = now
        core.door.accepted(session)
        if session.phase is Phase.OPENING and core.front.proxy_header and not core.front.may_connect(_peer(session)):
            session.abort(Ending.BAD_PROXY)

    def proxied(self, session: Session, buffer: bytearray) -> ProxyHeader | None:
        """Return the PROXY header of a connection; None while it is incomplete, or if it was the end.

        It is read anew with each chunk until the request behind it is complete, and so counts as a part of it: that
        costs next to nothing, and nobody has to remember anything.
        """
        taken: ProxyHeader | None = session.transport.get_extra_info(PROXY_HEADER)
        if taken is not None:
            return taken
        try:
            return self.proxy_header(session, buffer)
        except BadProxyHeader:
            session.abort(Ending.BAD_PROXY)
            return None

    def proxy_header(self, session: Session, data: bytearray) -> ProxyHeader | None:
        """Read the PROXY header that a connection begins with; None while it is incomplete.

        Raises:
            BadProxyHeader: there is none, or this peer may not send one.
        """
        header = read_header(data)
        if header is not None and not self._core.front.may_tell(_peer(session), header.source):
            raise BadProxyHeader
        return header

    def admit(self, session: Session, opening: Opening, told: bytes | None = None) -> Welcome | Reply:
        """Decide about an opening: let it become a WebSocket, or refuse it by a reply. Nobody is known yet.

        Args:
            session: the connection.
            opening: what it asks for.
            told: the address in its PROXY header.
        """
        if self._core.draining:
            session.ended = Ending.SHUTDOWN
            return Reply(HTTPStatus.SERVICE_UNAVAILABLE, "The relay goes away.\n", headers={"Retry-After": "1"})
        peername = session.transport.get_extra_info("peername")
        if peername is None:
            # It hung up already. Nobody would be counted for what is computed now, so nothing is.
            session.ended = Ending.CLIENT
            return _GONE
        forwarded_for = opening.headers.get("x-forwarded-for")
        session.address = self._core.front.address(peername, forwarded_for, told)
        return self._core.door.admit(session, opening)

    # --- Handshake ---------------------------------------------------------------------------------------------------

    def first_message(self, session: Session, message: bytes) -> None:
        """Take the handshake request, or whatever stands in its place."""
        core = self._core
        # In clear for no longer than it is needed; from here on the digest of its place stands for it.
        address, session.address = session.address, b""
        if session.wire is not None:
            raise AssertionError("reads are held while a session waits for its id")
        if core.draining:
            session.end(Ending.SHUTDOWN, CloseCode.GOING_AWAY, "the relay goes away")
            return
        if address and not core.handshake_rate.allow(address, core.clock()):
            session.end(Ending.HANDSHAKE_RATE, CloseCode.TRY_AGAIN_LATER, "too many handshakes from this address")
            return
        wire = ServerSession(core.identity, core.random)
        try:
            hello = wire.receive_hello(message)
        except WireError:
            session.end(Ending.BAD_HANDSHAKE, CloseCode.POLICY_VIOLATION, "no valid handshake")
            return
        core.opening.pop(session, None)
        session.wire = wire
        session.id = hello.public.id
        if hello.version != PROTOCOL_VERSION:
            self._refuse(session, c.BadVersion(), Ending.BAD_VERSION, "this relay speaks version 2")
        elif not self._judged(session, address):
            return
        elif not core.handshakes_seen.first_time(hello.public.x_pub, hello.nonce):
            self.refuse_replayed(session)
        elif core.callout is None:
            core.contest.claim(session)
        else:
            self._ask(session, address, core.callout)

    def _refuse(self, session: Session, error: c.ErrorBody, ending: Ending, reason: str) -> None:
        session.send_sealed(session.opened_wire.refuse(error), must=True)
        session.end(ending, CloseCode.POLICY_VIOLATION, reason)

    def refuse_in_use(self, session: Session) -> None:
        """Tell a newcomer that somebody else has its id."""
        self._refuse(session, c.IdInUse(), Ending.ID_IN_USE, "the id is in use")

    @staticmethod
    def refuse_replayed(session: Session) -> None:
        """End a newcomer whose handshake was accepted before."""
        session.end(Ending.REPLAYED_HANDSHAKE, CloseCode.POLICY_VIOLATION, "a handshake is accepted once")

    # --- Who may in --------------------------------------------------------------------------------------------------

    def _judged(self, session: Session, address: bytes) -> bool:
        """Refuse whom the lists refuse, now that the handshake proved who it is; tell whether it is welcome."""
        admission = self._core.admission
        verdict = admission.judge(address, session.public.x_pub)
        if verdict is Admitted.DENIED:
            self._refuse(session, c.NotAdmitted(_NOT_OPEN), Ending.DENIED, _NOT_OPEN)
        elif verdict is Admitted.DECOMMISSIONED:
            notice = admission.notice
            self._refuse(session, c.NotAdmitted(notice), Ending.DECOMMISSIONED, short_reason(notice))
        return verdict is Admitted.WELCOME

    def _ask(self, session: Session, address: bytes, callout: Asker) -> None:
        """Let the operator's service decide; until then nothing is read, and the id is not claimed."""
        answer = callout.known(session.public)
        if answer is not None:
            self._answered(session, address, answer)
        else:
            session.hold(HOLD_CALLOUT)
            callout.ask(session.public, address, partial(self._answered, session, address))

    def _answered(self, session: Session, address: bytes, answer: Answer) -> None:
        core = self._core
        if session.phase is not Phase.OPEN or core.stopping:
            return
        if answer is Answer.REFUSED:
            self._refuse(session, c.NotAdmitted(_NOT_OPEN), Ending.CALLOUT_REFUSED, _NOT_OPEN)
        elif answer is Answer.FAILED:
            # No ERROR frame: clients may take one as final, and the service may be back in a minute.
            session.end(Ending.CALLOUT_FAILED, CloseCode.TRY_AGAIN_LATER, "cannot ask whether you may in")
        elif self._judged(session, address):  # the lists may have been read anew while it waited
            core.contest.claim(session)
            core.loop.call_soon(session.release, HOLD_CALLOUT)

    def reload(self) -> None:
        """Read tokens and lists anew, and end the sessions of those who are no longer welcome.

        Raises:
            AccessError: a file cannot be used; what was in force stays in force.
        """
        self._core.admission.reload()
        if self._core.admission.lists_addresses:
            self._core.turns.task(self._judge_again(list(self._core.connections)))

    def decommission(self, notice: str) -> None:
        """Take no new clients from now on, and tell `notice` to those who are here; "" takes new ones again.

        Raises:
            ValueError: the notice is too long.
        """
        core = self._core
        told = core.admission.notice
        core.admission.decommission(
            notice, lambda: core.handshakes_seen.known(session.public.x_pub for session in core.sessions.values())
        )
        if notice and notice != told:
            core.turns.task(self._tell(list(core.sessions.values()), notice))

    def _judge_again(self, sessions: list[Session]) -> Iterator[None]:
        for count, session in enumerate(sessions):
            place = session.place
            if session.phase is Phase.OPEN and place is not None:
                # Kept in clear where there are lists to hold it against.
                address = place.key if self._core.admission.lists_addresses else b""
                if session.wire is None:
                    welcome = not self._core.admission.refuses_address(address)
                else:
                    welcome = self._core.admission.judge(address, session.public.x_pub) is not Admitted.DENIED
                if not welcome:
                    session.end(Ending.DENIED, CloseCode.POLICY_VIOLATION, _NOT_OPEN)
            if count % 64 == 63:
                yield

    @staticmethod
    def _tell(sessions: list[Session], notice: str) -> Iterator[None]:
        for count, session in enumerate(sessions):
            if session.phase is Phase.OPEN:
                session.send(c.Info(notice))
            if count % 16 == 15:
                yield

    def let_in(self, session: Session) -> None:
        """Let a newcomer have its id, which is free."""
        core, wire = self._core, session.opened_wire
        if session.phase is not Phase.OPEN:
            raise AssertionError("a session that is over does not stand in line")
        # The answer to the handshake is queued before anybody can find the session: it is the first thing it gets.
        session.send_sealed(wire.accept(), must=True)
        session.send_sealed(wire.challenge(), must=True)
        for notice in (core.admission.notice, core.about.notice):
            if notice:
                session.send(c.Info(notice))
        # What comes next is not near for most: of a hundred thousand clients nearly all wait, and for long.
        wire.mask_out.rest()
        session.mask = wire.mask_out
        session.unmask = wire.mask_in
        session.max_message = MAX_FRAME
        core.hub.add(session)
        if core.cluster is not None:
            core.cluster.admitted(session)
        core.counters.admitted += 1
        if core.journal is not None:
            core.journal.started(session, core.clock())
        crowd = 0 if session.place is None else core.crowding.joined(session.place, len(core.sessions), core.clock())
        if crowd:
            # No address here or anywhere: an operator knows their proxies.
            structlog.get_logger().warning(
                "one_address_has_most_sessions",
                sessions=crowd,
                total=len(core.sessions),
                advice="if all come through a proxy, name its network in --trusted-proxies (RELAY_TRUSTED_PROXIES)",
            )
        core.presence_changed(session.public.x_pub, Change.ONLINE)
        # Not at once: what it sent behind its handshake must not be parsed on the stack of whoever freed the id.
        if session.held & HOLD_CLAIM:
            core.loop.call_soon(session.release, HOLD_CLAIM)


def _peer(session: Session) -> bytes | None:
    return socket_peer(session.transport.get_extra_info("peername"))
