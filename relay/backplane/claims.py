"""One session per id in the whole cluster: the rules of `relay.claims`, across nodes.

A newcomer whom its own node would let in claims its id first: its node subscribes to the id's subject, then asks on it.

| the answer                      | what happens |
|---------------------------------|--------------|
| nobody has it                   | admitted |
| a node holds it                 | it stands in line there, and is judged by the table as one of that node's own |
| a node claims it too            | the lower node number goes on, the higher asks again until that is decided |
| a node's newcomer is in a line  | asked again, unless that one stands behind it |
| a node just let go of it        | asked again |
| no answer in time               | admitted: a node that is hung is as dead as a client that answers no ping |
| the bus is lost                 | admitted: this node is all there is |

Whoever comes to the front of a line whose holder is gone is *given* the id. It asks once more, for somebody else may
have it by now, and stays the first in that line until its node says that it is decided: those behind it meet the table
after it, as at one relay. Newcomers at one node stand in line there, and only the first of them in that of another.

Whoever was overtaken on its way by a session that came later does not put it out: that is where the client is now. It
is ended as it would be if it had been let in first, as replaced.

Nobody waits for ever: a node that is gone, hung or lost has no line, and who stood in it goes on as if nobody had the
id. Should two be let in by that, `relay.backplane.holdings` ends one of them.
"""

from typing import TYPE_CHECKING, Final

from keys.errors import BadKey
from keys.identity import PublicIdentity
from relay.backplane.bus import Outcome
from relay.backplane.link import Peer
from relay.backplane.lookup import ANSWER_WITHIN, Found, Standing, ask
from relay.backplane.records import CLAIM, Kind
from relay.reasons import Ending

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.session import Session

AGAIN: Final = 0.05
"""Seconds until a claim that met another is tried again."""
PATIENCE: Final = 10.0
"""Seconds after which a claim is refused that never met a clear answer, and an id is no longer kept for the newcomer at
another node that it was given to."""
_FREE: Final = 0
_TAKEN: Final = 1
_REPEATED: Final = 2
_REPLACED: Final = 3
_ENDINGS: Final = {bytes((_REPEATED,)): Ending.REPLAYED_HANDSHAKE, bytes((_REPLACED,)): Ending.REPLACED}


class Claim:
    """A newcomer of ours that waits for the others' word."""

    __slots__ = ("given", "holder", "number", "session", "until", "waits_for_way")

    def __init__(self, session: "Session", now: float) -> None:
        self.session = session
        self.until = now + PATIENCE
        self.holder: Peer | None = None
        """The node in whose line it stands."""
        self.number = 0
        """Its number there. Another one each time, so that no answer is taken for that to a later question."""
        self.given: dict[Peer, int] = {}
        """Nodes that gave it the id, and wait for what comes of it; with its number there."""
        self.waits_for_way = False


class Elsewhere:
    """A newcomer at another node, which stands in line for an id here."""

    __slots__ = ("_claims", "number", "peer", "public")

    def __init__(self, claims: "Claims", peer: Peer, number: int, public: PublicIdentity) -> None:
        self._claims = claims
        self.peer = peer
        self.number = number
        self.public = public

    @property
    def id(self) -> bytes:
        """The id that it wants."""
        return self.public.id

    @property
    def node(self) -> bytes:
        """The number of its node."""
        return self.peer.number

    def decided(self, *, free: bool) -> None:
        """Tell its node."""
        self._claims.answer(self, _FREE if free else _TAKEN)


