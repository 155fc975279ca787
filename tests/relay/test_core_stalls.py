"""Recipients that do not read: what they may hold, what gives way, and who is told."""

import pytest

from relay.limits import KIB, Limits
from relay.reasons import Ending, Refusal
from tests.relay.crowds import SMALL, fill, refusals, stalled, watch
from tests.relay.harness import Lab, hang_up_all, identity
from wire import commands as c


@pytest.fixture
def lab() -> Lab:
    return Lab(SMALL)


# --- One recipient ---------------------------------------------------------------------------------------------------


def test_what_a_recipient_does_not_take_waits_and_comes_in_order(lab: Lab) -> None:
    alice, bob, carol = lab.connect(1, 2, 3)
    stalled(bob, alice)
    nonces = []
    for _ in range(10):
        nonces += [alice.send(bob, 500), carol.send(bob, 500)]
    lab.run()
    assert bob.raw == []
    bob.resume()
    lab.run()
    assert bob.delivered[1:] == nonces
    assert refusals(lab) == {}
    assert lab.core.budget.used == 0
    assert bob.session.outbox._marks is None


def test_the_bound_of_one_recipient_is_four_mebibytes() -> None:
    lab = Lab(Limits(handshakes_per_second=0, refusals_per_second=0))
    alice, bob = lab.connect(1, 2)
    stalled(bob, alice)
    nonces = alice.send_many(bob, 5000, KIB)
    lab.run()
    waiting = 4 * 1024 * KIB // (KIB + 4)
    assert bob.session.outbox.untaken <= 4 * 1024 * KIB
    assert alice.nacked == nonces[len(nonces) - len(alice.nacked) :]
    assert abs(len(nonces) - len(alice.nacked) - waiting) <= 1
    assert refusals(lab) == {"recipient_full": len(alice.nacked)}
    bob.resume()
    lab.run()
    assert bob.delivered[1:] + alice.nacked == nonces


