"""Sessions: what may be said when, for both roles, as one table (PROTOCOL.md §8).

                 client                                              relay
    IDLE       ── hello() ─────────▶ AWAITING       AWAITING  ── receive_hello() ──▶ DECIDING
    AWAITING   ◀─ HANDSHAKE_OK ────▶ OPEN           DECIDING  ── accept() ─────────▶ UNPROVEN
    AWAITING   ◀─ ERROR ───────────▶ REFUSED        DECIDING  ── refuse() ─────────▶ REFUSED
                                                    UNPROVEN  ── something fresh ──▶ PROVEN
    any        ── close() ─────────▶ CLOSED         any       ── close() ──────────▶ CLOSED

A session object holds the keys of one connection and knows nothing of the connection itself. "Something fresh" is a
PROOF with the bytes of our CHALLENGE, or a frame for the server with a nonce never seen before: until then whoever
replays a recorded handshake looks the same as its author.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from keys.errors import BadKey
from keys.identity import SERVER_ID, Identity, PublicIdentity
from keys.primitives import KEY_SIZE, HeaderKeystream, constant_time_equal, random_bytes
from wire import commands as c
from wire import frames, mask
from wire.errors import BadBody, LocalError, NotNow
from wire.frames import Hello, Random
from wire.limits import PROTOCOL_VERSION


class Role(Enum):
    """Which side of a session we are."""

    CLIENT = "client"
    SERVER = "server"


class State(Enum):
    """Where a session stands."""

    IDLE = "idle"
    AWAITING = "awaiting"
    DECIDING = "deciding"
    OPEN = "open"
    UNPROVEN = "unproven"
    PROVEN = "proven"
    REFUSED = "refused"
    CLOSED = "closed"


class Step(Enum):
    """What moves a session on."""

    HELLO = "hello"
    ACCEPT = "accept"
    REFUSE = "refuse"
    FRESH = "fresh"
    CLOSE = "close"


INITIAL: Final = {Role.CLIENT: State.IDLE, Role.SERVER: State.AWAITING}

TRANSITIONS: Final[dict[Role, dict[State, dict[Step, State]]]] = {
    Role.CLIENT: {
        State.IDLE: {Step.HELLO: State.AWAITING, Step.CLOSE: State.CLOSED},
        State.AWAITING: {Step.ACCEPT: State.OPEN, Step.REFUSE: State.REFUSED, Step.CLOSE: State.CLOSED},
        State.OPEN: {Step.CLOSE: State.CLOSED},
        State.REFUSED: {Step.CLOSE: State.CLOSED},
        State.CLOSED: {Step.CLOSE: State.CLOSED},
    },
    Role.SERVER: {
        State.AWAITING: {Step.HELLO: State.DECIDING, Step.CLOSE: State.CLOSED},
        State.DECIDING: {Step.ACCEPT: State.UNPROVEN, Step.REFUSE: State.REFUSED, Step.CLOSE: State.CLOSED},
        State.UNPROVEN: {Step.FRESH: State.PROVEN, Step.CLOSE: State.CLOSED},
        State.PROVEN: {Step.FRESH: State.PROVEN, Step.CLOSE: State.CLOSED},
        State.REFUSED: {Step.CLOSE: State.CLOSED},
        State.CLOSED: {Step.CLOSE: State.CLOSED},
    },
}
"""All transitions. What is not here is our bug (:class:`LocalError`) or their violation (:class:`NotNow`)."""

TALKING: Final = frozenset({State.OPEN, State.UNPROVEN, State.PROVEN})
"""The states in which frames for peers and commands pass."""


def _next(role: Role, state: State, step: Step) -> State:
    try:
        return TRANSITIONS[role][state][step]
    except KeyError:
        raise LocalError(f"a {role.value} session that is {state.value} cannot {step.value}") from None


@dataclass(frozen=True, slots=True)
class PeerFrame:
    """A packet from a peer, as the relay delivered it; only the peer's keys can tell whether it is genuine."""

    sender_id: bytes = field(repr=False)
    packet: bytes = field(repr=False)


