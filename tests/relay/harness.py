"""A whole relay in memory, with real clients in front of it (see :mod:`tests.relay.loop` for what is below it)."""

from collections.abc import Iterable
from functools import cache
from typing import Final, TypeVar

from websockets.frames import Opcode
from websockets.speedups import apply_mask

from keys.identity import Identity, PublicIdentity
from relay.admission import Admission
from relay.callout import Asker
from relay.core import Core
from relay.limits import Limits
from relay.proxies import Front
from relay.pulse import Pulse
from relay.session import Session
from relay.turns import Turns
from relay.websocket import Phase
from tests.relay.loop import INFINITE, Loop, Steps, Transport
from tests.wire.pair import SERVER, Counted
from wire import commands as c
from wire import frames, mask
from wire.session import ClientSession, PeerFrame

T = TypeVar("T")

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="


def upgrade(path: str = "/ws", *more: str) -> bytes:
    """Return an opening handshake, with further header lines."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: relay.example",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *more,
    ]
    return "\r\n".join((*lines, "", "")).encode()


def client_frame(payload: bytes, opcode: int = Opcode.BINARY, *, fin: bool = True) -> bytes:
    """Return a masked WebSocket frame."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    key = b"\x01\x02\x03\x04"
    return bytes(((0x80 if fin else 0) | opcode,)) + length + key + apply_mask(payload, key)


@cache
def identity(number: int) -> Identity:
    """Return the identity with this number."""
    seed = Counted(f"identity {number}")
    return Identity(seed(32), seed(32))


class Peer:
    """A client in front of the relay, whose keys are real."""

    def __init__(self, lab: "Lab", ours: Identity, address: str = "198.51.100.7") -> None:
        self.lab = lab
        self.identity = ours
        self.wire = ClientSession(ours, SERVER.public, random=Counted(f"client {lab.number()}"))
        self.answers_pings = True
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.close_code: int | None = None
        self.status = b""
        self._stream = bytearray()
        self._raw: list[bytes] = []
        self._said: list[c.ServerBody | PeerFrame] = []
        self.transport = Transport(lab.loop, (address, 4711), self._bytes_taken)
        self.session = Session(lab.core)
        self._attach()

    def _attach(self) -> None:
        """Put the session behind its socket."""
        self.transport.protocol = self.session
        self.session.connection_made(self.transport)

    @property
    def public(self) -> PublicIdentity:
        return self.identity.public

    @property
    def id(self) -> bytes:
        return self.identity.id

    # --- Up to the relay ---------------------------------------------------------------------------------------------

    def open(self, *headers: str) -> "Peer":
        """Become a WebSocket and ask for a session, in two chunks."""
        self.transport.arrive(upgrade("/ws", *headers))
        return self.message(self.wire.hello())

    def message(self, payload: bytes) -> "Peer":
        """Send one binary message."""
        self.transport.arrive(client_frame(payload))
        return self

    def say(self, body: c.ClientBody) -> "Peer":
        """Send a command."""
        return self.message(self.wire.command(body))

    def packet(self, size: int = 112) -> bytes:
        """Return what looks like a packet to the relay, so that the frame has `size` bytes; its nonce is unique."""
        return self.lab.number().to_bytes(24, "big") + bytes(size - 32)

    def send(self, to: "Peer | bytes", size: int = 112) -> bytes:
        """Send a packet to a peer, so that its frame has `size` bytes; return the packet's nonce."""
        packet = self.packet(size)
        self.message(self.wire.send(to if isinstance(to, bytes) else to.id, packet))
        return packet[:24]

    def send_many(self, to: "Peer | bytes", count: int, size: int = 112) -> list[bytes]:
        """As `send`, many in one chunk."""
        recipient = to if isinstance(to, bytes) else to.id
        packets = [self.packet(size) for _ in range(count)]
        self.transport.arrive(b"".join(client_frame(self.wire.send(recipient, packet)) for packet in packets))
        return [packet[:24] for packet in packets]

    def blind(self, to: "Peer", size: int = 112) -> tuple[bytes, bytes]:
        """Return a frame for a peer and its packet's nonce, made without asking whether there is a session."""
        packet = self.packet(size)
        return frames.build_frame(mask.client_to_server(self.shared), to.id, packet), packet[:24]

    def command(self, body: c.Body) -> bytes:
        """Return a frame for the relay that says anything at all, each time with another nonce."""
        random = Counted(f"command {self.lab.number()}")
        return frames.build_server_frame(
            mask.client_to_server(self.shared), body, self.identity, self.shared, random=random
        )

    @property
    def shared(self) -> bytes:
        """What only the client and the relay know."""
        return self.identity.shared_with(SERVER.public.x_pub)

    def close(self) -> None:
        """Send a Close frame."""
        self.transport.arrive(client_frame(b"\x03\xe8", Opcode.CLOSE))

    def stall(self, window: int = 0) -> "Peer":
        """Take `window` bytes more from the relay, and then none."""
        self.transport.window = window
        return self

    def resume(self) -> "Peer":
        """Take everything again."""
        self.transport.take(INFINITE)
        return self

    # --- Down from the relay -----------------------------------------------------------------------------------------

    @property
    def raw(self) -> list[bytes]:
        """Every binary message taken so far, as it stood on the wire and not looked at yet."""
        return self._raw

    @property
    def said(self) -> list[c.ServerBody | PeerFrame]:
        """Everything that the relay sent and this client took, checked and opened."""
        raw, self._raw = self._raw, []
        self._said += map(self.wire.receive, raw)
        return self._said

    def of(self, kind: type[T]) -> list[T]:
        """Everything of one kind that the relay said."""
        return [body for body in self.said if isinstance(body, kind)]

    def news(self) -> list[c.ServerBody | PeerFrame]:
        """What the relay said since this was last called."""
        said, self._said = self.said, []
        return said

    @property
    def nacked(self) -> list[bytes]:
        """The nonces of frames that were answered with 0x03."""
        return [error.nonce for error in self.of(c.RecipientOffline)]

    @property
    def delivered(self) -> list[bytes]:
        """The nonces of peers' frames that came."""
        return [frame.packet[:24] for frame in self.of(PeerFrame)]

    @property
    def written(self) -> list[bytes]:
        """The nonces of peers' frames that the transport was given, whether the client took them or not."""
        stream = self.transport.written.partition(b"\r\n\r\n")[2]
        nonces = []
        while (frame := _server_frame(stream)) is not None:
            # Ours are small numbers (see `packet`), the relay's own are random.
            if frame[0] == Opcode.BINARY and not any(frame[1][8:24]):
                nonces.append(frame[1][8:32])
        return nonces

    @property
    def over(self) -> bool:
        """Whether the relay has ended this connection, or lost it."""
        return self.session.phase in (Phase.CLOSING, Phase.LOST)

    @property
    def presence(self) -> list[tuple[bool, bytes]]:
        """What was told of presence, in order: whether online, and who."""
        return [
            (isinstance(body, c.PeerOnline), x_pub)
            for body in self.said
            if isinstance(body, c.PeerOnline | c.PeerOffline)
            for x_pub in body.x_pubs
        ]

    def _bytes_taken(self, data: bytes) -> None:
        self._stream += data
        if not self.status:
            end = self._stream.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            self.status = bytes(self._stream[: self._stream.index(b"\r\n")])
            del self._stream[:end]
        if not self.status.startswith(b"HTTP/1.1 101"):
            return
        while (frame := _server_frame(self._stream)) is not None:
            self._frame(*frame)

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.BINARY:
            self._raw.append(payload)
        elif opcode == Opcode.PING:
            self.pings.append(payload)
            if self.answers_pings:
                self.transport.arrive(client_frame(payload, Opcode.PONG))
        elif opcode == Opcode.PONG:
            self.pongs.append(payload)
        else:
            assert opcode == Opcode.CLOSE
            self.close_code = int.from_bytes(payload[:2], "big")


