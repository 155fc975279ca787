"""The ids of this node: who asks for one is answered, and of two sessions of one id in the cluster one is ended.

Subscriptions take a moment to be known at all NATS servers, so two nodes may let in one id each: a second later each
newcomer is asked for once more. So are, whenever two nodes have not heard each other for a while, all sessions that are
younger than that. Of two sessions the node with the lower number says which one stays: that of the lower number if both
began within `SAME_TIME`, else the later, which is where the client is now. The other is ended as replaced.

Of three or more each pair is judged by itself, and all pairs at once when the bus comes back: the first may be as old
as the second, the second as the third, and the first be ended because of the third. So that one stays, a node ends its
own at once, and another's only `DROP_AFTER` later, if its own is still there: that of the highest number is ended by
nobody at once, and of those that are left the one of the lowest number by nobody at all.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from websockets.frames import CloseCode

from keys.identity import PublicIdentity
from relay.backplane.bus import Outcome
from relay.backplane.link import Peer
from relay.backplane.lookup import Found, Standing, answer, ask
from relay.backplane.records import DROP, HOLD, KEYS_PER_RECORD, Kind, split
from relay.reasons import Ending
from relay.websocket import Phase

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.session import Session

CHECK_AFTER: Final = 1.0
"""Seconds after which a new session is looked for elsewhere."""
CHECKS: Final = 5
"""How often it is looked for while there is no answer."""
SAME_TIME: Final = 3.0
"""Seconds within which two sessions began at the same time."""
DROP_AFTER: Final = 1.0
"""Seconds until the other one of two sessions is ended: more than it takes until all nodes have told what they have."""
_LOOKED_AT: Final = 1024


class Held:
    """An id that this node has, or claims."""

    __slots__ = ("admitted", "came", "serial", "session", "subject")

    def __init__(self, session: "Session", subject: str, serial: int, came: float) -> None:
        self.session = session
        self.subject = subject
        self.serial = serial
        self.came = came
        self.admitted: float | None = None


class Holdings:
    """The ids of this node."""

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        self._held: dict[bytes, Held] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, session: "Session") -> Held:
        """Answer from now on who asks for the id of a session, or of a newcomer that claims it."""
        held = self._held.get(session.id)
        subject = self._node.seals.id_subject(session.id) if held is None else held.subject
        self._serial = self._serial + 1 & 0xFFFFFFFF
        # Of a newcomer this is the time of its handshake, behind which nothing is read yet.
        came = session.last_in if held is None or held.session is not session else held.came
        self._held[session.id] = ours = Held(session, subject, self._serial, came)
        if held is None:
            self._node.bus.subscribe(subject, self._question)
            self._node.subjects[subject] = session.id
        return ours

    def let_go(self, session: "Session") -> None:
        """A session ended, or a newcomer was not let in."""
        held = self._held.get(session.id)
        if held is not None and held.session is session:
            del self._held[session.id]
            del self._node.subjects[held.subject]
            self._node.bus.unsubscribe(held.subject)

    def admitted(self, session: "Session") -> None:
        """A session has its id."""
        self.hold(session).admitted = self._node.clock()
        self._node.later(CHECK_AFTER, self._check, session, CHECKS)

    def came_after(self, public: PublicIdentity, when: float) -> bool:
        """Tell whether a client has a session here whose handshake came after that time."""
        held = self._held.get(public.id)
        return held is not None and held.admitted is not None and held.session.public == public and held.came > when

    def _question(self, question: bytes, reply: str, subject: str) -> None:
        client_id = self._node.subjects.get(subject)
        held = None if client_id is None else self._held.get(client_id)
        if held is None:
            how = (Standing.ABSENT, 0, 0.0)
        elif held.admitted is None:
            how = (self._node.claims.standing(held.session), held.serial, 0.0)
        else:
            how = (Standing.HOLDING, held.serial, self._node.clock() - held.admitted)
        if reply:
            answer(self._node, subject, question, reply, how)

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
            self._node.later(DROP_AFTER, self._drop, held, peer, serial)
        else:
            self._end(held)

    def _drop(self, held: Held, peer: Peer, serial: int) -> None:
        if self._held.get(held.session.id) is held:
            peer.put(Kind.DROP, DROP.pack(held.session.id, serial))

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
        for count, client_id in enumerate(list(self._held), 1):
            held = self._held.get(client_id)
            if held is not None and held.admitted is not None and now - held.admitted <= younger:
                parts.append(HOLD.pack(client_id, held.serial, int((now - held.admitted) * 1e6)))
            if len(parts) == KEYS_PER_RECORD:
                peer.put(Kind.HOLDS, b"".join(parts))
                parts.clear()
            if count % _LOOKED_AT == 0:
                # Of a hundred thousand nearly all are older than a silence of some seconds.
                yield
        if parts and peer.alive:
            peer.put(Kind.HOLDS, b"".join(parts))