def test_a_small_frame_still_fits_where_a_large_one_does_not(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    stalled(bob, alice)
    fill(alice, bob, 30 * KIB)
    large, small = alice.send(bob, 4 * KIB), alice.send(bob, 200)
    lab.run()
    assert alice.nacked == [large]
    bob.resume()
    lab.run()
    assert bob.delivered[-1] == small


def test_senders_that_were_refused_are_told_when_the_queue_has_drained(lab: Lab) -> None:
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    for peer in (alice, carol):
        watch(peer, bob)
    stalled(bob, alice)
    fill(alice, bob, 40 * KIB)
    fill(dave, bob, 2 * KIB)
    assert alice.nacked
    assert dave.nacked
    for peer in (alice, dave):
        peer.news()
    # Not before everything has drained: what was refused once more would wait for another time.
    bob.transport.take(20 * KIB)
    lab.run()
    assert bob.session.blocked
    assert alice.news() == []
    bob.resume()
    lab.run()
    assert alice.news() == [c.PeerOnline((bob.public.x_pub,))]
    assert carol.news() == []  # was not refused
    assert dave.news() == []  # does not watch
    again = alice.send(bob)
    lab.run()
    assert bob.delivered[-1] == again


def test_who_unsubscribed_meanwhile_is_not_told(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    watch(alice, bob)
    stalled(bob, alice)
    fill(alice, bob, 40 * KIB)
    alice.say(c.Unsubscribe((bob.public.x_pub,)))
    lab.run()
    alice.news()
    bob.resume()
    lab.run()
    assert alice.news() == []


def test_a_refused_sender_that_left_is_not_told(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    watch(alice, bob)
    stalled(bob, alice)
    fill(alice, bob, 40 * KIB)
    alice.transport.die()
    lab.run()
    bob.resume()
    lab.run()
    hang_up_all([bob])
    lab.run()
    lab.check_empty()


def test_the_queue_of_who_stalls_for_thirty_seconds_is_answered(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    watch(alice, bob)
    stalled(bob, alice)
    nonces = fill(alice, bob, 10 * KIB)
    for _ in range(31):
        lab.tick()
    assert bob.session.ended is Ending.STALLED
    assert bob.transport.is_closing()
    assert alice.nacked == nonces
    assert alice.presence == [(False, bob.public.x_pub)]


def test_a_slow_reader_is_served_at_its_pace(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    stalled(bob, alice)
    nonces = fill(alice, bob, 20 * KIB)
    for _ in range(20):
        bob.transport.take(2 * KIB)
        lab.tick()
    assert bob.delivered[1:] == nonces
    assert not bob.session.blocked


def test_what_a_transport_moved_on_is_seen_by_the_pulse() -> None:
    lab = Lab(Limits(handshakes_per_second=0))
    alice, bob = lab.connect(1, 2)
    bob.stall()
    fill(alice, bob, 100 * KIB)
    used = lab.core.budget.used
    assert used > 100 * KIB
    bob.transport.take(60 * KIB)
    assert lab.core.budget.used == used
    lab.tick()
    assert lab.core.budget.used == used - 60 * KIB


def test_pings_of_who_does_not_read_are_answered_once(lab: Lab) -> None:
    """RFC 6455 §5.5.3: the latest alone. Else pings would be a way around every bound."""
    alice, bob = lab.connect(1, 2)
    stalled(bob, alice)
    for number in range(100):
        bob.transport.arrive(b"\x89\x81\x00\x00\x00\x00" + bytes((number,)))
    lab.run()
    assert bob.session.transport.get_write_buffer_size() == 112 + 2
    bob.resume()
    lab.run()
    assert bob.pongs == [bytes((99,))]


# --- Oneself ---------------------------------------------------------------------------------------------------------


def test_who_writes_to_itself_and_does_not_read_is_bounded_and_others_go_on(lab: Lab) -> None:
    alice, bob, carol = lab.connect(1, 2, 3)
    alice.stall()
    nonces = [alice.send(alice, KIB) for _ in range(400)]
    kept = bob.send(carol)
    lab.run()
    assert carol.delivered == [kept]
    assert not alice.transport.reading
    assert alice.session.outbox.untaken <= SMALL.queue_size
    assert len(alice.session.refusals or ()) <= SMALL.refusals_waiting + 40
    # It reads again: what waited comes, what was refused is told, and the rest is read, with none lost.
    alice.resume()
    lab.advance(10.0)
    assert sorted(alice.delivered + alice.nacked) == sorted(nonces)
    assert alice.transport.reading


def test_a_flood_of_refusals_holds_reads() -> None:
    lab = Lab(
        Limits(refusals_waiting=50, refusals_burst=100, refusals_per_second=100, handshakes_per_second=0), unit=0.001
    )
    alice, bob, carol = lab.connect(1, 2, 3)
    nonces = [alice.send(identity(9).id) for _ in range(500)]
    for _ in range(4):
        lab.loop.turn()
    assert len(alice.session.refusals or ()) <= 52
    lab.run()
    first = len(alice.nacked)
    assert 100 <= first <= 160
    assert not alice.transport.reading
    kept = bob.send(carol)
    lab.run()
    assert carol.delivered == [kept]
    lab.advance(1.0)
    assert 90 <= len(alice.nacked) - first <= 120
    lab.advance(5.0)
    assert alice.nacked == nonces
    assert alice.transport.reading


def test_one_that_draws_refusals_and_does_not_read_is_held_until_it_does(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    stalled(alice, bob)
    nonces = [alice.send(identity(9).id) for _ in range(1000)]
    lab.run()
    assert not alice.transport.reading
    assert len(alice.session.refusals or ()) <= SMALL.refusals_waiting + 1
    alice.resume()
    lab.advance(10.0)
    assert alice.nacked == nonces


@pytest.mark.parametrize("queue_size", [4 * KIB, 5 * KIB])
def test_an_answer_is_not_lost_when_its_own_queue_is_full(queue_size: int) -> None:
    """The answers stall their own reader in the middle, with a queue that may hold no byte more."""
    lab = Lab(Limits(flush_size=4 * KIB, queue_size=queue_size, queue_share=KIB, handshakes_per_second=0))
    (alice,) = lab.connect(1)
    alice.stall()
    nonces = [alice.send(identity(9).id) for _ in range(60)]
    lab.run()
    alice.resume()
    lab.run()
    assert alice.nacked == nonces


def test_answers_to_who_is_gone_hurt_nobody() -> None:
    """The sealing of the answers shows that their socket is dead; whoever stands behind in line is served."""
    lab = Lab(Limits(flush_size=KIB, queue_share=KIB, handshakes_per_second=0))
    alice, bob = lab.connect(1, 2)
    for _ in range(40):
        alice.send(identity(9).id)
    nonces = [bob.send(identity(9).id) for _ in range(40)]
    lab.loop.turn()
    alice.transport.dies_at_write = True
    lab.run()
    assert bob.nacked == nonces
    assert alice.session.ended is Ending.CLIENT


def test_presence_to_who_is_gone_hurts_nobody() -> None:
    lab = Lab(Limits(flush_size=256, queue_share=256, handshakes_per_second=0))
    alice, bob, *others = lab.connect(*range(1, 13))
    coming = [lab.peer(number) for number in range(13, 18)]
    for peer in (alice, bob):
        peer.say(c.Subscribe.of(other.public.x_pub for other in (*others, *coming)))
    lab.run()
    bob.news()
    alice.transport.dies_at_write = True
    for other in others[:5]:
        other.close()
    for other in coming:
        other.open()
    lab.run()
    assert len(bob.presence) == 10
    assert alice.session.ended is Ending.CLIENT


def test_the_reason_of_a_refusal_is_counted_once_each(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    stalled(bob, alice)
    fill(alice, bob, 40 * KIB)
    assert lab.core.counters.refusals[Refusal.RECIPIENT_FULL] == len(alice.nacked)
