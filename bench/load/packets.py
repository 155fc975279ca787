"""Frames sealed ahead of time, and what must come out at the other end.

Between the two ends of an edge a ring of packets goes round: real ones, sealed by the sender for the recipient, each
with its number inside. The recipient's stream is then known byte by byte (the relay adds a head and a masked sender's
id), so that a lost, doubled or changed frame shows without opening anything. A few are opened all the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.load.framing import masked, unmasked_head
from bench.load.opening import Link
from keys.contact import Contact
from keys.identity import Identity
from keys.primitives import random_bytes
from wire import mask
from wire.limits import MIN_FRAME

_RING_MOST = 64
_RING_BYTES = 64 << 20
_PACKETS = 4096
PREFIX = 40
"""Bytes of a delivered frame that are compared: head, masked id, nonce, and the start of the ciphertext."""


def ring_length(size: int, edges: int) -> int:
    """Return how many different frames of `size` bytes go round on each of so many edges: memory bounds it."""
    return max(2, min(_RING_MOST, _RING_BYTES // (size * edges), _PACKETS // edges))


def seal_ring(sender: Identity, recipient: Identity, size: int, length: int) -> list[bytes]:
    """Return `length` packets that make frames of `size` bytes; the plaintext is a number and random bytes.

    Raises:
        ValueError: a frame of this size holds no number.
    """
    room = size - MIN_FRAME - 4
    if room < 0:
        raise ValueError(f"a frame has {MIN_FRAME + 4} bytes or more here")
    contact = Contact(sender, recipient.public)
    filler = random_bytes(room)
    return [contact.seal(number.to_bytes(4, "little") + filler) for number in range(length)]


def check_number(sender: Identity, recipient: Identity, packet: bytes, number: int) -> bool:
    """Open a packet as its recipient and tell whether it holds this number."""
    return Contact(recipient, sender.public).open(packet)[:4] == number.to_bytes(4, "little")


@dataclass(slots=True)
class Edge:
    """One direction between two clients of one relay.

    Attributes:
        frames: the ring, masked and ready to be sent.
        expected: the first bytes of each frame as the recipient gets it.
        size: bytes of a delivered frame with its WebSocket head.
        sent, delivered: counted in frames since the ring was loaded.
    """

    sender: Link
    recipient: Link
    frames: list[bytes] = field(default_factory=list, repr=False)
    expected: list[bytes] = field(default_factory=list, repr=False)
    size: int = 0
    sent: int = 0
    delivered: int = 0

    @property
    def in_flight(self) -> int:
        """Frames that were sent and not delivered."""
        return self.sent - self.delivered

    def load(self, packets: Iterable[bytes]) -> None:
        """Take a ring of packets, all of one size; nothing may be in flight."""
        packets = list(packets)
        self.frames = [masked(self.sender.session.send(self.recipient.identity.id, packet)) for packet in packets]
        keystream = mask.server_to_client(self.recipient.shared)
        head = unmasked_head(len(packets[0]) + 8)
        self.expected = [
            (head + keystream.xor(self.sender.identity.id, packet) + packet[:PREFIX])[:PREFIX] for packet in packets
        ]
        self.size = len(head) + 8 + len(packets[0])
        self.sent = self.delivered = 0

    def next_frames(self, count: int) -> bytes:
        """Return the next `count` frames of the ring, joined, and count them as sent."""
        frames = self.frames
        length = len(frames)
        at = self.sent % length
        self.sent += count
        if count == 1:
            return frames[at]
        if at + count <= length:
            return b"".join(frames[at : at + count])
        return b"".join([frames[(at + number) % length] for number in range(count)])
