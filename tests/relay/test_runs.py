"""Runs of frames: what is routed in one go is what would be routed one by one, however the stream is cut."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Opcode

from relay.limits import Limits
from relay.reasons import Refusal
from relay.websocket import Phase
from tests.relay.harness import Lab, Peer, client_frame
from wire import commands as c
from wire.limits import MIN_FRAME
from wire.session import PeerFrame

LIMITS: Final = Limits(handshakes_per_second=0)
NOBODY: Final = b"\x77" * 8


def routed(who: int) -> Callable[[Peer, list[Peer], int], bytes]:
    return lambda alice, others, size: client_frame(alice.wire.send(others[who].id, alice.packet(size)))


def long_form(alice: Peer, others: list[Peer], size: int) -> bytes:
    """A length in eight bytes, though two would do."""
    plain = client_frame(alice.wire.send(others[0].id, alice.packet(size)))
    start = 2 if size < 126 else 4 if size < 65536 else 10
    return plain[:1] + b"\xff" + size.to_bytes(8, "big") + plain[start:]


def fragments(alice: Peer, others: list[Peer], size: int) -> bytes:
    message = alice.wire.send(others[1].id, alice.packet(size))
    cut = size // 3
    return b"".join(
        (
            client_frame(message[:cut], fin=False),
            client_frame(b"between", Opcode.PING),
            client_frame(message[cut:], Opcode.CONT),
        )
    )


KINDS: Final[dict[str, Callable[[Peer, list[Peer], int], bytes]]] = {
    "bob": routed(0),
    "carol": routed(1),
    "oneself": lambda alice, _others, size: client_frame(alice.wire.send(alice.id, alice.packet(size))),
    "nobody": lambda alice, _others, size: client_frame(alice.wire.send(NOBODY, alice.packet(size))),
    "long form": long_form,
    "fragments": fragments,
    "subscribe": lambda alice, others, _size: client_frame(alice.command(c.Subscribe((others[0].public.x_pub,)))),
    "ping": lambda _alice, _others, _size: client_frame(b"ping", Opcode.PING),
    "pong": lambda _alice, _others, _size: client_frame(b"pong", Opcode.PONG),
    "text": lambda _alice, _others, _size: client_frame(b"text", Opcode.TEXT),
    "short": lambda _alice, _others, _size: client_frame(bytes(MIN_FRAME - 1)),
    "empty": lambda _alice, _others, _size: client_frame(b""),
}
SIZES: Final = st.sampled_from((MIN_FRAME, 125, 126, 127, 256, 4103, 4104, 4105, 65535, 65536))


def outcome(kinds: Iterable[tuple[str, int]], cuts: Iterable[int]) -> object:
    """Send a stream of Alice's in pieces; return all that can be told from outside."""
    lab = Lab(LIMITS)
    alice, bob, carol = lab.connect(1, 2, 3)
    stream = b"".join(KINDS[kind](alice, [bob, carol], size) for kind, size in kinds)
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    frames_before = lab.core.counters.frames_in
    for start, stop in pairwise(places):
        alice.transport.arrive(stream[start:stop])
        lab.run()
    lab.advance(1.0)
    return (
        [[frame for frame in peer.said if isinstance(frame, PeerFrame)] for peer in (alice, bob, carol)],
        sorted(alice.nacked),
        alice.pongs,
        alice.presence,
        alice.session.phase,
        lab.core.counters.frames_in - frames_before,
        lab.core.counters.refusals,
    )


@given(
    st.lists(st.tuples(st.sampled_from(list(KINDS)), SIZES), min_size=1, max_size=12),
    st.lists(st.integers(0, 1 << 20), max_size=8),
)
@settings(deadline=None, max_examples=150)
def test_a_stream_means_the_same_however_it_is_cut(kinds: list[tuple[str, int]], cuts: list[int]) -> None:
    assert outcome(kinds, cuts) == outcome(kinds, ())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("short", "empty")])
def test_byte_by_byte(kind: str) -> None:
    kinds = [("bob", 126), (kind, 127), ("carol", 112), (kind, 126), ("bob", 126)]
    assert outcome(kinds, range(2000)) == outcome(kinds, ())


def test_a_run_to_one_and_then_another_keeps_them_apart() -> None:
    lab = Lab(LIMITS)
    alice, bob, carol = lab.connect(1, 2, 3)
    packets = [alice.packet(size) for size in (112, 112, 200, 200, 112, 4104, 4104, 112)]
    to = [bob, bob, bob, carol, carol, bob, bob, carol]
    pairs = list(zip(packets, to, strict=True))
    alice.transport.arrive(b"".join(client_frame(alice.wire.send(who.id, packet)) for packet, who in pairs))
    lab.run()
    for who in (bob, carol):
        assert [frame.packet for frame in who.of(PeerFrame)] == [packet for packet, to_ in pairs if to_ is who]


def test_a_recipient_that_comes_back_in_the_middle_of_a_chunk_is_the_new_one() -> None:
    """What a run remembers of a recipient ends with the run, and a session that ended takes nothing more."""
    lab = Lab(LIMITS)
    alice, bob = lab.connect(1, 2)
    first = alice.send_many(bob, 3)
    lab.run()
    bob.close()
    lab.run()
    (again,) = lab.connect(2)
    second = alice.send_many(again, 3)
    lab.run()
    assert (bob.delivered, again.delivered) == (first, second)


def test_a_run_stops_where_the_sender_has_to_wait() -> None:
    lab = Lab(Limits(handshakes_per_second=0, refusals_waiting=4, refusals_burst=4))
    alice, bob = lab.connect(1, 2)
    frames = [client_frame(alice.wire.send(NOBODY, alice.packet())) for _ in range(8)]
    alice.transport.arrive(b"".join([*frames, client_frame(alice.wire.send(bob.id, alice.packet()))]))
    lab.loop.turn()
    assert alice.session.held
    assert lab.core.counters.refusals[Refusal.OFFLINE] < 8
    assert bob.delivered == []
    lab.advance(5.0)
    assert lab.core.counters.refusals[Refusal.OFFLINE] == 8
    assert len(bob.delivered) == 1


def test_a_keystream_at_rest_serves_again() -> None:
    """An idle session holds no cipher context; the next frame makes one, in both directions."""
    lab = Lab(LIMITS)
    alice, bob = lab.connect(1, 2)
    nonces = [alice.send(bob)]
    lab.run()
    lab.pulse.start()
    lab.advance(61.0)
    assert (alice.session.phase, bob.session.phase) == (Phase.OPEN, Phase.OPEN)
    for session in (alice.session, bob.session):
        assert session.unmask is not None
        assert not session.mask.awake
        assert not session.unmask.awake
    nonces += [alice.send(bob), alice.send(bob)]
    lab.run()
    assert bob.delivered == nonces
    assert bob.session.mask.awake
