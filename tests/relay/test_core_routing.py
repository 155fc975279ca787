"""Frames between clients."""

from collections.abc import Callable
from typing import Final

import pytest
from websockets.frames import Opcode

from relay.limits import KIB, Limits
from relay.reasons import Ending, Refusal
from relay.websocket import Phase
from tests.relay.harness import Lab, Peer, client_frame, hang_up_all, identity
from wire import commands as c
from wire.limits import MAX_FRAME, MIN_FRAME
from wire.session import PeerFrame

NOBODY: Final = b"\x99" * 8
LIMITS: Final = Limits(handshakes_per_second=0)


@pytest.fixture
def lab() -> Lab:
    return Lab(LIMITS)


# --- Delivered -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [MIN_FRAME, 125, 126, 127, 65535, 65536, MAX_FRAME])
def test_a_packet_arrives_untouched_under_the_senders_id(size: int, lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    packet = alice.packet(size)
    alice.message(alice.wire.send(bob.id, packet))
    lab.run()
    (frame,) = bob.of(PeerFrame)
    assert frame.sender_id == alice.id
    assert frame.packet == packet
    assert len(packet) == size - 8
    assert alice.news() == []


def test_a_packet_to_oneself(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    nonces = [alice.send(alice) for _ in range(3)]
    lab.run()
    assert [(frame.sender_id, frame.packet[:24]) for frame in alice.of(PeerFrame)] == [(alice.id, n) for n in nonces]


def test_an_unproven_session_is_served_like_any_other(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    nonce = alice.send(bob)
    lab.run()
    assert not alice.session.opened_wire.proven
    assert bob.delivered == [nonce]


def test_frames_of_one_turn_leave_in_one_write(lab: Lab) -> None:
    alice, bob, carol = lab.connect(1, 2, 3)
    before = carol.transport.writes
    nonces = [sender.send(carol) for _ in range(20) for sender in (alice, bob)]
    lab.run()
    assert carol.transport.writes == before + 1
    assert sorted(carol.delivered) == sorted(nonces)


def test_many_frames_in_one_chunk_stay_in_order(lab: Lab) -> None:
    alice, bob, carol = lab.connect(1, 2, 3)
    packets = [(to, alice.packet(100 + 7 * number)) for number in range(2, 60) for to in (bob, carol, alice)]
    alice.transport.arrive(b"".join(client_frame(alice.wire.send(to.id, packet)) for to, packet in packets))
    lab.run()
    for peer in (alice, bob, carol):
        assert peer.delivered == [packet[:24] for to, packet in packets if to is peer]


def test_a_frame_in_fragments_with_pings_between(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    frame, nonce = alice.blind(bob, 1000)
    for at in range(0, 1000, 100):
        alice.transport.arrive(client_frame(frame[at : at + 100], Opcode.CONT if at else Opcode.BINARY, fin=at == 900))
        alice.transport.arrive(client_frame(b"p", Opcode.PING))
    lab.run()
    assert bob.delivered == [nonce]
    assert alice.pongs == [b"p"] * 10


def test_a_queue_is_handed_over_when_it_reaches_its_size() -> None:
    lab = Lab(Limits(flush_size=4 * KIB, queue_share=4 * KIB, handshakes_per_second=0))
    alice, bob = lab.connect(1, 2)
    before = bob.transport.writes
    nonces = alice.send_many(bob, 10, 1000)
    lab.run()
    assert bob.transport.writes == before + 3
    assert bob.delivered == nonces


def test_a_frame_larger_than_the_queue_passes_a_reader_that_reads() -> None:
    lab = Lab(Limits(flush_size=KIB, queue_share=KIB, queue_size=4 * KIB, handshakes_per_second=0))
    alice, bob = lab.connect(1, 2)
    nonces = [alice.send(bob, size) for size in (112, 100_000, 112, MAX_FRAME, 500)]
    lab.run()
    assert bob.delivered == nonces


# --- Refused ---------------------------------------------------------------------------------------------------------


def test_a_frame_for_somebody_who_is_not_there_is_answered_with_its_nonce(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    nonce = alice.send(NOBODY)
    lab.run()
    assert alice.news() == [c.RecipientOffline(NOBODY, nonce)]
    assert lab.core.counters.refusals[Refusal.OFFLINE] == 1


def test_each_refused_frame_gets_an_answer_of_its_own_in_order(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    nonces = []
    for _ in range(50):
        nonces.append(alice.send(NOBODY))
        alice.send(bob)
    lab.run()
    assert alice.nacked == nonces
    assert len(bob.delivered) == 50


def test_who_left_is_offline(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    bob.close()
    lab.run()
    nonce = alice.send(bob)
    lab.run()
    assert alice.nacked == [nonce]


def test_who_is_not_let_in_yet_is_offline(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    bob = lab.peer(2)
    lab.run()
    alice.send(bob)
    lab.run()
    assert len(alice.nacked) == 1


def test_frames_queued_for_who_leaves_in_the_same_turn_are_written_or_answered(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    nonces = [alice.send(bob) for _ in range(3)]
    bob.close()
    lab.run()
    assert bob.close_code == 1000
    assert sorted(bob.written + alice.nacked) == sorted(nonces)


@pytest.mark.parametrize("share", [1, 256])
def test_a_socket_that_dies_under_a_write(share: int) -> None:
    lab = Lab(Limits(flush_size=KIB, queue_share=share * KIB, handshakes_per_second=0))
    alice, bob, carol = lab.connect(1, 2, 3)
    bob.transport.dies_at_write = True
    nonces = [*alice.send_many(bob, 10), carol.send(bob)]
    lab.run()
    assert sorted(alice.nacked + carol.nacked) == sorted(nonces)
    assert bob.session.phase is Phase.LOST
    assert bob.id not in lab.core.sessions


def test_frames_of_a_sender_that_is_gone_are_still_delivered(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    nonce = alice.send(bob)
    alice.close()
    lab.run()
    assert bob.delivered == [nonce]


def test_refusals_of_a_sender_that_is_gone_go_nowhere(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    bob.stall()
    alice.send(bob)
    lab.run()
    alice.send_many(bob, 100)
    lab.run()
    alice.transport.die()
    bob.transport.die()
    lab.run()
    lab.check_empty()


# --- Malformed -------------------------------------------------------------------------------------------------------


def too_short(peer: Peer) -> bytes:
    return bytes(MIN_FRAME - 1)


def not_ours(peer: Peer) -> bytes:
    """A frame for the server that does not open."""
    frame = bytearray(peer.command(c.Subscribe(())))
    frame[40] ^= 1
    return bytes(frame)


def empty(peer: Peer) -> bytes:
    return b""


def bad_body(peer: Peer) -> bytes:
    return peer.command(c.Unknown(c.Command.SUBSCRIBE, b"x"))


@pytest.mark.parametrize("make", [too_short, not_ours, empty, bad_body])
def test_sixteen_malformed_frames_end_a_session(make: Callable[[Peer], bytes], lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    for _ in range(15):
        alice.message(make(alice))
    lab.run()
    assert not alice.over
    nonce = alice.send(bob)
    lab.run()
    assert bob.delivered == [nonce]
    alice.message(make(alice))
    after = alice.send(bob)
    lab.run()
    assert alice.session.ended is Ending.MALFORMED
    assert alice.close_code == 1008
    assert after not in bob.delivered
    assert lab.core.counters.refusals[Refusal.MALFORMED] == 16
    assert alice.raw == []


def test_a_frame_beyond_the_largest(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    alice.transport.arrive(client_frame(bytes(MAX_FRAME + 1))[:20])
    lab.run()
    assert alice.close_code == 1009
    assert alice.session.ended is Ending.PROTOCOL_ERROR
    assert bob.raw == []


def test_nothing_is_forwarded_for_a_session_that_ended_in_the_middle_of_a_chunk() -> None:
    """Its own queue, written at once, shows that the socket is dead: what stands behind it comes from nobody."""
    lab = Lab(Limits(flush_size=KIB, queue_share=KIB, handshakes_per_second=0))
    alice, bob = lab.connect(1, 2)
    alice.transport.dies_at_write = True
    alice.transport.arrive(
        b"".join(client_frame(alice.blind(to, 600)[0]) for to in (alice, alice, alice, bob, bob, bob))
    )
    lab.run()
    assert bob.raw == []
    assert alice.session.ended is Ending.CLIENT


# --- Endings ---------------------------------------------------------------------------------------------------------


def test_every_way_to_leave_leaves_nothing(lab: Lab) -> None:
    peers = lab.connect(*range(1, 8))
    everybody = [peer.public.x_pub for peer in peers]
    for peer in peers:
        peer.say(c.Subscribe.of(everybody))
    lab.run()
    peers[0].close()
    peers[1].transport.die()
    peers[2].transport.die(ConnectionResetError())
    peers[3].transport.hang_up()
    peers[4].stall().transport.hang_up()
    peers[5].message(b"").transport.arrive(b"\xff\xff\xff")
    lab.run()
    hang_up_all(peers)
    lab.run()
    lab.tick(10)
    lab.check_empty()
    endings = {str(reason): count for reason, count in lab.core.counters.endings.items() if count}
    assert endings == {"client": 6, "protocol_error": 1}


def test_an_error_of_ours_is_counted_as_ours(lab: Lab) -> None:
    alice, _ = lab.connect(1, 2)
    alice.transport.die(RuntimeError("a bug"))
    lab.run()
    assert lab.core.counters.endings[Ending.INTERNAL_ERROR] == 1


def test_counters_add_up(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    before = (lab.core.counters.frames_in, lab.core.counters.bytes_in, lab.core.counters.bytes_out)
    alice.send_many(bob, 10, 200)
    lab.run()
    counters = lab.core.counters
    assert counters.frames_in - before[0] == 10
    assert counters.bytes_in - before[1] == 10 * (200 + 8)
    assert counters.bytes_out - before[2] == 10 * (200 + 4)


def test_an_id_that_only_looks_like_the_servers(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    for target in (bytes(7) + b"\x01", b"\x01" + bytes(7), identity(9).id):
        alice.send(target)
    lab.run()
    assert len(alice.nacked) == 3
    assert lab.core.counters.commands == 0
