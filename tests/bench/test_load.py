"""bench/load: frames are built as RFC 6455 and protocol v2 have them, and a stream that differs is noticed."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING

import pytest
from websockets.protocol import SERVER, Protocol, State
from websockets.utils import apply_mask

from bench.load.flows import Load
from bench.load.framing import BINARY, PING, PONG, BadStream, Message, frame_size, masked, take_messages, unmasked_head
from bench.load.opening import Link, Ticket
from bench.load.packets import Edge, check_number, ring_length, seal_ring
from keys.identity import Identity
from wire import commands as c
from wire import frames
from wire.session import ClientSession, ServerSession

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = [125, 126, 65535, 65536]


@pytest.mark.parametrize("size", SIZES)
def test_masked_frames_are_what_a_server_reads(size: int) -> None:
    payload = bytes(number & 0xFF for number in range(size))
    server = Protocol(SERVER, state=State.OPEN, max_size=1 << 20)
    server.receive_data(masked(payload))
    (event,) = server.events_received()
    assert bytes(event.data) == payload  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [0, 1, *SIZES])
def test_frames_of_a_relay_are_taken_whole(size: int) -> None:
    frame = unmasked_head(size) + bytes(size)
    assert frame_size(frame) == len(frame)
    buffer = bytearray(frame + frame[:-1]) if size else bytearray(frame + frame[:1])
    assert list(take_messages(buffer)) == [Message(BINARY, bytes(size))]
    assert bytes(buffer) == (frame[:-1] if size else frame[:1])


@pytest.mark.parametrize("start", [b"\x82\x81", b"\x02\x01"])
def test_masked_or_fragmented_frames_are_not_a_relays(start: bytes) -> None:
    with pytest.raises(BadStream):
        frame_size(start)


def test_an_incomplete_head_has_no_size_yet() -> None:
    assert [frame_size(head) for head in (b"", b"\x82", b"\x82\x7e\x01", b"\x82\x7f" + bytes(7))] == [None] * 4


def test_rings_fit_into_memory() -> None:
    assert ring_length(256, 16) == 64
    assert ring_length(65536, 1000) == 2
    assert all(
        ring_length(size, edges) * edges * size <= 3 * (64 << 20)
        for size in (256, 4096, 65536)
        for edges in (1, 16, 200, 1000)
    )


def test_packets_carry_their_number_and_the_size_asked_for() -> None:
    alice, bob = Identity.generate(), Identity.generate()
    ring = seal_ring(alice, bob, 256, 5)
    assert [len(packet) + 8 for packet in ring] == [256] * 5
    assert all(check_number(alice, bob, packet, number) for number, packet in enumerate(ring))
    assert not check_number(alice, bob, ring[1], 2)
    with pytest.raises(ValueError, match="116"):
        seal_ring(alice, bob, 115, 1)


class TinyRelay:
    """The relay's end of two socket pairs, moved by hand."""

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.sockets: list[socket.socket] = []
        self.sessions: list[ServerSession] = []

    def link(self, identity: Identity) -> Link:
        client = ClientSession(identity, self.identity.public)
        server = ServerSession(self.identity)
        server.receive_hello(client.hello())
        client.receive(server.accept())
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.sockets.append(theirs)
        self.sessions.append(server)
        return Link(ours, Ticket(identity, client, b""), self.identity.public, b"")

    def take(self) -> deque[bytes]:
        """Return the frames that the first client sent, as the second one is to get them."""
        data = bytearray(self.sockets[0].recv(1 << 20))
        out: deque[bytes] = deque()
        while data:
            size = data[1] & 0x7F
            head, length = (2, size) if size < 126 else (4, int.from_bytes(data[2:4], "big"))
            payload = apply_mask(bytes(data[head + 4 : head + 4 + length]), bytes(data[head : head + 4]))
            del data[: head + 4 + length]
            _, packet = frames.parse_frame(self.sessions[0].mask_in, payload)
            frame = frames.build_frame(self.sessions[1].mask_out, self.sessions[0].peer.id, packet)
            out.append(unmasked_head(len(frame)) + frame)
        return out


@pytest.fixture
def relay() -> Iterator[TinyRelay]:
    tiny = TinyRelay()
    yield tiny
    for sock in tiny.sockets:
        sock.close()


@pytest.fixture
def edge(relay: TinyRelay) -> Iterator[Edge]:
    alice, bob = Identity.generate(), Identity.generate()
    edge = Edge(relay.link(alice), relay.link(bob))
    edge.load(seal_ring(alice, bob, 200, 4))
    yield edge
    edge.sender.close()
    edge.recipient.close()


@pytest.fixture
def load(edge: Edge) -> Iterator[Load]:
    load = Load([edge], 1, None)
    yield load
    load.close()


def pump(load: Load, relay: TinyRelay, data: bytes, cut: int) -> None:
    """Let the recipient get `data` in two pieces, the second after `cut` bytes."""
    for piece in (data[:cut], data[cut:]):
        if piece:
            relay.sockets[1].sendall(piece)
            load.serve(1.0)


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 30, 41, 150, 203, 204, 205, 300, 407])
def test_delivered_frames_are_counted_however_they_are_cut(load: Load, edge: Edge, relay: TinyRelay, cut: int) -> None:
    edge.sender.socket.send(edge.next_frames(2))
    pump(load, relay, b"".join(relay.take()), cut)
    assert edge.delivered == 2
    assert edge.in_flight == 0


@pytest.mark.parametrize("cut", [0, 2, 3, 100, 206, 300])
def test_a_ping_between_frames_is_answered_and_nothing_is_lost(
    load: Load, edge: Edge, relay: TinyRelay, cut: int
) -> None:
    edge.sender.socket.send(edge.next_frames(2))
    first, second = relay.take()
    ping = bytes((0x80 | PING, 3)) + b"abc"
    pump(load, relay, ping + first + ping + second, cut)
    assert edge.delivered == 2
    answer = relay.sockets[1].recv(100)
    assert answer[0] == 0x80 | PONG


def test_a_lost_frame_is_noticed(load: Load, edge: Edge, relay: TinyRelay) -> None:
    edge.sender.socket.send(edge.next_frames(2))
    _, second = relay.take()
    with pytest.raises(BadStream):
        pump(load, relay, second, 0)


def test_a_changed_frame_is_noticed(load: Load, edge: Edge, relay: TinyRelay) -> None:
    edge.sender.socket.send(edge.next_frames(1))
    (frame,) = relay.take()
    with pytest.raises(BadStream):
        pump(load, relay, frame[:20] + bytes((frame[20] ^ 1,)) + frame[21:], 0)


def test_a_refusal_is_noticed(load: Load, edge: Edge, relay: TinyRelay) -> None:
    sealed = relay.sessions[0].seal(c.RecipientOffline(bytes(8), bytes(24)))
    relay.sockets[0].sendall(unmasked_head(len(sealed)) + sealed)
    with pytest.raises(BadStream, match="refused"):
        load.serve(1.0)


def test_the_ring_goes_round(edge: Edge) -> None:
    first = edge.next_frames(3)
    rest = edge.next_frames(6)
    assert first == b"".join(edge.frames[:3])
    assert rest == edge.frames[3] + b"".join(edge.frames) + edge.frames[0]
    assert edge.sent == 9
