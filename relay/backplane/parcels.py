"""Frames and commands for somebody at another node: how they are delivered where they arrive, and what comes back."""

from typing import TYPE_CHECKING, Final

from keys.identity import ID_SIZE
from keys.primitives import COUNTER_0, KEY_SIZE, NONCE_SIZE
from relay.backplane.link import Peer
from relay.backplane.outgoing import FRAME, FRAME_HEAD, RECORD
from relay.backplane.records import PARCEL, Kind, Parcel, encode_refused, parse_parcel, parse_refused
from relay.outbox import frame_head
from relay.reasons import Refusal
from relay.session import Session
from relay.websocket import Phase
from wire import commands as c
from wire.errors import WireError

if TYPE_CHECKING:
    from relay.backplane.node import Backplane

_REASONS: Final = tuple(Refusal)
# Looked up once, for the path of each frame.
_OPEN: Final = Phase.OPEN
_unpack_head: Final = FRAME_HEAD.unpack_from
_HEAD: Final = FRAME_HEAD.size
_BEFORE: Final = RECORD.size
_LEAST: Final = PARCEL.size + NONCE_SIZE
_MASKED: Final = ID_SIZE - PARCEL.size
"""What a WebSocket message with the frame has more than the record: the sender's id, for the parcel's own fields."""
_SENDERS: Final = 65_536
_BOUNCING: Final = 65_536
"""Ids for each node of which parcels came back to it, and that it did not answer yet. Beyond that order may be lost."""


class Sender:
    """A client of another node, as those see it to whom it sends."""

    __slots__ = ("_peer", "id")

    def __init__(self, peer: Peer, client_id: bytes) -> None:
        self._peer = peer
        self.id = client_id

    def refuse(self, target: bytes, nonce: bytes, refusal: Refusal) -> None:
        """Let its own node answer 0x03; there it is counted and paced like any other."""
        if self._peer.alive:
            self._peer.put(Kind.REFUSED, encode_refused(self.id, target, nonce, _REASONS.index(refusal)))

    def recovered(self, x_pub: bytes) -> None:
        """Let its own node tell it that a recipient takes frames again."""
        if self._peer.alive:
            self._peer.put(Kind.RECOVERED, self.id + x_pub)


