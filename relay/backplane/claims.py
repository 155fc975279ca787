"""One session per id in the whole cluster: the rules of `relay.claims`, across nodes.

A newcomer whom its own node would let in claims its id first: its node subscribes to the id's subject, then asks on it.

| the answer               | what happens |
|--------------------------|--------------|
| nobody has it            | admitted |
| a node holds it          | it judges the newcomer by the table, as one of its own: refused, or asked again |
| a node claims it too     | the lower node number goes on, the higher asks again until that is decided |
| a node just let go of it | asked again |
| no answer in time        | admitted: a node that is hung is as dead as a client that answers no ping |
| the bus is lost          | admitted: this node is all there is |

Subscriptions take a moment to be known at all NATS servers, so two nodes may still let in one id each: a second later
each newcomer is asked for once more. So are, whenever two nodes have not heard each other for a while, all sessions
that are younger than that. Of two sessions the node with the lower number says which one stays: that of the lower
number if both began within `SAME_TIME`, else the later, which is where the client is now. The other is ended as
replaced.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from websockets.frames import CloseCode

from keys.errors import BadKey
from keys.identity import PublicIdentity
from relay.backplane.bus import Outcome
from relay.backplane.link import Peer
from relay.backplane.lookup import ANSWER_WITHIN, Found, Standing, answer, ask
from relay.backplane.records import CLAIM, DROP, HOLD, KEYS_PER_RECORD, Kind, split
from relay.reasons import Ending
from relay.websocket import Phase

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.session import Session

AGAIN: Final = 0.05
"""Seconds until a claim that met another is tried again."""
CHECK_AFTER: Final = 1.0
"""Seconds after which a new session is looked for elsewhere."""
CHECKS: Final = 5
"""How often it is looked for while there is no answer."""
SAME_TIME: Final = 3.0
"""Seconds within which two sessions began at the same time."""
PATIENCE: Final = 10.0
"""Seconds after which a claim is refused that never met a clear answer."""
_FREE: Final = 0
_TAKEN: Final = 1
_REPEATED: Final = 2


class Held:
    """An id that this node has, or claims."""

    __slots__ = ("admitted", "serial", "session", "subject")

    def __init__(self, session: "Session", subject: str, serial: int) -> None:
        self.session = session
        self.subject = subject
        self.serial = serial
        self.admitted: float | None = None


class Claim:
    """A newcomer of ours that waits for the others' word."""

    __slots__ = ("holder", "number", "session", "until", "waits_for_way")

    def __init__(self, session: "Session", number: int, until: float) -> None:
        self.session = session
        self.number = number
        self.until = until
        self.holder: Peer | None = None
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

    def decided(self, *, free: bool) -> None:
        """Tell its node."""
        self._claims.answer(self, _FREE if free else _TAKEN)