def _server_frame(stream: bytearray) -> tuple[int, bytes] | None:
    if len(stream) < 2:
        return None
    length, start = stream[1], 2
    if length >= 126:
        start = 4 if length == 126 else 10
        length = int.from_bytes(stream[2:start], "big")
    if len(stream) < start + length:
        return None
    assert stream[0] & 0x80
    opcode, payload = stream[0] & 0x0F, bytes(stream[start : start + length])
    del stream[: start + length]
    return opcode, payload


class Lab:
    """A relay and whoever is connected to it.

    Args:
        limits: the relay's limits.
        notifier: who is the notifier.
        unit: what each look at the clock of the slices costs; with the default nothing is ever cut into slices.
        admission: who may use the relay.
        callout: is asked about each client.
        front: whose word about addresses the relay takes.
        loop: one that several relays share.
        name: of what this relay draws at random.
        first: where its numbers begin.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        notifier: Identity | None = None,
        unit: float = 0.0,
        admission: Admission | None = None,
        callout: Asker | None = None,
        front: Front | None = None,
        loop: Loop | None = None,
        name: str = "relay",
        first: int = 0,
    ) -> None:
        self.loop = loop or Loop()
        self.core = Core(
            self.loop.asyncio,
            SERVER,
            limits or Limits(),
            None if notifier is None else notifier.id,
            random=Counted(name),
            admission=admission,
            callout=callout,
            front=front,
        )
        self.core.turns = Turns(self.loop.asyncio, self.core.limits.slice, Steps(unit))
        self.pulse = Pulse(self.core)
        self.ids: set[bytes] = set()
        self._count = first

    def number(self) -> int:
        """Return a number that was not given before."""
        self._count += 1
        return self._count

    def peer(self, ours: Identity | int, address: str = "198.51.100.7") -> Peer:
        """Return a fresh connection, that said nothing yet."""
        peer = Peer(self, identity(ours) if isinstance(ours, int) else ours, address)
        self.ids.add(peer.id)
        return peer

    def connect(self, *ours: Identity | int) -> list[Peer]:
        """Return clients that were let in, with nothing left to hear."""
        peers = [self.peer(each).open() for each in ours]
        self.run()
        for peer in peers:
            assert [type(body) for body in peer.news()] == [c.HandshakeOk, c.Challenge]
        return peers

    def run(self) -> int:
        """Run until nothing is ready; return after how many turns."""
        return self.loop.run()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.advance(seconds)

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass, and do what is due then, as the pulse does each second."""
        self.advance(seconds)
        self.pulse.deadlines(self.loop.now)
        self.run()

    def check_empty(self) -> None:
        """Fail unless the relay remembers nothing of anybody who was connected."""
        core = self.core
        assert not core.sessions
        assert not core.connections
        assert not core.opening
        assert not core.closing
        assert core.presence.watched == 0
        assert not core.budget.stalled
        assert core.budget.used == 0
        assert core.partial_used == 0
        assert core.subscriptions == 0
        assert core.door.tally.total == len(core.door.tally) == 0
        assert core.turns.idle
        assert not any(core.claims.waiting(peer_id) for peer_id in self.ids)
        assert core.presence.subscriptions == 0


def hang_up_all(peers: Iterable[Peer]) -> None:
    """Let everybody lose their connection at once."""
    for peer in peers:
        peer.transport.die()
