"""The first decisions about a connection, made from its HTTP request alone, before any key exchange (PROTOCOL.md §8.8).

In this order, the cheapest first and the place last, so that only who is let in takes one: room, the address, its
handshakes, its token, its connections. Whoever is refused gets an HTTP reply in place of the WebSocket; `Retry-After`
is the time after which it can be otherwise.
"""

from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, Final

import structlog

from relay.guard import Buckets, Seldom, Tally
from relay.limits import Limits
from relay.opening import Opening, Welcome
from relay.reasons import Ending
from relay.replies import Reply
from relay.tokens import SUBPROTOCOL, Way, offers, shown

if TYPE_CHECKING:
    from relay.core import Core
    from relay.session import Session

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_PLAIN: Final = Welcome()
_NAMED: Final = Welcome(SUBPROTOCOL)


class Door:
    """Judges openings, and counts the connections that it let in."""

    def __init__(self, core: "Core") -> None:
        limits = core.limits
        self._core = core
        self.tally = Tally(limits.connections_per_address, core.random, clear=core.admission.lists_addresses)
        self.token_failures = Buckets(*limits.rate("token_failures"), limits.rate_keys, core.random)
        self.tls_rate = Buckets(*limits.rate("tls_handshakes"), limits.rate_keys, core.random)
        self._tell_query = Seldom(_HOUR)
        self._tell_full = Seldom(_MINUTE)

    def change(self, limits: Limits) -> None:
        """Go by other limits from now on; who has a place keeps it."""
        self.tally.change(limits.connections_per_address)
        self.token_failures.change(*limits.rate("token_failures"), limits.rate_keys)
        self.tls_rate.change(*limits.rate("tls_handshakes"), limits.rate_keys)

    def expire(self, now: float) -> None:
        """Forget buckets that are full again."""
        self.token_failures.forget_full(now)
        self.tls_rate.forget_full(now)

    # --- Accepted connections ----------------------------------------------------------------------------------------

    def accepted(self, session: "Session") -> None:
        """Keep the number of sockets below that of open files; `session` is new and stands in `core.opening`.

        What ends is first what has ended but for its last bytes, then the oldest unfinished opening, if it is not all
        too young: else whoever opens connections and says nothing could keep everybody out. Only then the newcomer.
        """
        core = self._core
        if len(core.connections) <= core.limits.most_accepted:
            return
        self._warn_full()
        closing = next(iter(core.closing), None)
        if closing is not None:
            del core.closing[closing]
            closing.transport.abort()
            return
        oldest, since = next(iter(core.opening.items()))
        young = core.clock() - since < core.limits.opening_grace
        (session if young else oldest).abort(Ending.FULL)

    def left(self, session: "Session") -> None:
        """Give back the place of a connection that is lost."""
        place, session.place = session.place, None
        if place is not None:
            self.tally.release(place)

    def may_begin_tls(self, session: "Session", told: bytes | None) -> bool:
        """Tell whether a TLS handshake may be computed for a connection; `told` is the address of its PROXY header.

        X-Forwarded-For comes too late for this: it stands inside of TLS.
        """
        core = self._core
        peername = session.transport.get_extra_info("peername")
        if peername is None:
            return False  # it hung up already
        address = core.front.address(peername, None, told)
        return not address or self.tls_rate.allow(address, core.clock())

    # --- Openings ----------------------------------------------------------------------------------------------------

    def admit(self, session: "Session", opening: Opening) -> Welcome | Reply:
        """Judge the opening of a session whose address is known; a refusal is noted as its ending."""
        core, address = self._core, session.address
        limits = core.limits
        if limits.connections and self.tally.total >= limits.connections:
            self._warn_full()
            # A connection that is dead is noticed within this time, and gives its place back.
            return _refuse(
                session, Ending.FULL, HTTPStatus.SERVICE_UNAVAILABLE, "This relay is full.", limits.silent_after
            )
        if core.admission.lists_addresses and core.admission.refuses_address(address):
            return _forbid(session)
        if address:
            wait = core.handshake_rate.wait(address, core.clock())
            if wait:
                return _refuse_rate(session, Ending.HANDSHAKE_RATE, "Too many connections in a short time.", wait)
        if core.admission.asks_tokens:
            refusal = self._ask_token(session, opening)
            if refusal is not None:
                return refusal
        session.place = self.tally.take(address)
        if session.place is None:
            return _refuse_rate(
                session, Ending.ADDRESS_FULL, "Too many connections from this address.", limits.silent_after
            )
        return _NAMED if SUBPROTOCOL in offers(opening) else _PLAIN

    def _ask_token(self, session: "Session", opening: Opening) -> Reply | None:
        core, address = self._core, session.address
        now = core.clock()
        found = shown(opening)
        if found is None:
            return _unauthorized(session, "This relay asks for a token.")
        # Before the token is looked at: a rate that let right ones through would not slow down a search for them.
        wait = self.token_failures.wait(address, now) if address else 0.0
        if wait:
            return _refuse_rate(session, Ending.TOKEN_RATE, "Too many wrong tokens.", wait)
        if not core.admission.valid(found.token):
            if address:
                self.token_failures.allow(address, now)
            return _unauthorized(session, "This token is not valid.")
        if found.way is Way.QUERY and self._tell_query.due(now):
            structlog.get_logger().warning(
                "token_in_query", hint="proxies log it: let clients send it by Sec-WebSocket-Protocol or Authorization"
            )
        return None

    def _warn_full(self) -> None:
        core = self._core
        if self._tell_full.due(core.clock()):
            structlog.get_logger().warning("full", connections=len(core.connections), sessions=len(core.sessions))


def _refuse(session: "Session", ending: Ending, status: HTTPStatus, text: str, wait: float) -> Reply:
    session.ended = ending
    return Reply(status, f"{text}\n", headers={"Retry-After": str(ceil(wait))})


def _refuse_rate(session: "Session", ending: Ending, text: str, wait: float) -> Reply:
    return _refuse(session, ending, HTTPStatus.TOO_MANY_REQUESTS, text, wait)


def _forbid(session: "Session") -> Reply:
    session.ended = Ending.DENIED
    return Reply(HTTPStatus.FORBIDDEN, "This relay is not open to this address.\n")


def _unauthorized(session: "Session", text: str) -> Reply:
    session.ended = Ending.TOKEN
    return Reply(HTTPStatus.UNAUTHORIZED, f"{text}\n", headers={"WWW-Authenticate": "Bearer"})