class Claims:
    """The ids of this node, and who claims what."""

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        self._held: dict[bytes, Held] = {}
        self._claims: dict[bytes, Claim] = {}
        self._judged: dict[int, Claim] = {}
        """By their numbers, those that a holder's node judges."""
        self._elsewhere: dict[tuple[Peer, int], Elsewhere] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def asking(self) -> int:
        """How many newcomers wait for other nodes."""
        return len(self._claims)

    # --- Newcomers of this node --------------------------------------------------------------------------------------

    def claim(self, session: "Session") -> None:
        """Find out whether a newcomer may have its id; `Entry.cluster_decided` is called, not from within this."""
        claim = Claim(session, self._next(), self._node.clock() + PATIENCE)
        self._claims[session.id] = claim
        self._hold(session)
        self._node.router.claiming(session.id)
        self._ask(claim)

    def cancel(self, session: "Session") -> None:
        """The newcomer left."""
        claim = self._claims.get(session.id)
        if claim is None or claim.session is not session:
            return
        if claim.holder is not None:
            claim.holder.put(Kind.CLAIM_OFF, claim.number.to_bytes(4, "big"))
            self._unjudged(claim)
        del self._claims[session.id]
        self._let_go(session)
        self._node.router.decided(session.id)

    def _ask(self, claim: Claim) -> None:
        ask(self._node, claim.session.id, lambda found: self._answered(claim, found))

    def _current(self, claim: Claim) -> bool:
        return self._claims.get(claim.session.id) is claim

    def _answered(self, claim: Claim, found: Found) -> None:
        if not self._current(claim):
            return
        node = self._node
        if found.outcome is not Outcome.ANSWER:
            self._granted(claim)
        elif found.standing is Standing.HOLDING:
            claim.holder = node.peer(found.node)
            self._judged[claim.number] = claim
            public = claim.session.public
            claim.holder.put(Kind.CLAIM, CLAIM.pack(claim.number, public.x_pub, public.ed_pub))
            # It may take as long as its client to answer, and stand in line behind others for as long each.
            node.later(node.core.limits.claim_wait + ANSWER_WITHIN, self._overdue, claim, claim.holder)
        elif found.standing is Standing.CLAIMING and node.number < found.node:
            self._granted(claim)
        else:
            node.later(AGAIN, self._again, claim)

    def _again(self, claim: Claim) -> None:
        if not self._current(claim):
            return
        if self._node.clock() >= claim.until:
            self._finished(claim, admitted=False)
        else:
            self._ask(claim)

    def _overdue(self, claim: Claim, holder: Peer) -> None:
        if self._current(claim) and claim.holder is holder:
            holder.put(Kind.CLAIM_OFF, claim.number.to_bytes(4, "big"))
            self._unjudged(claim)
            if self._node.clock() - holder.heard < ANSWER_WITHIN:
                self._again(claim)  # it lives, and has a line
            else:
                self._granted(claim)

    def _granted(self, claim: Claim) -> None:
        if not self._node.router.passable(claim.session.id):
            claim.waits_for_way = True
            return
        self._finished(claim, admitted=True)

    def passed(self, client_id: bytes) -> None:
        """Nothing comes back any more of what was sent to where an id was."""
        claim = self._claims.get(client_id)
        if claim is not None and claim.waits_for_way:
            self._finished(claim, admitted=True)

    def _finished(self, claim: Claim, *, admitted: bool, repeated: bool = False) -> None:
        session = claim.session
        del self._claims[session.id]
        if not admitted:
            self._let_go(session)
        # What waits for the id stays where it is until the session can be found, or is refused.
        self._node.core.entry.cluster_decided(session, admitted=admitted, repeated=repeated)
        self._node.router.decided(session.id)

    def claim_answered(self, peer: Peer, body: bytes) -> None:
        """The node of the holder has judged a newcomer of ours."""
        number = int.from_bytes(body[:4], "big")
        claim = self._judged.get(number)
        if claim is None or claim.holder is not peer:
            return  # it is decided already, or its client left
        self._unjudged(claim)
        if body[4:] == bytes((_FREE,)):
            self._again(claim)
        else:
            self._finished(claim, admitted=False, repeated=body[4:] == bytes((_REPEATED,)))

    def _unjudged(self, claim: Claim) -> None:
        self._judged.pop(claim.number, None)
        claim.holder = None

    # --- Ids of this node --------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._serial = self._serial + 1 & 0xFFFFFFFF
        return self._serial

    def _hold(self, session: "Session") -> None:
        held = self._held.get(session.id)
        subject = self._node.seals.id_subject(session.id) if held is None else held.subject
        self._held[session.id] = Held(session, subject, self._next())
        if held is None:
            self._node.bus.subscribe(subject, self._question)
            self._node.subjects[subject] = session.id

    def _let_go(self, session: "Session") -> None:
        held = self._held.get(session.id)
        if held is not None and held.session is session:
            del self._held[session.id]
            del self._node.subjects[held.subject]
            self._node.bus.unsubscribe(held.subject)

    def admitted(self, session: "Session") -> None:
        """A session has its id."""
        self._hold(session)
        self._held[session.id].admitted = self._node.clock()
        self._node.later(CHECK_AFTER, self._check, session, CHECKS)

    def left(self, session: "Session") -> None:
        """A session ended."""
        self._let_go(session)

    def _question(self, question: bytes, reply: str, subject: str) -> None:
        client_id = self._node.subjects.get(subject)
        held = None if client_id is None else self._held.get(client_id)
        if held is None:
            how = (Standing.ABSENT, 0, 0.0)
        elif held.admitted is None:
            how = (Standing.CLAIMING, held.serial, 0.0)
        else:
            how = (Standing.HOLDING, held.serial, self._node.clock() - held.admitted)
        if reply:
            answer(self._node, subject, question, reply, how)

    # --- Newcomers elsewhere -----------------------------------------------------------------------------------------

    def claimed(self, peer: Peer, body: bytes) -> None:
        """A newcomer at another node claims an id that we hold."""
        if len(body) != CLAIM.size:
            self._node.count("malformed")
            return
        number, x_pub, ed_pub = CLAIM.unpack(body)
        try:
            newcomer = Elsewhere(self, peer, number, PublicIdentity(x_pub, ed_pub))
        except BadKey:
            self._node.count("malformed")
            return
        self._elsewhere[peer, number] = newcomer
        if self._node.shares.repeated(peer, x_pub):
            self.answer(newcomer, _REPEATED)
            return
        self._node.core.entry.claimed_elsewhere(newcomer)

    def claim_off(self, peer: Peer, body: bytes) -> None:
        """A newcomer at another node left."""
        newcomer = self._elsewhere.pop((peer, int.from_bytes(body, "big")), None)
        if newcomer is not None:
            self._node.core.entry.gave_up_elsewhere(newcomer)

    def answer(self, newcomer: Elsewhere, verdict: int) -> None:
        """Tell another node how its newcomer was judged."""
        if self._elsewhere.pop((newcomer.peer, newcomer.number), None) is not None:
            newcomer.peer.put(Kind.CLAIM_ANSWER, newcomer.number.to_bytes(4, "big") + bytes((verdict,)))

    # --- Two sessions ------------------------------------------------------------------------------------------------

    def _check(self, session: "Session", times: int) -> None:
        held = self._held.get(session.id)
        if held is None or held.session is not session or held.admitted is None:
            return

        def answered(found: Found) -> None:
            if found.outcome is Outcome.ANSWER and found.standing is Standing.HOLDING:
                self._two(self._node.peer(found.node), session.id, found.serial, found.age)
            if found.outcome in (Outcome.ANSWER, Outcome.TIMEOUT) and times > 1:
                # Somebody has, had or claims the id: until that is no longer so this is not the last word.
                self._node.later(CHECK_AFTER, self._check, session, times - 1)

        ask(self._node, session.id, answered)

    def _two(self, peer: Peer, client_id: bytes, serial: int, age: float) -> None:
        """Another node has a session of an id, with this serial and age; if we have one too, one of them goes."""
        held = self._held.get(client_id)
        if held is None or held.admitted is None:
            return
        ours = self._node.clock() - held.admitted
        if peer.number < self._node.number:
            # One node decides, else both sessions might go, or none.
            peer.put(Kind.HOLDS, HOLD.pack(client_id, held.serial, int(ours * 1e6)))
        elif abs(ours - age) < SAME_TIME or ours < age:
            peer.put(Kind.DROP, DROP.pack(client_id, serial))
        else:
            self._end(held)

    def _end(self, held: Held) -> None:
        if held.session.phase is Phase.OPEN:
            self._node.two_sessions += 1
            held.session.end(Ending.REPLACED, CloseCode.POLICY_VIOLATION, "replaced by a newer session")

    def dropped(self, body: bytes) -> None:
        """The node that decides says that this session of ours is the one that goes."""
        if len(body) != DROP.size:
            self._node.count("malformed")
            return
        client_id, serial = DROP.unpack(body)
        held = self._held.get(client_id)
        if held is not None and held.serial == serial:
            self._end(held)

    def told_of(self, peer: Peer, body: bytes) -> None:
        """Another node tells which sessions it has."""
        for part in split(body, HOLD.size):
            client_id, serial, age = HOLD.unpack(part)
            self._two(peer, client_id, serial, age / 1e6)

    def tell(self, peer: Peer, younger: float) -> Iterator[None]:
        """Tell the node that decides of all sessions younger than that, in slices."""
        now = self._node.clock()
        parts = []
        for client_id, held in list(self._held.items()):
            if held.admitted is not None and now - held.admitted <= younger and self._held.get(client_id) is held:
                parts.append(HOLD.pack(client_id, held.serial, int((now - held.admitted) * 1e6)))
            if len(parts) == KEYS_PER_RECORD:
                peer.put(Kind.HOLDS, b"".join(parts))
                parts.clear()
                yield
        if parts and peer.alive:
            peer.put(Kind.HOLDS, b"".join(parts))

    def node_gone(self, peer: Peer) -> None:
        """A node is gone: its newcomers are, and nobody there holds anything."""
        for key in [key for key in self._elsewhere if key[0] is peer]:
            self._node.core.entry.gave_up_elsewhere(self._elsewhere.pop(key))
        for claim in list(self._claims.values()):
            if claim.holder is peer and self._current(claim):
                self._unjudged(claim)
                self._again(claim)