class ServerSession:
    """The relay's side of one session.

    Args:
        ours: the relay's identity.
        random: gives the nonces and the challenge.
    """

    __slots__ = ("_challenge", "_ours", "_random", "_shared", "mask_in", "mask_out", "peer", "state")

    mask_in: HeaderKeystream
    mask_out: HeaderKeystream
    peer: PublicIdentity

    def __init__(self, ours: Identity, random: Random = random_bytes) -> None:
        self.state = INITIAL[Role.SERVER]
        self._ours = ours
        self._random = random
        self._challenge: bytes | None = None

    def receive_hello(self, frame: bytes) -> Hello:
        """Open the client's first frame; the caller then decides, and calls :meth:`accept` or :meth:`refuse`.

        Raises:
            BadFrame, BadBody: nothing that can be answered; the connection is to be closed.
            NotNow: not the first frame.
        """
        if self.state is not State.AWAITING:
            raise NotNow("a session has one handshake")
        hello = frames.parse_handshake(frame, self._ours)
        self.peer = hello.public
        self._shared = hello.shared
        self.mask_in = mask.client_to_server(hello.shared)
        self.mask_out = mask.server_to_client(hello.shared)
        self.state = _next(Role.SERVER, self.state, Step.HELLO)
        return hello

    def accept(self) -> bytes:
        """Open the session; returns the HANDSHAKE_OK frame, which must be the first that the client gets."""
        self.state = _next(Role.SERVER, self.state, Step.ACCEPT)
        return self._seal(c.HandshakeOk())

    def refuse(self, error: c.ErrorBody) -> bytes:
        """Refuse the session; returns the ERROR frame, after which the connection is to be closed."""
        refused = _next(Role.SERVER, self.state, Step.REFUSE)
        frame = self._seal(error)
        self.state = refused
        return frame

    def challenge(self) -> bytes:
        """Return a CHALLENGE frame with fresh bytes; a PROOF is measured against the last one."""
        challenge = self._random(KEY_SIZE)
        frame = self.seal(c.Challenge(challenge))
        self._challenge = challenge
        return frame

    def check_proof(self, proof: c.Proof) -> bool:
        """Tell whether a PROOF answers our CHALLENGE, each challenge once; if so the session is proven."""
        expected, self._challenge = self._challenge, None
        if expected is None or not constant_time_equal(expected, proof.random):
            return False
        self.prove()
        return True

    def prove(self) -> None:
        """Take the session as proven: the caller saw a nonce of a frame for the server that it never saw before."""
        self.state = _next(Role.SERVER, self.state, Step.FRESH)

    @property
    def proven(self) -> bool:
        """Whether the client showed that it holds its keys now."""
        return self.state is State.PROVEN

    def open_command(self, packet: bytes) -> c.ClientBody:
        """Open the packet of a frame for the server.

        Raises:
            BadFrame: it does not open.
            BadBody: its body does not fit its layout.
            NotNow: a second handshake, or the session is not open.
        """
        if self.state not in TALKING:
            raise NotNow("the session is not open")
        inner = frames.open_server_packet(packet, self.peer.ed_pub, self._shared)
        body = c.parse_from_client(inner.command, inner.body)
        if isinstance(body, c.HandshakeRequest):
            raise NotNow("a session has one handshake")
        return body

    def seal(self, body: c.Body) -> bytes:
        """Return a frame from the server that carries `body`."""
        if self.state not in TALKING:
            raise LocalError(f"a session that is {self.state.value} sends nothing")
        return self._seal(body)

    def close(self) -> None:
        """End the session."""
        self.state = _next(Role.SERVER, self.state, Step.CLOSE)

    def _seal(self, body: c.Body) -> bytes:
        return frames.build_server_frame(self.mask_out, body, self._ours, self._shared, random=self._random)

    def __repr__(self) -> str:
        return f"ServerSession({self.state.value})"


