"""How much one client may send: reads are held, nothing is lost, and others go on."""

from typing import Final

import pytest

from relay.limits import KIB, MIB, Limits
from relay.websocket import Phase
from tests.relay.harness import Lab, Peer, client_frame
from wire import commands as c
from wire.limits import MAX_FRAME


def lab_with(**limits: float) -> Lab:
    return Lab(Limits(handshakes_per_second=0, **limits))  # type: ignore[arg-type]


def held(peer: Peer) -> bool:
    """Whether the relay reads nothing of this one for now."""
    return not peer.transport.reading


def check_others_go_on(lab: Lab, one: Peer, other: Peer) -> None:
    nonce = one.send(other)
    lab.run()
    assert other.delivered[-1] == nonce


# --- Frames and bytes a second ---------------------------------------------------------------------------------------


def test_frames_beyond_the_burst_are_read_at_the_rate() -> None:
    lab = lab_with(frames_burst=20, frames_per_second=10)
    alice, bob, carol = lab.connect(1, 2, 3)
    nonces = [alice.send(bob) for _ in range(60)]
    lab.run()
    assert held(alice)
    assert 18 <= len(bob.delivered) <= 22
    check_others_go_on(lab, carol, alice)
    lab.advance(2.0)
    assert 36 <= len(bob.delivered) <= 44
    lab.advance(3.0)
    assert bob.delivered == nonces


def test_one_chunk_of_very_many_frames_is_parsed_whole_and_paid_for_after() -> None:
    lab = lab_with(frames_burst=20, frames_per_second=10)
    alice, bob = lab.connect(1, 2)
    nonces = alice.send_many(bob, 100)
    late = alice.send(bob)
    lab.run()
    assert bob.delivered == nonces
    lab.advance(7.0)
    assert bob.delivered == nonces
    lab.advance(3.0)
    assert bob.delivered == [*nonces, late]


def test_bytes_beyond_the_burst_are_read_at_the_rate() -> None:
    lab = lab_with(bytes_burst=20 * KIB, bytes_per_second=10 * KIB)
    alice, bob, carol = lab.connect(1, 2, 3)
    nonces = [alice.send(bob, KIB) for _ in range(60)]
    lab.run()
    assert not alice.transport.reading
    assert 17 <= len(bob.delivered) <= 21
    check_others_go_on(lab, carol, alice)
    lab.advance(2.0)
    assert 36 <= len(bob.delivered) <= 44
    lab.advance(3.0)
    assert bob.delivered == nonces


def test_bytes_of_no_whole_frame_count_too() -> None:
    lab = lab_with(bytes_burst=20 * KIB, bytes_per_second=10 * KIB)
    alice, bob = lab.connect(1, 2)
    frame, nonce = alice.blind(bob, 100 * KIB)
    whole = client_frame(frame)
    for at in range(0, len(whole), KIB):
        alice.transport.arrive(whole[at : at + KIB])
    lab.run()
    assert not alice.transport.reading
    lab.advance(5.0)
    assert bob.delivered == []
    lab.advance(5.0)
    assert bob.delivered == [nonce]


@pytest.mark.parametrize("off", ["frames_per_second", "bytes_per_second"])
def test_a_rate_that_is_switched_off(off: str) -> None:
    burst = {"frames_burst": 5} if off == "frames_per_second" else {"bytes_burst": KIB}
    lab = lab_with(**burst, **{off: 0})
    alice, bob = lab.connect(1, 2)
    nonces = [alice.send(bob) for _ in range(1000)]
    lab.run()
    assert bob.delivered == nonces
    assert alice.transport.reading


def test_what_was_not_used_is_not_saved_up_beyond_the_burst() -> None:
    lab = lab_with(frames_burst=20, frames_per_second=10)
    alice, bob = lab.connect(1, 2)
    lab.advance(15.0)
    for _ in range(60):
        alice.send(bob)
    lab.run()
    assert len(bob.delivered) <= 42
    lab.advance(60.0)
    bob.news()
    for _ in range(60):
        alice.send(bob)
    lab.run()
    assert len(bob.delivered) <= 42


def test_who_leaves_while_its_reads_are_held() -> None:
    lab = lab_with(frames_burst=5, frames_per_second=0.01)
    alice, bob = lab.connect(1, 2)
    for _ in range(20):
        alice.send(bob)
    lab.run()
    assert not alice.transport.reading
    alice.transport.die()
    lab.run()
    bob.transport.die()
    lab.advance(1000.0)
    lab.check_empty()


# --- Frames that are not whole yet -----------------------------------------------------------------------------------

PARTIAL: Final = {"partial_free": 10 * KIB, "partial_total": 250 * KIB, "partial_grace": 60}


