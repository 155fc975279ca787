"""Both ends of a session in memory: the main tool of the tests of this floor. Every random byte is counted out."""

from collections.abc import Callable
from typing import Final

from keys.identity import SERVER_ID, Identity
from keys.packet import seal
from keys.primitives import KEY_SIZE, derive_key
from wire import commands as c
from wire import frames, mask
from wire.session import ClientSession, PeerFrame, ServerSession

SERVER: Final = Identity(b"\x11" * 32, b"\x12" * 32)
ALICE: Final = Identity(b"\x21" * 32, b"\x22" * 32)
BOB: Final = Identity(b"\x31" * 32, b"\x32" * 32)
NOTIFIER: Final = Identity(b"\x41" * 32, b"\x42" * 32)
IDENTITIES: Final = {"server": SERVER, "alice": ALICE, "bob": BOB, "notifier": NOTIFIER}


class Counted:
    """A source of "random" bytes that gives the same ones in every run, and never the same twice."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return derive_key(f"test {self._label}", self._count.to_bytes(8, "little"))[:size]


class Set:
    """A source of "random" bytes that are set by hand just before they are drawn."""

    def __init__(self) -> None:
        self.next: bytes | None = None

    def __call__(self, size: int) -> bytes:
        value, self.next = self.next, None
        if value is None:
            return bytes(size)
        assert len(value) == size
        return value


def drawn(*values: bytes) -> Callable[[int], bytes]:
    """Return a source that gives exactly `values`, one a call, each of the size asked for."""
    left = list(values)

    def draw(size: int) -> bytes:
        value = left.pop(0)
        assert len(value) == size
        return value

    return draw


class Pair:
    """A client and the relay's side of its session; what one says is carried to the other at once."""

    def __init__(self, client: Identity = ALICE, server: Identity = SERVER) -> None:
        self.identity = client
        self.client = ClientSession(client, server.public, random=Counted("client"))
        self.server = ServerSession(server, random=Counted("server"))

    @classmethod
    def opened(cls, client: Identity = ALICE) -> "Pair":
        """Return a pair whose handshake is done."""
        pair = cls(client)
        pair.server.receive_hello(pair.client.hello())
        assert pair.client.receive(pair.server.accept()) == c.HandshakeOk()
        return pair

    def at_relay(self, frame: bytes) -> tuple[bytes, bytes]:
        """Do what the relay does first with every frame after the handshake."""
        return frames.parse_frame(self.server.mask_in, frame)

    def at_server(self, frame: bytes) -> c.ClientBody:
        """Take a frame that must be for the server."""
        party_id, packet = self.at_relay(frame)
        assert party_id == SERVER_ID
        return self.server.open_command(packet)

    def say(self, body: c.ClientBody) -> c.ClientBody:
        """Client to server."""
        return self.at_server(self.client.command(body))

    def tell(self, body: c.Body) -> c.ServerBody | PeerFrame:
        """Server to client."""
        return self.client.receive(self.server.seal(body))


def relayed(sender: Pair, recipient: Pair, frame: bytes) -> bytes:
    """Carry a frame from one client's session to another's as the relay does: the header anew, the packet untouched."""
    recipient_id, packet = sender.at_relay(frame)
    assert recipient_id == recipient.server.peer.id
    return frames.build_frame(recipient.server.mask_out, sender.server.peer.id, packet)


def forged_hello(
    plaintext: bytes, *, x_pub: bytes = ALICE.public.x_pub, shared: bytes | None = None, signer: Identity = ALICE
) -> bytes:
    """Return a first frame with anything in any place; sealed as the owner of `x_pub` would, unless told otherwise."""
    secret = SERVER.shared_with(x_pub) if shared is None else shared
    return x_pub + seal(plaintext, signer, secret, bytes)


def from_client(plaintext: bytes) -> bytes:
    """Return a packet of Alice's for the server that opens, whatever it holds."""
    return seal(plaintext, ALICE, ALICE.shared_with(SERVER.public.x_pub), bytes)


def from_server(plaintext: bytes) -> bytes:
    """Return a frame of the server for Alice that opens, whatever it holds."""
    shared = SERVER.shared_with(ALICE.public.x_pub)
    return frames.build_frame(mask.server_to_client(shared), SERVER_ID, seal(plaintext, SERVER, shared, bytes))


REQUEST: Final = c.HandshakeRequest(ALICE.public.ed_pub).encode()
"""The body of a handshake request that would be accepted."""
assert len(REQUEST) == KEY_SIZE + 1
