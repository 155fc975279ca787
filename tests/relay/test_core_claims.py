"""Two sessions of one id: each row of the table, with sessions."""

from dataclasses import replace

import pytest

from keys.identity import Identity
from relay.limits import Limits
from relay.reasons import Ending, Refusal
from tests.relay.harness import Lab, Peer, client_frame, hang_up_all, identity, upgrade
from tests.wire.pair import Counted
from wire import commands as c

LIMITS = Limits(handshakes_per_second=0, claim_queue=3)


@pytest.fixture
def lab() -> Lab:
    return Lab(LIMITS)


def prove(peer: Peer) -> Peer:
    """Say something fresh."""
    peer.say(c.Subscribe(()))
    peer.lab.run()
    assert peer.session.opened_wire.proven
    return peer


def proven(lab: Lab, who: Identity | int = 1, *, answers: bool = True) -> Peer:
    (holder,) = lab.connect(who)
    holder.answers_pings = answers
    return prove(holder)


def newcomer(lab: Lab, who: Identity | int = 1) -> Peer:
    peer = lab.peer(who).open()
    lab.run()
    return peer


def has(peer: Peer) -> bool:
    """Whether this one has the id."""
    return peer.lab.core.sessions.get(peer.id) is peer.session


def check_in_use(peer: Peer) -> None:
    assert peer.news() == [c.IdInUse()]
    assert peer.session.ended is Ending.ID_IN_USE
    assert peer.close_code == 1008


def check_in(peer: Peer) -> None:
    assert has(peer)
    assert [type(body) for body in peer.news()[:2]] == [c.HandshakeOk, c.Challenge]


def other_ed(who: int = 1) -> Identity:
    """Return the same X25519 key with another Ed25519 key: only its owner, or a copy of a key file, has that."""
    return Identity(identity(who).seeds[0], Counted("another")(32))


# --- The rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_proven", [False, True])
def test_other_keys_are_refused_always(is_proven: bool, lab: Lab) -> None:
    (holder,) = lab.connect(1)
    if is_proven:
        prove(holder)
    stranger = newcomer(lab, other_ed())
    check_in_use(stranger)
    assert has(holder)
    assert holder.pings == []


def test_an_unproven_holder_yields_at_once(lab: Lab) -> None:
    (holder,) = lab.connect(1)
    second = newcomer(lab)
    check_in(second)
    assert holder.session.ended is Ending.REPLACED
    assert holder.close_code == 1008
    assert holder.pings == []


def test_a_proven_holder_that_answers_keeps_the_id(lab: Lab) -> None:
    holder = proven(lab)
    second = newcomer(lab)
    check_in_use(second)
    assert has(holder)
    assert len(holder.pings) == 1
    lab.advance(10.0)
    assert has(holder)


