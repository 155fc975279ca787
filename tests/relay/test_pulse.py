"""Deadlines and heartbeats, on a relay in memory whose clock is ours."""

from typing import Final

import pytest

from relay.guard import Buckets
from relay.limits import Limits
from relay.pulse import Pulse
from relay.reasons import Ending
from tests.relay.harness import Lab, Peer, client_frame, upgrade
from wire import commands as c

LIMITS: Final = Limits(handshakes_per_second=0)


@pytest.fixture
def lab() -> Lab:
    lab = Lab(LIMITS)
    lab.pulse.start()
    return lab


def ended(peer: Peer) -> Ending | None:
    return peer.session.ended if peer.over else None


def keep_talking(peer: Peer, seconds: int) -> None:
    """Let time pass while a client says something each second that nobody answers."""
    for _ in range(seconds):
        peer.transport.arrive(client_frame(b"", 1))
        peer.lab.advance(1.0)


# --- Heartbeats ------------------------------------------------------------------------------------------------------


def test_after_twenty_seconds_of_silence_a_client_is_asked_for_a_sign_of_life(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    lab.advance(19.9)
    assert alice.pings == []
    lab.advance(3.0)
    assert len(alice.pings) == 1
    assert alice.news() == [c.ServerPing()]


def test_a_client_that_answers_stays(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    lab.advance(600.0)
    assert not alice.over
    assert 27 <= len(alice.pings) <= 30
    assert {type(body) for body in alice.news()} == {c.ServerPing}


def test_each_ping_has_a_payload_of_its_own(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    lab.advance(300.0)
    assert len(set(alice.pings)) == len(alice.pings) > 5


def test_a_client_that_hears_nothing_is_pinged_though_it_talks(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    keep_talking(alice, 60)
    assert 2 <= len(alice.pings) <= 3
    assert not alice.over


def test_a_client_that_says_nothing_is_pinged_though_it_hears(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    alice.answers_pings = False
    for _ in range(40):
        bob.send(alice)
        lab.advance(1.0)
    assert len(alice.pings) == 1  # one outstanding ping is enough
    assert not alice.over


def test_a_busy_client_is_not_pinged(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    for _ in range(120):
        bob.send(alice)
        alice.send(bob)
        lab.advance(1.0)
    assert alice.pings == bob.pings == []


def test_a_socket_that_is_silent_for_a_minute_is_dropped(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    alice.answers_pings = False
    lab.advance(59.9)
    assert not alice.over
    lab.advance(3.0)
    assert ended(alice) is Ending.SILENT
    assert alice.close_code == 1008
    assert len(alice.pings) in (2, 3)


def test_pongs_that_nobody_asked_for_are_no_sign_of_life(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    alice.answers_pings = False
    for _ in range(63):
        alice.transport.arrive(client_frame(b"unasked", 0xA))
        lab.advance(1.0)
    assert ended(alice) is Ending.SILENT


def test_a_pong_to_an_earlier_ping_is_none_to_this_one(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    alice.answers_pings = False
    lab.advance(45.0)
    old, new = alice.pings
    alice.transport.arrive(client_frame(old, 0xA))
    lab.run()
    assert alice.session.ping == new
    alice.transport.arrive(client_frame(new, 0xA))
    lab.run()
    assert alice.session.ping is None


def test_text_is_a_sign_of_life(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    alice.answers_pings = False
    for _ in range(10):
        lab.advance(30.0)
        alice.transport.arrive(client_frame(b"pong", 1))
    assert not alice.over


def test_a_session_whose_reads_we_hold_is_not_called_silent(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    alice.answers_pings = False
    alice.session.hold(1)
    lab.advance(100.0)
    assert not alice.over
    alice.session.release(1)
    lab.advance(3.0)
    assert ended(alice) is Ending.SILENT


# --- Deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"GET /ws HTTP/1.1\r\n", upgrade(), upgrade() + client_frame(bytes(172))[:100]])
def test_an_opening_takes_ten_seconds_at_most(sent: bytes, lab: Lab) -> None:
    alice = lab.peer(1)
    if sent:
        alice.transport.arrive(sent)
    lab.advance(9.9)
    assert not alice.over
    lab.advance(1.2)
    assert ended(alice) is Ending.SLOW_OPENING
    lab.advance(6.0)
    lab.check_empty()


def test_openings_are_judged_each_by_its_own_beginning(lab: Lab) -> None:
    first = lab.peer(1)
    lab.advance(5.0)
    second = lab.peer(2)
    lab.advance(6.5)
    assert first.over
    assert not second.over
    lab.advance(5.0)
    assert second.over


def test_who_does_not_hang_up_after_a_close_is_cut_off(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    alice.close()
    lab.run()
    assert alice.close_code == 1000
    assert alice.session in lab.core.closing
    lab.advance(4.0)
    assert not alice.transport.is_closing()
    lab.advance(2.5)
    assert alice.transport.is_closing()
    lab.check_empty()


def test_a_frame_takes_two_minutes_at_most(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    alice.answers_pings = False
    whole = client_frame(alice.wire.send(bob.id, alice.packet(1000)))
    for second in range(119):
        alice.transport.arrive(whole[second : second + 1])
        lab.advance(1.0)
    assert not alice.over
    for second in range(119, 124):
        alice.transport.arrive(whole[second : second + 1])
        lab.advance(1.0)
    assert ended(alice) is Ending.SLOW_FRAME


def test_each_frame_has_its_own_two_minutes(lab: Lab) -> None:
    """A long upload whose reads never end where a frame ends is many frames, not one."""
    alice, bob = lab.connect(1, 2)
    alice.answers_pings = False
    nonces = []
    stream = bytearray()
    for _ in range(230):
        packet = alice.packet(1000)
        nonces.append(packet[:24])
        stream += client_frame(alice.wire.send(bob.id, packet))
    for at in range(0, len(stream), 1009):
        alice.transport.arrive(bytes(stream[at : at + 1009]))
        lab.advance(1.0)
    assert not alice.over
    assert bob.delivered == nonces


def test_what_a_recipient_does_not_take_for_thirty_seconds_ends_it(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    bob.stall()
    alice.send(bob)
    lab.advance(29.0)
    assert not bob.over
    lab.advance(2.5)
    assert ended(bob) is Ending.STALLED


def test_taking_single_bytes_does_not_help(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    bob.stall()
    alice.send(bob, 1000)
    for _ in range(29):
        lab.advance(1.0)
        bob.transport.take(1)
        alice.send(bob)
    assert not bob.over
    lab.advance(3.0)
    assert ended(bob) is Ending.STALLED


def test_a_slow_reader_that_keeps_up_stays() -> None:
    lab = Lab(Limits(handshakes_per_second=0, flush_size=1000, queue_share=1000))
    lab.pulse.start()
    alice, bob = lab.connect(1, 2)
    bob.stall()
    alice.send_many(bob, 25, 1000)
    for _ in range(120):
        lab.advance(1.0)
        bob.transport.take(1050)
        alice.send(bob, 1000)
    assert not bob.over
    assert len(bob.delivered) > 100
    assert alice.nacked == []


def test_what_waited_in_the_relay_is_as_old_as_what_waited_in_the_transport(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    bob.stall()
    alice.send(bob, 1000)
    lab.advance(10.0)
    alice.send(bob, 1000)
    lab.advance(15.0)
    bob.transport.take(1004 + 10)  # the first frame and a ping, so that the second comes into the transport
    lab.advance(14.0)
    assert not bob.over
    lab.advance(3.0)
    assert ended(bob) is Ending.STALLED


def test_a_stalled_session_gets_one_ping_and_no_more(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    bob.answers_pings = False
    bob.stall()
    alice.send(bob)
    lab.advance(10.0)
    bob.session.last_in = bob.session.last_out = lab.loop.now - 25
    before = bob.transport.get_write_buffer_size()
    lab.advance(15.0)
    assert bob.transport.get_write_buffer_size() == before + 2 + 8


# --- The ticking itself ----------------------------------------------------------------------------------------------


def test_the_sweep_looks_at_everybody_in_slices(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.pulse._SLICE", 3)
    sessions = [peer.session for peer in lab.connect(*range(1, 9))]
    lab.pulse.stop()
    looked: list[object] = []
    monkeypatch.setattr(Pulse, "look", lambda _pulse, session, _now, _payload: looked.append(session))
    lab.pulse._sweep(sessions, 0, b"12345678")
    counts = [len(looked)]
    while lab.loop.ready:
        lab.loop.turn()
        counts.append(len(looked))
    assert counts == [3, 6, 8]
    assert looked == sessions


def test_who_left_during_a_sweep_is_not_looked_at(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    sessions = [alice.session, bob.session]
    lab.pulse.stop()
    alice.close()
    lab.advance(25.0)
    lab.pulse._sweep(sessions, 0, b"12345678")
    lab.run()
    assert alice.pings == []
    assert bob.pings == [b"12345678"]


def test_an_error_in_one_look_ends_neither_the_ticks_nor_the_sweeps(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (alice,) = lab.connect(1)
    with monkeypatch.context() as context:
        context.setattr(Pulse, "look", lambda *_args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lab.advance(3.0)
    lab.advance(25.0)
    assert len(alice.pings) == 1


def test_a_pulse_that_stopped_ticks_no_more(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    lab.pulse.stop()
    lab.pulse.stop()
    lab.advance(300.0)
    assert alice.pings == []


def test_memories_are_swept(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    alice.say(c.Introduce(bob.id, "Alice"))
    lab.core.handshake_rate = Buckets(1.0, 5, 100)
    lab.core.handshake_rate.allow(b"address", lab.core.clock())
    lab.run()
    rates = (
        lab.core.handshake_rate,
        lab.core.control.rates["introductions"],
        lab.core.control.rates["introductions_pair"],
    )
    assert [len(rate) for rate in rates] == [1, 1, 1]
    lab.advance(7.0)
    assert [len(rate) for rate in rates] == [0, 1, 1]
    lab.advance(200.0)
    assert [len(rate) for rate in rates] == [0, 0, 0]