def begin(peer: Peer, to: Peer, size: int) -> tuple[bytes, bytes]:
    """Send the first half of a large frame; return the other half and the nonce."""
    frame, nonce = peer.blind(to, size)
    whole = client_frame(frame)
    peer.transport.arrive(whole[: size // 2])
    peer.lab.run()
    return whole[size // 2 :], nonce


def test_large_unfinished_frames_are_reserved_and_given_back() -> None:
    lab = lab_with(**PARTIAL)
    alice, bob = lab.connect(1, 2)
    rest, nonce = begin(alice, bob, 100 * KIB)
    assert 100 * KIB <= lab.core.partial_used < 101 * KIB
    alice.transport.arrive(rest)
    lab.run()
    assert bob.delivered == [nonce]
    assert lab.core.partial_used == 0


def test_small_ones_need_no_reservation() -> None:
    lab = lab_with(**PARTIAL)
    alice, bob = lab.connect(1, 2)
    begin(alice, bob, 9 * KIB)
    assert lab.core.partial_used == 0


def test_when_the_pool_is_used_up_reads_wait_and_go_on() -> None:
    lab = lab_with(**PARTIAL)
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    rests = [begin(peer, dave, 100 * KIB) for peer in (alice, bob)]
    third, nonce = begin(carol, dave, 100 * KIB)
    assert held(carol)
    assert lab.core.partial_used <= 250 * KIB
    carol.transport.arrive(third)
    lab.advance(10.0)
    assert dave.delivered == []
    alice.transport.arrive(rests[0][0])
    lab.run()
    lab.advance(0.3)
    assert dave.delivered == [rests[0][1], nonce]
    assert not held(carol)
    bob.transport.arrive(rests[1][0])
    lab.run()
    assert lab.core.partial_used == 0


def test_the_oldest_unfinished_frames_give_way_in_time() -> None:
    lab = lab_with(**PARTIAL)
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    for peer in (alice, bob):
        begin(peer, dave, 100 * KIB)
        lab.advance(5.0)
    rest, nonce = begin(carol, dave, 100 * KIB)
    carol.transport.arrive(rest)
    lab.advance(45.0)
    assert dave.delivered == []
    lab.advance(10.0)
    assert dave.delivered == [nonce]
    assert (alice.session.phase, bob.session.phase) == (Phase.CLOSING, Phase.OPEN)


def test_the_first_always_gets_its_room() -> None:
    """It would else be paused for room and then ended for its slowness."""
    lab = lab_with(**PARTIAL)
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    frame, nonce = alice.blind(dave, 600 * KIB)
    whole = client_frame(frame)
    alice.transport.arrive(whole[: 20 * KIB])
    lab.run()
    for peer in (bob, carol):
        begin(peer, dave, 100 * KIB)
    alice.transport.arrive(whole[20 * KIB : 500 * KIB])
    lab.advance(100.0)
    assert not held(alice)
    alice.transport.arrive(whole[500 * KIB :])
    lab.run()
    assert dave.delivered == [nonce]


@pytest.mark.parametrize("opcode", [0x9, 0x1])
def test_a_flood_of_unusual_frames_is_parsed_in_several_turns(opcode: int) -> None:
    lab = Lab(Limits(handshakes_per_second=0), unit=0.0005)
    alice, bob, carol = lab.connect(1, 2, 3)
    frame, nonce = alice.blind(bob)
    alice.transport.arrive(client_frame(b"", opcode) * 200 + client_frame(frame))
    between = carol.send(bob)
    for _ in range(3):
        lab.loop.turn()
    assert bob.delivered == [between], "others wait for a few of these frames, not for all"
    lab.run()
    assert bob.delivered == [between, nonce]
    assert not held(alice)


def test_commands_beyond_the_time_of_a_turn_keep_their_place() -> None:
    lab = Lab(Limits(handshakes_per_second=0, slice=0.0001), unit=0.001)
    alice, bob = lab.connect(1, 2)
    alice.transport.arrive(
        b"".join(
            client_frame(alice.command(body))
            for body in (c.Subscribe((bob.public.x_pub,)), c.Unsubscribe((bob.public.x_pub,)), c.Subscribe(()))
        )
    )
    lab.run()
    assert alice.of(c.PeerOnline) == [c.PeerOnline((bob.public.x_pub,))]
    assert alice.session.watching is None or bob.public.x_pub not in alice.session.watching
    assert not held(alice)


def test_a_promise_reserves_nothing() -> None:
    """Heads of large frames cost their sender nothing; they must not keep room from those who send."""
    lab = lab_with(**PARTIAL)
    *crowd, alice, bob = lab.connect(*range(1, 13))
    for peer in crowd:
        frame, _ = peer.blind(bob, MAX_FRAME)
        peer.transport.arrive(client_frame(frame)[:20])
    lab.run()
    assert lab.core.partial_used == 0
    rest, nonce = begin(alice, bob, 100 * KIB)
    alice.transport.arrive(rest)
    lab.run()
    assert bob.delivered == [nonce]


@pytest.mark.parametrize("waiting", [False, True])
def test_who_leaves_gives_its_reservation_back(waiting: bool) -> None:
    lab = lab_with(**PARTIAL)
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    for peer in (alice, bob, carol)[: 3 if waiting else 2]:
        begin(peer, dave, 100 * KIB)
    (carol if waiting else bob).transport.die()
    lab.run()
    assert 100 * KIB <= lab.core.partial_used < 250 * KIB
    for peer in (alice, bob, carol, dave):
        peer.transport.die()
    lab.advance(5.0)
    lab.check_empty()


def test_a_frame_that_began_while_reads_were_held_is_accounted_for() -> None:
    lab = lab_with(frames_burst=10, frames_per_second=100, **PARTIAL)
    alice, bob = lab.connect(1, 2)
    alice.answers_pings = False
    frame, _ = alice.blind(bob, 100 * KIB)
    alice.transport.arrive(client_frame(b"", 1) * 20 + client_frame(frame)[:100])
    lab.advance(1.0)
    assert alice.session.partial_since
    lab.pulse.start()
    for _ in range(125):
        alice.transport.arrive(b"x")
        lab.advance(1.0)
    assert alice.session.phase is not Phase.OPEN


def test_the_largest_frame_in_the_smallest_pieces_that_matter() -> None:
    lab = Lab(Limits(handshakes_per_second=0))
    alice, bob = lab.connect(1, 2)
    frame, nonce = alice.blind(bob, MAX_FRAME)
    whole = client_frame(frame)
    for at in range(0, len(whole), 4096):
        alice.transport.arrive(whole[at : at + 4096])
    lab.run()
    assert bob.delivered == [nonce]
    assert lab.core.partial_used == 0
    assert MAX_FRAME == MIB