class ClientSession:
    """A client's side of one session.

    Args:
        ours: the client's identity.
        server: the relay's pinned keys.
        random: gives the nonces.

    Raises:
        BadKey: the pinned key must not be used.
    """

    __slots__ = ("_mask_in", "_mask_out", "_message_id", "_ours", "_random", "_server", "_shared", "state")

    def __init__(self, ours: Identity, server: PublicIdentity, random: Random = random_bytes) -> None:
        if ours.public.x_pub == server.x_pub:
            raise BadKey("a client is not its own relay")
        self.state = INITIAL[Role.CLIENT]
        self._ours = ours
        self._server = server
        self._random = random
        self._shared = ours.shared_with(server.x_pub)
        self._mask_out = mask.client_to_server(self._shared)
        self._mask_in = mask.server_to_client(self._shared)
        self._message_id = 0

    def hello(self) -> bytes:
        """Return the handshake request, the first frame to send."""
        self.state = _next(Role.CLIENT, self.state, Step.HELLO)
        return frames.build_handshake(self._ours, self._shared, message_id=self._next_message_id(), random=self._random)

    def receive(self, frame: bytes) -> c.ServerBody | PeerFrame:
        """Take one frame from the relay.

        Returns:
            A command of the relay, whose signature under the pinned key was checked, or a peer's packet unopened.

        Raises:
            BadFrame, BadBody: not from the relay whose keys are pinned, or not as the protocol has it.
            NotNow: anything but the answer to the handshake before that answer, or a second answer.
        """
        if self.state is not State.AWAITING and self.state not in TALKING:
            raise NotNow(f"a frame for a session that is {self.state.value}")
        sender_id, packet = frames.parse_frame(self._mask_in, frame)
        if sender_id != SERVER_ID:
            if self.state is State.AWAITING:
                raise NotNow("a peer's frame before the answer to the handshake")
            return PeerFrame(sender_id, packet)
        inner = frames.open_server_packet(packet, self._server.ed_pub, self._shared)
        body = c.parse_from_server(inner.command, inner.body)
        if isinstance(body, c.HandshakeOk):
            if self.state is not State.AWAITING:
                raise NotNow("a session has one handshake")
            if body.version != PROTOCOL_VERSION:
                raise BadBody("the relay accepted with another version")
            self.state = _next(Role.CLIENT, self.state, Step.ACCEPT)
        elif self.state is State.AWAITING:
            if not isinstance(body, c.ErrorBody):
                raise NotNow("a command before the answer to the handshake")
            self.state = _next(Role.CLIENT, self.state, Step.REFUSE)
        return body

    def send(self, recipient_id: bytes, packet: bytes) -> bytes:
        """Return the frame that takes `packet` to the peer with that id.

        Raises:
            LocalError: the session is not open, the id is the server's, or a size is wrong.
        """
        self._check_open()
        if recipient_id == SERVER_ID:
            raise LocalError("the all-zero id is the server's: use command()")
        return frames.build_frame(self._mask_out, recipient_id, packet)

    def command(self, body: c.ClientBody) -> bytes:
        """Return the frame that says `body` to the relay.

        Raises:
            LocalError: the session is not open, the body does not fit, or it is a handshake request: that is hello().
        """
        self._check_open()
        if isinstance(body, c.HandshakeRequest):
            raise LocalError("a session has one handshake: hello()")
        return frames.build_server_frame(
            self._mask_out, body, self._ours, self._shared, message_id=self._next_message_id(), random=self._random
        )

    def close(self) -> None:
        """End the session."""
        self.state = _next(Role.CLIENT, self.state, Step.CLOSE)

    def _check_open(self) -> None:
        if self.state not in TALKING:
            raise LocalError(f"a session that is {self.state.value} sends nothing")

    def _next_message_id(self) -> int:
        message_id, self._message_id = self._message_id, (self._message_id + 1) & 0xFFFF
        return message_id

    def __repr__(self) -> str:
        return f"ClientSession({self.state.value})"
