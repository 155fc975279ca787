"""Frames for the server: each command, and what is done with those that are stale, unknown or too many."""

from typing import Final

import pytest

from relay.limits import KIB, Limits
from relay.reasons import Refusal
from tests.relay.harness import Lab, Peer, identity
from wire import commands as c

NOTIFIER: Final = identity(100)
LIMITS: Final = Limits(handshakes_per_second=0)


@pytest.fixture
def lab() -> Lab:
    return Lab(LIMITS, notifier=NOTIFIER)


def refusals(lab: Lab) -> dict[str, int]:
    return {str(reason): count for reason, count in lab.core.counters.refusals.items() if count}


def said(lab: Lab, peer: Peer, *bodies: c.ClientBody) -> None:
    for body in bodies:
        peer.say(body)
    lab.run()


# --- Introductions ---------------------------------------------------------------------------------------------------


def test_an_introduction_carries_the_keys_of_the_session(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    said(lab, alice, c.Introduce(bob.id, "Alice ␟info"))
    assert bob.news() == [c.IntroFrom(alice.public.x_pub, alice.public.ed_pub, "Alice ␟info")]
    assert alice.news() == []


def test_an_introduction_to_somebody_who_is_not_there_is_not_answered(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    said(lab, alice, c.Introduce(identity(9).id, "Alice"))
    assert alice.news() == []
    assert refusals(lab) == {"offline": 1}


def test_introductions_to_one_person_are_few() -> None:
    lab = Lab(Limits(introductions_pair_burst=2, introductions_pair_per_second=0.1, handshakes_per_second=0))
    alice, bob, carol = lab.connect(1, 2, 3)
    said(lab, alice, *[c.Introduce(bob.id, "A")] * 5, c.Introduce(carol.id, "A"))
    assert [len(bob.news()), len(carol.news())] == [2, 1]
    assert refusals(lab) == {"rate": 3}
    lab.advance(10.0)
    said(lab, alice, c.Introduce(bob.id, "A"))
    assert len(bob.news()) == 1


def test_introductions_of_one_sender_are_limited_over_all() -> None:
    lab = Lab(Limits(introductions_burst=3, introductions_per_second=0.1, handshakes_per_second=0))
    alice, *others = lab.connect(*range(1, 7))
    said(lab, alice, *[c.Introduce(other.id, "A") for other in others])
    assert [len(other.news()) for other in others] == [1, 1, 1, 0, 0]
    said(lab, others[0], c.Introduce(others[4].id, "B"))
    assert len(others[4].news()) == 1


def test_an_introduction_does_not_pile_up_before_a_reader_that_does_not_read() -> None:
    lab = Lab(
        Limits(
            queue_share=KIB,
            flush_size=KIB,
            introductions_per_second=0,
            introductions_pair_per_second=0,
            handshakes_per_second=0,
        )
    )
    alice, bob = lab.connect(1, 2)
    bob.stall()
    for _ in range(30):
        said(lab, alice, c.Introduce(bob.id, "A" * 256))
    assert bob.session.outbox.untaken < 2 * KIB
    assert refusals(lab)["recipient_full"] > 20
    bob.resume()
    lab.run()
    assert len(bob.news()) + refusals(lab)["recipient_full"] == 30


# --- Wakes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [None, 0, 1, 2, 255])
def test_a_wake_is_forwarded_to_the_notifier_as_it_came(type_: int | None, lab: Lab) -> None:
    alice, notifier = lab.connect(1, NOTIFIER)
    said(lab, alice, c.Wake(identity(9).id, type_))
    assert notifier.news() == [c.Wake(identity(9).id, type_)]
    assert lab.core.counters.wakes == 1


def test_a_wake_without_a_notifier_goes_nowhere(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    said(lab, alice, c.Wake(identity(9).id), c.PushRegister(1, b"token"))
    assert alice.news() == []
    assert refusals(lab) == {"no_notifier": 2}


def test_a_relay_that_knows_no_notifier() -> None:
    lab = Lab(LIMITS)
    alice, other = lab.connect(1, NOTIFIER)
    said(lab, alice, c.Wake(identity(9).id), c.PushRegister(1, b"token"))
    assert other.news() == []
    assert refusals(lab) == {"no_notifier": 2}


@pytest.mark.parametrize(
    ("type_", "silence", "forwarded"),
    [(None, 0, False), (0, 24, False), (0, 26, True), (None, 26, True), (1, 0, True), (1, 26, True), (2, 0, True)],
)
def test_a_message_wakes_nobody_who_is_awake_and_a_call_everybody(
    type_: int | None, silence: int, forwarded: bool, lab: Lab
) -> None:
    alice, bob, notifier = lab.connect(1, 2, NOTIFIER)
    lab.advance(silence)
    said(lab, alice, c.Wake(bob.id, type_))
    assert bool(notifier.news()) is forwarded
    assert refusals(lab) == ({} if forwarded else {"target_awake": 1})


def test_a_wake_that_is_not_needed_costs_nothing() -> None:
    lab = Lab(Limits(wakes_burst=1, wakes_pair_burst=1, handshakes_per_second=0), notifier=NOTIFIER)
    alice, bob, notifier = lab.connect(1, 2, NOTIFIER)
    said(lab, alice, *[c.Wake(bob.id)] * 5, c.Wake(bob.id, 1))
    assert notifier.news() == [c.Wake(bob.id, 1)]


def test_wakes_are_limited_by_pair_and_by_sender() -> None:
    limits = Limits(
        wakes_burst=4, wakes_per_second=0.1, wakes_pair_burst=2, wakes_pair_per_second=0.1, handshakes_per_second=0
    )
    lab = Lab(limits, notifier=NOTIFIER)
    alice, bob, notifier = lab.connect(1, 2, NOTIFIER)
    targets = [identity(number).id for number in (11, 11, 11, 12, 12, 13)]
    said(lab, alice, *[c.Wake(target, 1) for target in targets])
    assert notifier.news() == [c.Wake(targets[at], 1) for at in (0, 1, 3, 4)]
    assert refusals(lab) == {"rate": 2}
    said(lab, bob, c.Wake(targets[0], 1))
    assert len(notifier.news()) == 1


# --- Push registrations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "token"), [(0, b""), (1, b"fcm token"), (2, b'{"endpoint":"https://x"}'), (9, b"?")])
def test_a_registration_is_forwarded_with_the_id_of_the_session(kind: int, token: bytes, lab: Lab) -> None:
    alice, notifier = lab.connect(1, NOTIFIER)
    said(lab, alice, c.PushRegister(kind, token))
    assert notifier.news() == [c.PushForward(alice.id, kind, token)]


def test_the_notifier_learns_no_keys(lab: Lab) -> None:
    alice, notifier = lab.connect(1, NOTIFIER)
    said(lab, alice, c.PushRegister(1, b"token"), c.Wake(identity(9).id, 1))
    assert not any(alice.public.x_pub in body.encode() for body in notifier.news() if isinstance(body, c.PushForward))


def test_a_notifier_that_does_not_read(lab: Lab) -> None:
    lab = Lab(Limits(queue_share=KIB, flush_size=KIB, handshakes_per_second=0), notifier=NOTIFIER)
    alice, notifier = lab.connect(1, NOTIFIER)
    notifier.stall()
    for _ in range(10):
        said(lab, alice, c.PushRegister(1, bytes(1000)))
    assert refusals(lab)["recipient_full"] == 9
    assert not alice.over


# --- Proof and freshness ---------------------------------------------------------------------------------------------


def challenge(peer: Peer) -> bytes:
    return next(body.random for body in peer.said if isinstance(body, c.Challenge))


def admitted(lab: Lab, who: int) -> Peer:
    peer = lab.peer(who).open()
    lab.run()
    return peer


def is_proven(peer: Peer) -> bool:
    return peer.session.opened_wire.proven


def test_a_proof_proves(lab: Lab) -> None:
    alice = admitted(lab, 1)
    said(lab, alice, c.Proof(challenge(alice)))
    assert is_proven(alice)


def test_a_wrong_proof_does_not_and_there_is_no_second_try(lab: Lab) -> None:
    alice = admitted(lab, 1)
    said(lab, alice, c.Proof(bytes(32)), c.Proof(challenge(alice)))
    assert not is_proven(alice)
    assert not alice.over


def test_challenges_differ(lab: Lab) -> None:
    assert challenge(admitted(lab, 1)) != challenge(admitted(lab, 2))


@pytest.mark.parametrize("body", [c.Subscribe(()), c.Unknown(0x77, b"later"), c.Wake(identity(9).id)])
def test_any_fresh_command_proves_a_client_that_knows_no_challenge(body: c.ClientBody, lab: Lab) -> None:
    (alice,) = lab.connect(1)
    said(lab, alice, body)
    assert is_proven(alice)


def test_frames_for_peers_prove_nothing(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    alice.send(bob)
    alice.send(identity(9).id)
    lab.run()
    assert not is_proven(alice)


def test_a_replayed_command_is_refused_and_not_obeyed(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    frame = alice.wire.command(c.Introduce(bob.id, "Alice"))
    alice.message(frame).message(frame)
    lab.run()
    assert len(bob.news()) == 1
    assert refusals(lab) == {"replayed": 1}
    assert not alice.over


def test_a_command_replayed_into_another_session_is_refused_and_proves_nothing(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    frame = alice.wire.command(c.Introduce(bob.id, "Alice"))
    alice.message(frame)
    lab.run()
    alice.close()
    lab.run()
    bob.news()
    (again,) = lab.connect(1)
    again.message(frame)
    lab.run()
    assert bob.news() == []
    assert not is_proven(again)
    assert refusals(lab) == {"replayed": 1}


def test_a_command_of_another_client_does_not_open(lab: Lab) -> None:
    alice, bob, mallory = lab.connect(1, 2, 3)
    stolen = alice.wire.command(c.Introduce(bob.id, "Alice"))
    header = mallory.command(c.Subscribe(()))[:8]
    mallory.message(header + stolen[8:])
    lab.run()
    assert bob.news() == []
    # Nothing of it was remembered: Alice's own comes through.
    alice.message(stolen)
    lab.run()
    assert len(bob.news()) == 1


def test_an_unknown_command_is_ignored(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    for code in (0x00, 0x03, 0x42, 0x4A, 0x4C, 0x77, 0xFF):
        said(lab, alice, c.Unknown(code, b"whatever"))
    assert alice.news() == []
    assert not alice.over
    assert refusals(lab) == {"unknown_command": 7}


# --- Rate ------------------------------------------------------------------------------------------------------------


def test_too_many_commands_hold_reads_and_lose_nothing() -> None:
    lab = Lab(
        Limits(
            commands_burst=5,
            commands_per_second=10,
            introductions_per_second=0,
            introductions_pair_per_second=0,
            handshakes_per_second=0,
        )
    )
    alice, bob = lab.connect(1, 2)
    for number in range(20):
        alice.say(c.Introduce(bob.id, str(number)))
    lab.run()
    assert 5 <= len(bob.of(c.IntroFrom)) <= 6
    held = not alice.transport.reading
    lab.advance(0.5)
    assert 9 <= len(bob.of(c.IntroFrom)) <= 12
    lab.advance(2.0)
    assert [body.nickname for body in bob.of(c.IntroFrom)] == [str(number) for number in range(20)]
    assert held
    assert alice.transport.reading
    assert lab.core.counters.refusals == dict.fromkeys(Refusal, 0)