class Claims:
    """Who claims what: newcomers of this node elsewhere, and those of others here."""

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        self._claims: dict[bytes, Claim] = {}
        self._judged: dict[int, Claim] = {}
        """By their numbers, those that a holder's node judges."""
        self._elsewhere: dict[tuple[Peer, int], Elsewhere] = {}
        self._number = 0

    @property
    def asking(self) -> int:
        """How many newcomers wait for other nodes."""
        return len(self._claims)

    @property
    def idle(self) -> bool:
        """Whether nobody waits, here or for us."""
        return not self._claims and not self._judged and not self._elsewhere

    def standing(self, session: "Session") -> Standing:
        """Tell how a newcomer of ours stands to its id."""
        claim = self._claims.get(session.id)
        return Standing.CLAIMING if claim is None or claim.holder is None else Standing.WAITING

    # --- Newcomers of this node --------------------------------------------------------------------------------------

    def claim(self, session: "Session") -> None:
        """Find out whether a newcomer may have its id; `Contest.cluster_decided` is called, not from within this."""
        claim = Claim(session, self._node.clock())
        self._claims[session.id] = claim
        self._node.holdings.hold(session)
        self._node.router.claiming(session.id)
        self._ask(claim)

    def cancel(self, session: "Session") -> None:
        """The newcomer left."""
        claim = self._claims.get(session.id)
        if claim is None or claim.session is not session:
            return
        del self._claims[session.id]
        self._step_out(claim)
        self._report(claim)
        self._node.holdings.let_go(session)
        self._node.router.decided(session.id)

    def _ask(self, claim: Claim) -> None:
        ask(self._node, claim.session.id, lambda found: self._answered(claim, found))

    def _current(self, claim: Claim) -> bool:
        return self._claims.get(claim.session.id) is claim

    def _answered(self, claim: Claim, found: Found) -> None:
        if not self._current(claim):
            return
        node = self._node
        if found.outcome is Outcome.TIMEOUT and node.was_away:
            # The answer may be here, unread.
            node.later(AGAIN, self._again, claim)
        elif found.outcome is not Outcome.ANSWER:
            self._granted(claim)
        elif found.standing is Standing.HOLDING:
            self._stand_in_line(claim, node.peer(found.node))
        elif self._goes_before(claim, found):
            self._granted(claim)
        else:
            node.later(AGAIN, self._again, claim)

    def _goes_before(self, claim: Claim, found: Found) -> bool:
        if found.standing is Standing.CLAIMING:
            return self._node.number < found.node
        # Whoever is in another line has it from there, before us: the answer of that line's node is still to come.
        behind = bool(claim.given) or self._node.core.contest.in_line(claim.session.id, found.node)
        return found.standing is Standing.WAITING and behind

    def _again(self, claim: Claim) -> None:
        if not self._current(claim):
            return
        if self._node.clock() >= claim.until:
            self._finished(claim, Ending.ID_IN_USE)
        else:
            self._ask(claim)

    def _granted(self, claim: Claim) -> None:
        if not self._node.router.passable(claim.session.id):
            claim.waits_for_way = True
            # A node that says so much and reads nothing: what comes back after that is answered with 0x03.
            self._node.later(PATIENCE, self._passed, claim)
            return
        self._finished(claim)

    def passed(self, client_id: bytes) -> None:
        """Nothing comes back any more of what was sent to where an id was."""
        claim = self._claims.get(client_id)
        if claim is not None:
            self._passed(claim)

    def _passed(self, claim: Claim) -> None:
        if claim.waits_for_way and self._current(claim):
            self._finished(claim)

    def _finished(self, claim: Claim, refused: Ending | None = None) -> None:
        node, session = self._node, claim.session
        del self._claims[session.id]
        # What waits for the id stays where it is until the session can be found, or is refused.
        node.core.contest.cluster_decided(session, refused)
        if node.core.sessions.get(session.id) is not session:
            # Also where nobody is let in any more: whoever asks must not be told for minutes that somebody claims it.
            node.holdings.let_go(session)
        self._report(claim)
        node.router.decided(session.id)

    # --- In line at another node -------------------------------------------------------------------------------------

    def _stand_in_line(self, claim: Claim, holder: Peer) -> None:
        limits, public = self._node.core.limits, claim.session.public
        given = claim.given.pop(holder, None)
        if given is not None:
            # It cannot wait there behind itself.
            holder.put(Kind.CLAIM_OFF, given.to_bytes(4, "big"))
        self._number = self._number + 1 & 0xFFFFFFFF
        claim.number, claim.holder = self._number, holder
        self._judged[claim.number] = claim
        now = self._node.clock()
        # Nothing is read from a newcomer behind its handshake.
        age = int((now - claim.session.last_in) * 1e6)
        holder.put(Kind.CLAIM, CLAIM.pack(claim.number, age, public.x_pub, public.ed_pub))
        # Those before it may each take as long as a client has to answer, and a node to find out what they ask.
        patience = limits.claim_queue * (limits.claim_wait + PATIENCE)
        self._node.later(limits.claim_wait + ANSWER_WITHIN, self._overdue, claim, claim.number, now + patience)

    def _step_out(self, claim: Claim) -> None:
        holder = claim.holder
        if holder is not None:
            holder.put(Kind.CLAIM_OFF, claim.number.to_bytes(4, "big"))
            self._unjudged(claim)

    def _unjudged(self, claim: Claim) -> None:
        self._judged.pop(claim.number, None)
        claim.holder = None
        # It did not ask itself for as long as it stood in line.
        claim.until = self._node.clock() + PATIENCE

    def _overdue(self, claim: Claim, number: int, until: float) -> None:
        holder = self._judged.get(number) is claim and claim.holder
        if not holder:
            return
        now = self._node.clock()
        if self._node.was_away:
            # Nobody was heard meanwhile, and what the holder's node said may be here, unread.
            self._node.later(AGAIN, self._overdue, claim, number, until)
        elif now - holder.heard >= ANSWER_WITHIN:
            self._step_out(claim)
            self._granted(claim)
        elif now >= until:
            self._step_out(claim)
            self._finished(claim, Ending.ID_IN_USE)
        else:
            self._node.later(ANSWER_WITHIN, self._overdue, claim, number, until)  # it lives, and has a line

    def claim_answered(self, peer: Peer, body: bytes) -> None:
        """The node of the holder has judged a newcomer of ours."""
        number = int.from_bytes(body[:4], "big")
        claim = self._judged.get(number)
        if claim is None or claim.holder is not peer:
            return  # it is decided already, or its client left
        self._unjudged(claim)
        if body[4:] == bytes((_FREE,)):
            claim.given[peer] = number
            self._ask(claim)
        else:
            self._finished(claim, _ENDINGS.get(body[4:], Ending.ID_IN_USE))

    @staticmethod
    def _report(claim: Claim) -> None:
        """Tell those who gave it the id that it is decided."""
        for peer, number in claim.given.items():
            peer.put(Kind.CLAIM_OFF, number.to_bytes(4, "big"))
        claim.given.clear()

    # --- Newcomers elsewhere -----------------------------------------------------------------------------------------

    def claimed(self, peer: Peer, body: bytes) -> None:
        """A newcomer at another node claims an id that we hold."""
        if len(body) != CLAIM.size:
            self._node.count("malformed")
            return
        number, age, x_pub, ed_pub = CLAIM.unpack(body)
        try:
            newcomer = Elsewhere(self, peer, number, PublicIdentity(x_pub, ed_pub))
        except BadKey:
            self._node.count("malformed")
            return
        self._elsewhere[peer, number] = newcomer
        if self._node.shares.nonces.repeated(peer, x_pub):
            self.answer(newcomer, _REPEATED)
            return
        if self._node.holdings.came_after(newcomer.public, self._node.clock() - age / 1e6):
            self.answer(newcomer, _REPLACED)
            return
        self._node.core.contest.claimed_elsewhere(newcomer)

    def claim_off(self, peer: Peer, body: bytes) -> None:
        """A newcomer at another node waits no longer: it left, or had the id from us and is decided."""
        self._gave_up((peer, int.from_bytes(body, "big")))

    def _gave_up(self, key: tuple[Peer, int]) -> None:
        newcomer = self._elsewhere.pop(key, None)
        if newcomer is not None:
            self._node.core.contest.gave_up_elsewhere(newcomer)

    def answer(self, newcomer: Elsewhere, verdict: int) -> None:
        """Tell another node how its newcomer was judged."""
        key = (newcomer.peer, newcomer.number)
        if self._elsewhere.get(key) is not newcomer:
            return
        newcomer.peer.put(Kind.CLAIM_ANSWER, newcomer.number.to_bytes(4, "big") + bytes((verdict,)))
        if verdict == _FREE:
            self._node.later(PATIENCE, self._gave_up, key)
        else:
            del self._elsewhere[key]

    def node_gone(self, peer: Peer) -> None:
        """A node is gone: its newcomers are, and nobody there holds anything."""
        for key in [key for key in self._elsewhere if key[0] is peer]:
            self._gave_up(key)
        for claim in list(self._claims.values()):
            claim.given.pop(peer, None)
            if claim.holder is peer and self._current(claim):
                self._unjudged(claim)
                self._ask(claim)