def test_a_proven_holder_that_does_not_answer_goes(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    second = newcomer(lab)
    lab.advance(1.9)
    assert has(holder)
    assert second.raw == []
    lab.advance(0.2)
    check_in(second)
    assert holder.session.ended is Ending.REPLACED


def test_only_a_pong_to_this_very_ping_is_an_answer(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    second = newcomer(lab)
    nonce = holder.send(second)  # bytes alone do not help: they may be old ones
    holder.answers_pings = False
    holder.transport.arrive(b"\x8a\x88\x00\x00\x00\x00" + bytes(8))
    lab.advance(2.1)
    check_in(second)
    assert nonce not in second.delivered


def test_a_holder_whose_reads_we_hold_is_not_judged(lab: Lab) -> None:
    holder = proven(lab)
    holder.session.hold(1)
    second = newcomer(lab)
    lab.advance(2.1)
    assert has(holder)
    check_in_use(second)


def test_a_holder_that_is_held_because_it_does_not_read_is_judged(lab: Lab) -> None:
    """Its network is gone, and so it will never take the answers for which its reads are held."""
    holder = proven(lab, answers=False)
    holder.stall()
    holder.send(bytes(7) + b"x")
    lab.run()
    holder.send_many(bytes(7) + b"x", lab.core.limits.refusals_waiting + 100)
    lab.run()
    assert holder.session.held
    assert holder.session.blocked
    second = newcomer(lab)
    lab.advance(2.1)
    check_in(second)
    assert holder.session.ended is Ending.REPLACED


def test_a_beat_does_not_void_the_answer_of_a_holder_that_is_asked(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    second = newcomer(lab)
    asked = holder.pings[-1]
    holder.session.beat(b"a beat  ")
    lab.run()
    assert holder.pings[-1] == asked
    holder.transport.arrive(client_frame(asked, 0xA))
    lab.run()
    check_in_use(second)
    assert has(holder)


def test_a_holder_that_leaves_while_it_is_asked(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    second = newcomer(lab)
    holder.transport.die()
    lab.run()
    check_in(second)
    lab.advance(10.0)
    assert has(second)


def test_a_newcomer_that_gives_up_while_it_waits(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    second = newcomer(lab)
    second.transport.die()
    lab.advance(5.0)
    assert has(holder)
    hang_up_all([holder])
    lab.run()
    lab.check_empty()


def test_an_answer_after_the_newcomer_gave_up_serves_nobody(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    second = newcomer(lab)
    second.transport.die()
    lab.run()
    third = newcomer(lab)
    holder.answers_pings = True
    lab.advance(1.0)
    assert third.raw == []
    lab.advance(2.0)
    # The first probe ran out; for the third another was sent, and answered.
    assert has(holder)
    check_in_use(third)


# --- More than one ---------------------------------------------------------------------------------------------------


def test_of_two_newcomers_the_later_waits_for_the_earlier(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    second, third = newcomer(lab), newcomer(lab)
    assert len(holder.pings) == 1
    lab.advance(2.1)
    # The second is unproven yet, so the third takes its place at once.
    assert has(third)
    assert second.session.ended is Ending.REPLACED
    assert [type(body) for body in second.news()] == [c.HandshakeOk, c.Challenge]
    check_in(third)


def test_each_newcomer_is_answered_for(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    others = [newcomer(lab) for _ in range(3)]
    holder.answers_pings = True
    holder.transport.arrive(b"\x8a\x88\x00\x00\x00\x00" + holder.pings[0])
    lab.run()
    for other in others:
        check_in_use(other)
    assert has(holder)
    assert len(holder.pings) == 3


def test_a_full_line(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    others = [newcomer(lab) for _ in range(4)]
    check_in_use(others[3])
    assert all(other.raw == [] for other in others[:3])
    assert has(holder)


def test_those_who_wait_go_on_waiting_when_fewer_may(lab: Lab) -> None:
    proven(lab, answers=False)
    others = [newcomer(lab) for _ in range(3)]
    lab.core.change_limits(replace(lab.core.limits, claim_queue=1))
    lab.run()
    check_in_use(newcomer(lab))
    lab.advance(2.1)
    assert has(others[-1])


def test_a_stranger_does_not_stand_in_line(lab: Lab) -> None:
    proven(lab, answers=False)
    second = newcomer(lab)
    check_in_use(newcomer(lab, other_ed()))
    lab.advance(2.1)
    check_in(second)


def test_one_in_the_middle_gives_up(lab: Lab) -> None:
    proven(lab, answers=False)
    second, third, fourth = newcomer(lab), newcomer(lab), newcomer(lab)
    third.transport.die()
    lab.advance(2.1)
    assert has(fourth)
    assert second.session.ended is Ending.REPLACED
    hang_up_all([second, fourth])
    lab.run()


def test_everybody_goes_while_a_line_waits(lab: Lab) -> None:
    peers = [proven(lab, answers=False), *(newcomer(lab) for _ in range(3))]
    hang_up_all(peers)
    lab.run()
    lab.check_empty()
    lab.advance(10.0)
    lab.check_empty()


def test_ids_do_not_wait_for_each_other(lab: Lab) -> None:
    proven(lab, 1, answers=False)
    newcomer(lab, 1)
    proven(lab, 2)
    check_in_use(newcomer(lab, 2))


# --- What is waited with ---------------------------------------------------------------------------------------------


def test_what_a_newcomer_sends_before_it_has_its_answer_waits_and_is_not_lost(lab: Lab) -> None:
    proven(lab, answers=False)
    (bob,) = lab.connect(2)
    second = lab.peer(1)
    blind = [second.blind(bob) for _ in range(3)]
    # One in the chunk of the handshake, the others behind it in the socket.
    second.transport.arrive(upgrade() + client_frame(second.wire.hello()) + client_frame(blind[0][0]))
    second.message(blind[1][0]).message(blind[2][0])
    lab.run()
    assert [second.transport.reading, bool(second.transport.unread)] == [False, True]
    lab.advance(2.1)
    check_in(second)
    assert [second.transport.reading, bool(second.transport.unread)] == [True, False]
    assert bob.delivered == [nonce for _, nonce in blind]


def test_frames_of_an_evicted_holder_are_answered_and_its_watchers_told(lab: Lab) -> None:
    (bob,) = lab.connect(2)
    holder = proven(lab, answers=False)
    bob.say(c.Subscribe((holder.public.x_pub,)))
    lab.run()
    assert bob.presence == [(True, holder.public.x_pub)]
    holder.stall()
    bob.send(holder)
    lab.run()
    nonces = [bob.send(holder) for _ in range(4)]
    lab.run()
    bob.news()
    second = newcomer(lab)
    lab.advance(2.1)
    # The first was in the transport already; what waited in the relay is answered.
    assert bob.nacked == nonces
    assert bob.presence == [(False, holder.public.x_pub), (True, holder.public.x_pub)]
    assert lab.core.counters.refusals[Refusal.RECIPIENT_GONE] == 4
    check_in(second)


def test_a_replaced_session_keeps_nothing_of_the_old_one(lab: Lab) -> None:
    (bob,) = lab.connect(2)
    (holder,) = lab.connect(1)
    holder.say(c.Subscribe((bob.public.x_pub,)))
    lab.run()
    second = newcomer(lab)
    second.news()
    bob.close()
    lab.run()
    # Proven by that SUBSCRIBE, the holder was asked, and answered.
    assert has(holder)
    holder.close()
    lab.run()
    third = newcomer(lab)
    third.news()
    lab.connect(2)
    assert third.presence == []


def test_stopping_lets_nobody_in_any_more(lab: Lab) -> None:
    holder = proven(lab, answers=False)
    second = newcomer(lab)
    lab.core.draining = True
    lab.advance(5.0)
    assert not has(second)
    holder.transport.die()
    lab.run()
    assert not has(second)
    second.transport.die()
    lab.run()
    lab.check_empty()
