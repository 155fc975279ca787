"""Frames: what one binary WebSocket message holds (PROTOCOL.md §6).

    handshake request   client_x_pub(32) packet              first from the client
    every other frame   mask(key, id)(8) packet              id: the recipient's, from the relay the sender's,
                                                     0⁸ for the server

The nonce of the packet stands at bytes 8 to 32 of a frame, and its first 12 bytes also mask the header.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from keys.errors import BadKey, OpenError
from keys.identity import ID_SIZE, SERVER_ID, Identity, PublicIdentity
from keys.packet import OVERHEAD, open_introducing, open_packet, seal
from keys.primitives import KEY_SIZE, NONCE_SIZE, HeaderKeystream, random_bytes
from wire.commands import Body, Command, HandshakeRequest
from wire.errors import BadFrame, LocalError
from wire.inner import Inner, parse_inner
from wire.limits import INNER_HEAD, MAX_FRAME, MAX_HANDSHAKE, MIN_FRAME, MIN_HANDSHAKE, PROTOCOL_VERSION

Random = Callable[[int], bytes]

_ED_PUB_AT: Final = slice(INNER_HEAD, INNER_HEAD + KEY_SIZE)
_NONCE_AT: Final = slice(ID_SIZE, ID_SIZE + NONCE_SIZE)


class Hello(NamedTuple):
    """A handshake request that opened: who asks, and what the session is made from."""

    public: PublicIdentity
    shared: bytes
    nonce: bytes
    version: int

    def __repr__(self) -> str:
        return "Hello(…)"


def build_handshake(
    ours: Identity,
    shared: bytes,
    *,
    message_id: int = 0,
    version: int = PROTOCOL_VERSION,
    random: Random = random_bytes,
) -> bytes:
    """Return the first frame of a client; `shared` is its X25519 secret with the server."""
    request = HandshakeRequest(ours.public.ed_pub, version)
    plaintext = Inner(message_id, request.command, request.encode()).encode()
    return ours.public.x_pub + seal(plaintext, ours, shared, random)


def parse_handshake(frame: bytes, ours: Identity) -> Hello:
    """Open a client's first frame: the AEAD with the X key before it, the signature with the Ed key inside.

    Raises:
        BadFrame: too short or too long, a key that must not be used, or anything that does not open.
        BadBody: it opens, but its body does not fit its layout.
    """
    # Before any multiplication: a stranger's size costs nothing.
    if not MIN_HANDSHAKE <= len(frame) <= MAX_HANDSHAKE:
        raise BadFrame(f"a handshake request has {MIN_HANDSHAKE} to {MAX_HANDSHAKE} bytes")
    x_pub, packet = frame[:KEY_SIZE], frame[KEY_SIZE:]
    try:
        shared = ours.shared_with(x_pub)
        plaintext, ed_pub = open_introducing(packet, shared, _ED_PUB_AT)
        public = PublicIdentity(x_pub, ed_pub)
    except (BadKey, OpenError):
        # One answer for every cause: a stranger learns nothing from which check failed.
        raise BadFrame("the handshake request does not open") from None
    inner = parse_inner(plaintext)
    if inner.command != Command.HANDSHAKE_REQUEST:
        raise BadFrame("the first frame is a handshake request")
    return Hello(public, shared, packet[:NONCE_SIZE], HandshakeRequest.parse(inner.body).version)


def frame_nonce(frame: bytes) -> bytes:
    """Return the nonce (24 bytes) of a frame's packet."""
    return frame[_NONCE_AT]


def build_frame(mask: HeaderKeystream, party_id: bytes, packet: bytes) -> bytes:
    """Return ``mask(id) packet``: to the relay with the recipient's id, from it with the sender's.

    Raises:
        LocalError: an id or packet of the wrong size.
    """
    if len(party_id) != ID_SIZE:
        raise LocalError(f"an id has {ID_SIZE} bytes")
    if not OVERHEAD <= len(packet) <= MAX_FRAME - ID_SIZE:
        raise LocalError(f"a packet has {OVERHEAD} to {MAX_FRAME - ID_SIZE} bytes")
    return mask.xor(party_id, packet) + packet


def parse_frame(mask: HeaderKeystream, frame: bytes) -> tuple[bytes, bytes]:
    """Return ``(id, packet)`` of a frame.

    Raises:
        BadFrame: shorter than 112 bytes or longer than 1 MiB.
    """
    if not MIN_FRAME <= len(frame) <= MAX_FRAME:
        raise BadFrame(f"a frame has {MIN_FRAME} to {MAX_FRAME} bytes")
    packet = frame[ID_SIZE:]
    return mask.xor(frame[:ID_SIZE], packet), packet


def build_server_frame(
    mask: HeaderKeystream,
    body: Body,
    ours: Identity,
    shared: bytes,
    *,
    message_id: int = 0,
    random: Random = random_bytes,
) -> bytes:
    """Return a frame from or to the server that carries `body`.

    Raises:
        LocalError: a body that does not fit a frame, or with a field out of range.
    """
    plaintext = Inner(message_id, body.command, body.encode()).encode()
    return build_frame(mask, SERVER_ID, seal(plaintext, ours, shared, random))


def open_server_packet(packet: bytes, their_ed_pub: bytes, shared: bytes) -> Inner:
    """Open the packet of a frame from or to the server.

    Raises:
        BadFrame: it does not open, or holds no inner.
    """
    try:
        return parse_inner(open_packet(packet, their_ed_pub, shared))
    except OpenError:
        raise BadFrame("the frame does not open") from None