class Parcels:
    """Takes and returns what is for an id."""

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        self._senders: dict[Peer, dict[bytes, Sender]] = {}
        self._bouncing: dict[Peer, set[bytes]] = {}

    def sender(self, peer: Peer, client_id: bytes) -> Sender:
        """Return a client of another node."""
        known = self._senders.setdefault(peer, {})
        sender = known.get(client_id)
        if sender is None:
            if len(known) >= _SENDERS:
                known.clear()  # nothing but their identity is lost
            sender = known[client_id] = Sender(peer, client_id)
        return sender

    def sender_of(self, parcel: Parcel) -> "Session | None":
        """Return the session of this node that sent a parcel; of one that came back, whoever has its id now."""
        origin = parcel.origin
        return origin if isinstance(origin, Session) else self._node.core.sessions.get(parcel.sender)

    def node_gone(self, peer: Peer) -> None:
        """A node is gone."""
        self._senders.pop(peer, None)
        self._bouncing.pop(peer, None)

    # --- Leaving -----------------------------------------------------------------------------------------------------

    def introduce(self, target: bytes, sender: bytes, introduction: bytes) -> None:
        """Send an introduction to whoever has an id."""
        self._node.router.send(Parcel(Kind.INTRODUCE, 0, target, sender, introduction, None))

    def wake(self, target: bytes, sender: bytes, wake: bytes) -> None:
        """Send a WAKE to where its target is, or to the notifier if that is nowhere."""
        self._node.router.send(Parcel(Kind.WAKE, 0, target, sender, wake, None))

    def notify(self, notifier: bytes, sender: bytes, command: bytes) -> None:
        """Send what is for the notifier: the code of a command, and its body."""
        self._node.router.send(Parcel(Kind.TO_NOTIFIER, 0, notifier, sender, command, None))

    # --- Arriving ----------------------------------------------------------------------------------------------------

    def frames(self, peer: Peer, data: bytes, position: int) -> tuple[int, int]:
        """Deliver the frames that stand one after another in `data`; as `Session.run_received`, the hot path."""
        whole = len(data)
        end = whole - _HEAD - NONCE_SIZE
        sessions = self._node.core.sessions
        touch = self._node.core.turns.touch
        senders, bouncing = self._senders.setdefault(peer, {}), self._bouncing.get(peer)
        known_target = known_sender = head = b""
        known_size = -1
        session: Session | None = None
        count = 0
        try:
            while position <= end and data[position] == FRAME:
                _, size, _, target, sender_id = _unpack_head(data, position)
                stop = position + _BEFORE + size
                if stop > whole or size < _LEAST:
                    break
                # Asked for each: delivering one frame can end a session.
                if target != known_target or session is None or session.phase is not _OPEN:
                    session, known_target = sessions.get(target), target
                    if bouncing and target in bouncing:
                        session = None
                    if session is not None:
                        reset_out, update_out = session.mask.methods
                        outbox = session.outbox
                if session is None:
                    self._bounce(peer, FRAME, target, data[position + _BEFORE : stop])
                    bouncing = self._bouncing[peer]
                else:
                    if sender_id != known_sender:
                        sender, known_sender = senders.get(sender_id) or self.sender(peer, sender_id), sender_id
                    if size != known_size:
                        known_size, head = size, frame_head(size + _MASKED)
                    packet = data[position + _HEAD : stop]
                    reset_out(COUNTER_0 + packet[:12])
                    frame = head + update_out(sender_id) + packet
                    if not outbox.put(frame, sender):
                        session.deliver_crowded(frame, packet[:NONCE_SIZE], sender)
                    elif not session.dirty:
                        touch(session)
                position = stop
                count += 1
        except Exception as error:  # noqa: BLE001 - a mistake of ours with one recipient: the others' are theirs
            # Counted with those before it. Else all of these would be delivered, and sent, once more.
            self._node.core.loop.call_exception_handler({"message": "a frame was not delivered", "exception": error})
            position, count = stop, count + 1
        if not count:
            # Too short for a frame: no node makes such a one.
            self._node.count("malformed")
            return position + RECORD.size + RECORD.unpack_from(data, position)[1], 1
        return position, count

    def take(self, peer: Peer, kind: int, body: bytes) -> None:
        """Take a parcel, or what became of one of ours."""
        node = self._node
        if kind == Kind.REFUSED:
            self._refused(body)
        elif kind == Kind.RECOVERED and len(body) == ID_SIZE + KEY_SIZE:
            session = node.core.sessions.get(body[:ID_SIZE])
            if session is not None:
                session.recovered(body[ID_SIZE:])
        elif kind == Kind.BOUNCED and body:
            parcel = parse_parcel(body[0], body[1:])
            if parcel is None:
                node.count("malformed")
            else:
                node.router.bounced(peer, parcel._replace(origin=node.core.sessions.get(parcel.sender)))
        elif (parcel := parse_parcel(kind, body)) is not None and kind != Kind.FRAME:
            session = node.core.sessions.get(parcel.target)
            if session is None or parcel.target in self._bouncing.get(peer, ()):
                self._bounce(peer, kind, parcel.target, body)
            else:
                self._obey(session, parcel)
        else:
            node.count("malformed")

    def _bounce(self, peer: Peer, kind: int, target: bytes, body: bytes) -> None:
        """Send a parcel back, and all later ones for that id too, until its sender's node knows that the first did.

        Else, when the id is here again in the meantime, those under way would come before the one that went back.
        """
        bouncing = self._bouncing.setdefault(peer, set())
        if len(bouncing) >= _BOUNCING:
            bouncing.clear()
        bouncing.add(target)
        peer.put(Kind.BOUNCED, bytes((kind,)) + body)

    def synced(self, peer: Peer, target: bytes) -> None:
        """All that a node sent to an id before it knew what came back has come."""
        self._bouncing.get(peer, set()).discard(target)

    def _refused(self, body: bytes) -> None:
        refused = parse_refused(body)
        if refused is None:
            self._node.count("malformed")
            return
        sender_id, target, nonce, reason = refused
        session = self._node.core.sessions.get(sender_id)
        if session is not None:
            session.refuse(target, nonce, _REASONS[reason] if reason < len(_REASONS) else Refusal.NODE_LOST)

    def deliver(self, session: "Session", parcel: Parcel) -> None:
        """Deliver a parcel of this node to a session of this node."""
        if parcel.kind != Kind.FRAME:
            self._obey(session, parcel)
            return
        session.deliver(parcel.payload, parcel.sender, self.sender_of(parcel))

    def _obey(self, session: "Session", parcel: Parcel) -> None:
        """Do what a client asked for, here where the one lives whom it is about."""
        control, payload = self._node.core.control, parcel.payload
        try:
            if parcel.kind == Kind.INTRODUCE:
                control.introduced(session, c.IntroFrom.parse(payload))
            elif parcel.kind == Kind.WAKE:
                control.wake_here(session, c.Wake.parse(payload), parcel.sender)
            elif parcel.kind == Kind.TO_NOTIFIER and payload[:1] == bytes((c.Command.WAKE,)):
                control.wake_notifier(session, c.Wake.parse(payload[1:]))
            elif parcel.kind == Kind.TO_NOTIFIER:
                control.register_at(session, c.PushForward.parse(payload[1:]))
            else:
                self._node.count("unknown")
        except WireError:
            self._node.count("malformed")

    # --- Not arriving ------------------------------------------------------------------------------------------------

    def failed(self, parcel: Parcel, refusal: Refusal, peer: Peer | None = None) -> None:
        """A parcel of this node cannot be delivered; to this node, if that is known."""
        core = self._node.core
        if parcel.kind == Kind.FRAME:
            sender = self.sender_of(parcel)
            if sender is None:
                core.counters.refusals[refusal] += 1
            else:
                sender.refuse(parcel.target, parcel.payload[:NONCE_SIZE], refusal)
                # Nobody has the id; or its node is cut off, and not given up yet: then whoever watches the recipient
                # takes it for online, and no change would tell the sender to try again.
                if refusal is not Refusal.OFFLINE or self._node.presence.said_online(parcel.target):
                    self._node.recovery.remember(parcel.sender, parcel.target, peer)
        elif parcel.kind == Kind.WAKE:
            # Nobody has a session of theirs, so they are not awake.
            try:
                core.control.wake_absent(c.Wake.parse(parcel.payload), parcel.sender)
            except WireError:
                self._node.count("malformed")  # it came back, and is none of ours
        elif parcel.kind == Kind.TO_NOTIFIER:
            core.counters.refusals[Refusal.NO_NOTIFIER] += 1
        else:
            core.counters.refusals[refusal] += 1

    def dropped(self, record: bytes, origin: object) -> None:
        """A node is gone, and with it what was on its way there."""
        parcel = origin if isinstance(origin, Parcel) else parse_parcel(record[0], record[RECORD.size :], origin)
        if parcel is not None:
            self.failed(parcel, Refusal.NODE_LOST)
