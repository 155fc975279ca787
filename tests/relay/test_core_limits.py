"""Limits that touch more than one session: each tripped, with its reason counted."""

from dataclasses import replace

import pytest

from relay.limits import Limits
from relay.reasons import Ending, Held, Refusal
from relay.websocket import Phase
from tests.relay.harness import Lab, Peer, client_frame, identity, upgrade
from wire import commands as c

NOTIFIER = identity(90)


def knock(lab: Lab, address: str = "198.51.100.7", *headers: str) -> Peer:
    """Return a connection that asked to become a WebSocket."""
    peer = lab.peer(1000 + lab.number(), address)
    peer.transport.arrive(upgrade("/ws", *headers))
    lab.run()
    return peer


def status(peer: Peer) -> int:
    return int(peer.status.split()[1])


def retry_after(peer: Peer) -> int:
    head = bytes(peer.transport.written).partition(b"\r\n\r\n")[0].decode()
    (value,) = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Retry-After: ")]
    return int(value)


def endings(lab: Lab) -> dict[str, int]:
    return {str(ending): count for ending, count in lab.core.counters.endings.items() if count}


def refusals(lab: Lab) -> dict[str, int]:
    return {str(reason): count for reason, count in lab.core.counters.refusals.items() if count}


# --- Connections -----------------------------------------------------------------------------------------------------


def test_connections_of_one_address() -> None:
    lab = Lab(Limits(connections_per_address=2))
    first, second, third = (knock(lab) for _ in range(3))
    assert [status(peer) for peer in (first, second, third)] == [101, 101, 429]
    assert retry_after(third) == 60
    assert third.session.ended is Ending.ADDRESS_FULL
    assert status(knock(lab, "198.51.100.8")) == 101
    second.transport.die()
    lab.run()
    assert status(knock(lab)) == 101
    assert status(knock(lab)) == 429
    lab.tick(10)
    assert endings(lab)["address_full"] == 2


def test_one_ipv6_site_is_one_address() -> None:
    lab = Lab(Limits(connections_per_address=1))
    assert [status(knock(lab, f"2001:db8::{count}")) for count in range(1, 3)] == [101, 429]
    assert status(knock(lab, "2001:db8:0:1::1")) == 101


def test_the_place_is_kept_after_the_handshake_and_without_the_address() -> None:
    lab = Lab(Limits(connections_per_address=1))
    (alice,) = lab.connect(1)
    assert alice.session.address == b""
    assert alice.session.place is not None
    assert bytes((198, 51, 100, 7)) not in alice.session.place.key
    assert status(knock(lab)) == 429


def test_behind_a_proxy_that_names_nobody_nobody_is_counted() -> None:
    lab = Lab(Limits(connections_per_address=1))
    assert [status(knock(lab, "127.0.0.1")) for _ in range(3)] == [101] * 3


def test_pages_take_no_place_and_need_none() -> None:
    lab = Lab(Limits(connections_per_address=1, connections=1))
    assert status(knock(lab)) == 101
    page = lab.peer(1)
    page.transport.arrive(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    lab.run()
    assert status(page) == 200
    assert lab.core.door.tally.total == 1


def test_all_connections() -> None:
    lab = Lab(Limits(connections=2, handshakes_per_second=0))
    first, _, third = (knock(lab, f"198.51.100.{count}") for count in range(3))
    assert status(third) == 503
    assert retry_after(third) == 60
    assert third.session.ended is Ending.FULL
    first.transport.die()
    lab.run()
    assert status(knock(lab)) == 101
    assert status(knock(lab, "127.0.0.1")) == 503  # nobody in particular is somebody here


@pytest.mark.parametrize("off", ["connections", "connections_per_address"])
def test_what_is_switched_off(off: str) -> None:
    limits = {"connections": 2, "connections_per_address": 2, "handshakes_per_second": 0.0, off: 0}
    other = "connections" if off == "connections_per_address" else "connections_per_address"
    lab = Lab(Limits(**{**limits, other: 5}))  # type: ignore[arg-type]
    assert [status(knock(lab)) for _ in range(6)] == [101] * 5 + [503 if other == "connections" else 429]


def test_everything_is_given_back() -> None:
    lab = Lab(Limits(connections=8, connections_per_address=2))
    peers = [knock(lab, f"198.51.100.{count % 3}") for count in range(9)]
    assert lab.core.door.tally.total == 6
    for peer in peers:
        peer.transport.die()
    lab.run()
    lab.check_empty()


# --- Sockets ---------------------------------------------------------------------------------------------------------


def crowded(**more: float) -> Lab:
    """Return a lab with room for four connections, two of which are there and say nothing."""
    lab = Lab(Limits(connections=2, connections_spare=2, handshakes_per_second=0, **more))  # type: ignore[arg-type]
    lab.connect(1, 2)
    return lab


def test_who_connects_and_says_nothing_gives_way_when_old_enough() -> None:
    lab = crowded()
    silent = [lab.peer(10), lab.peer(11)]
    lab.advance(1.0)
    newcomer = lab.peer(12)
    lab.run()
    assert [peer.over for peer in silent] == [True, False]
    assert silent[0].session.ended is Ending.FULL
    assert not newcomer.over
    newcomer.transport.arrive(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    lab.run()
    assert status(newcomer) == 200
    assert endings(lab) == {"full": 1}


def test_while_all_are_young_the_newcomer_goes() -> None:
    lab = crowded()
    silent = [lab.peer(10), lab.peer(11)]
    lab.advance(0.9)
    newcomer = lab.peer(12)
    lab.run()
    assert newcomer.session.phase is Phase.LOST
    assert not any(peer.over for peer in silent)
    assert len(lab.core.connections) == 4


def test_who_has_ended_goes_first() -> None:
    lab = crowded()
    refused = knock(lab)
    assert status(refused) == 503
    silent = lab.peer(11)
    lab.advance(2.0)
    lab.peer(12)
    lab.run()
    assert refused.session.phase is Phase.LOST
    assert not silent.over
    assert len(lab.core.connections) == 4
    assert not lab.core.closing


def test_sockets_stay_bounded_whatever_comes() -> None:
    lab = crowded()
    for _ in range(50):
        lab.peer(20)
        lab.run()
        lab.advance(0.3)
        assert len(lab.core.connections) <= 4
    assert len(lab.core.sessions) == 2


# --- Handshakes ------------------------------------------------------------------------------------------------------


def test_openings_are_refused_while_the_rate_of_handshakes_is_used_up() -> None:
    lab = Lab(Limits(handshakes_burst=1, handshakes_per_second=0.1))
    lab.connect(1)
    refused = knock(lab)
    assert status(refused) == 429
    assert retry_after(refused) == 10
    assert refused.session.ended is Ending.HANDSHAKE_RATE
    lab.advance(4.5)
    assert retry_after(knock(lab)) == 6
    lab.advance(5.5)
    assert status(knock(lab)) == 101


# --- Subscriptions ---------------------------------------------------------------------------------------------------


def keys(start: int, count: int) -> tuple[bytes, ...]:
    return tuple(number.to_bytes(32, "big") for number in range(start, start + count))


def watch(peer: Peer, *x_pubs: bytes) -> int:
    """Subscribe; return how many keys the session watches then."""
    peer.say(c.Subscribe(x_pubs))
    peer.lab.run()
    return len(peer.session.watching or ())


def test_each_session_gets_a_share_of_what_is_free() -> None:
    lab = Lab(Limits(subscriptions_total=256 * 10, handshakes_per_second=0))
    greedy = lab.connect(*range(40))
    got = [watch(peer, *keys(1000 * number, 1000)) for number, peer in enumerate(greedy)]
    assert got[0] == 10
    assert got == sorted(got, reverse=True)
    assert got[-1] == 8  # nobody is left without
    assert lab.core.subscriptions == sum(got)
    assert refusals(lab) == {"subscriptions_full": 40 * 1000 - sum(got)}
    (info,) = greedy[0].of(c.Info)
    assert "10 contacts at most; 990 more" in info.text


def test_subscriptions_are_given_back() -> None:
    lab = Lab(Limits(subscriptions_total=256 * 4, handshakes_per_second=0))
    alice, bob = lab.connect(1, 2)
    assert watch(alice, *keys(0, 4)) == 4
    assert watch(alice, *keys(0, 4)) == 4  # the same again are no more
    assert watch(bob, *keys(0, 4)) == 3
    assert lab.core.subscriptions == 7
    alice.say(c.Unsubscribe((*keys(0, 2), *keys(0, 2), *keys(77, 1))))
    lab.run()
    assert lab.core.subscriptions == 5
    alice.transport.die()
    lab.run()
    assert lab.core.subscriptions == 3
    bob.transport.die()
    lab.run()
    lab.check_empty()


def test_the_bound_of_one_session_comes_first_where_it_is_lower() -> None:
    lab = Lab(Limits(subscriptions=3))
    (alice,) = lab.connect(1)
    assert watch(alice, *keys(0, 5)) == 3
    assert refusals(lab) == {"too_many_subscriptions": 2}


def test_the_total_can_be_switched_off() -> None:
    lab = Lab(Limits(subscriptions_total=0, subscriptions=0))
    (alice,) = lab.connect(1)
    assert watch(alice, *keys(0, 5000)) == 5000
    assert refusals(lab) == {}


# --- Targets ---------------------------------------------------------------------------------------------------------


def test_many_senders_introduce_themselves_to_one_at_a_rate() -> None:
    lab = Lab(Limits(introductions_target_burst=3, introductions_target_per_second=0.5, handshakes_per_second=0))
    target, other, *senders = lab.connect(*range(8))
    for sender in senders:
        sender.say(c.Introduce(target.id, "Mallory"))
    lab.run()
    assert len(target.of(c.IntroFrom)) == 3
    assert refusals(lab) == {"target_rate": 3}
    senders[5].say(c.Introduce(other.id, "Mallory"))
    lab.run()
    assert len(other.of(c.IntroFrom)) == 1
    lab.advance(2.0)
    for sender in senders:
        sender.say(c.Introduce(target.id, "Mallory"))
    lab.run()
    assert len(target.of(c.IntroFrom)) == 4


def test_many_senders_wake_one_at_a_rate_messages_and_calls_apart() -> None:
    limits = Limits(wakes_target_burst=2, wakes_target_per_second=0.1, handshakes_per_second=0)
    lab = Lab(limits, notifier=NOTIFIER)
    notifier, *senders = lab.connect(NOTIFIER, *range(5))
    asleep = identity(50).id
    for type_ in (None, 0, 1, 7):
        for sender in senders:
            sender.say(c.Wake(asleep, type_))
    lab.run()
    # Two for messages (with and without the type), two for everything else.
    assert [wake.type for wake in notifier.of(c.Wake)] == [None, None, 1, 1]
    assert refusals(lab) == {"target_rate": 16}
    senders[0].say(c.Wake(identity(51).id))
    lab.run()
    assert lab.core.counters.wakes == 5
    lab.tick(10)
    senders[1].say(c.Wake(asleep))
    lab.run()
    assert lab.core.counters.wakes == 6


def test_what_one_sender_may_not_is_not_charged_to_the_target() -> None:
    limits = Limits(wakes_pair_burst=1, wakes_target_burst=2, wakes_target_per_second=0.1, handshakes_per_second=0)
    lab = Lab(limits, notifier=NOTIFIER)
    _, mallory, alice = lab.connect(NOTIFIER, 1, 2)
    asleep = identity(50).id
    for _ in range(5):
        mallory.say(c.Wake(asleep))
    alice.say(c.Wake(asleep))
    lab.run()
    assert lab.core.counters.wakes == 2
    assert refusals(lab) == {"rate": 4}


def test_registrations_of_one_sender() -> None:
    lab = Lab(Limits(registrations_burst=2, registrations_per_second=0.1, handshakes_per_second=0), notifier=NOTIFIER)
    notifier, alice, bob = lab.connect(NOTIFIER, 1, 2)
    for _ in range(4):
        alice.say(c.PushRegister(1, b"token"))
    bob.say(c.PushRegister(1, b"token"))
    lab.run()
    assert [forward.sender_id for forward in notifier.of(c.PushForward)] == [alice.id, alice.id, bob.id]
    assert lab.core.counters.refusals[Refusal.RATE] == 2
    lab.advance(10)
    alice.say(c.PushRegister(0, b""))
    lab.run()
    assert len(notifier.of(c.PushForward)) == 4


@pytest.mark.parametrize(
    "off",
    ["introductions_target_per_second", "wakes_target_per_second", "registrations_per_second"],
)
def test_rates_that_are_switched_off(off: str) -> None:
    burst = off.replace("_per_second", "_burst")
    limits = {"handshakes_per_second": 0.0, "wakes_pair_per_second": 0.0, "introductions_pair_per_second": 0.0}
    lab = Lab(Limits(**limits, **{off: 0.0, burst: 1}), notifier=NOTIFIER)  # type: ignore[arg-type]
    notifier, alice, bob = lab.connect(NOTIFIER, 1, 2)
    for _ in range(15):
        alice.say(c.PushRegister(1, b"t")).say(c.Wake(identity(50).id, 1)).say(c.Introduce(bob.id, "A"))
    lab.run()
    told = {
        "registrations_per_second": len(notifier.of(c.PushForward)),
        "wakes_target_per_second": len(notifier.of(c.Wake)),
        "introductions_target_per_second": len(bob.of(c.IntroFrom)),
    }
    assert told[off] == 15


# --- Rates of a session, which are paid by waiting --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "held"),
    [
        ({"frames_burst": 5, "frames_per_second": 10.0}, Held.FRAMES),
        ({"bytes_burst": 1000, "bytes_per_second": 1000.0}, Held.BYTES),
        ({"commands_burst": 2, "commands_per_second": 5.0}, Held.COMMANDS),
        ({"refusals_burst": 2, "refusals_per_second": 5.0}, Held.REFUSALS),
    ],
    ids=str,
)
def test_who_spends_too_fast_waits_and_is_counted(limits: dict[str, float], held: Held) -> None:
    lab = Lab(Limits(handshakes_per_second=0, **limits))  # type: ignore[arg-type]
    alice, bob = lab.connect(1, 2)
    for _ in range(8):
        alice.send(bob, 200)
        alice.send(b"nobody..")
        alice.say(c.Unsubscribe(()))
    lab.run()
    assert alice.session.held
    assert [each for each, count in lab.core.counters.held.items() if count] == [held]
    lab.advance(30.0)
    assert not alice.session.held
    assert len(bob.delivered) == len(alice.nacked) == 8
    assert not bob.session.held


def test_refusals_that_wait_for_their_pace_go_on_when_it_is_switched_off() -> None:
    limits = Limits(handshakes_per_second=0, refusals_burst=4, refusals_per_second=1.0)
    lab = Lab(limits)
    alice, bob = lab.connect(1, 2)
    bob.stall()
    alice.send(bob)
    lab.run()
    alice.send_many(bob, 200)
    lab.run()
    bob.transport.die()
    lab.run()
    assert alice.session.refusals
    assert len(alice.nacked) < 200
    lab.core.change_limits(replace(limits, refusals_per_second=0.0))
    lab.advance(5.0)
    assert len(alice.nacked) == 200
    assert not alice.session.held


# --- Requests ---------------------------------------------------------------------------------------------------------


def test_a_request_beyond_the_limit_is_refused_though_it_came_whole() -> None:
    lab = Lab()
    peer = lab.peer(1)
    peer.transport.arrive(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 5000 + b"\r\n")
    lab.run()
    assert status(peer) == 431
    assert endings(lab) == {}
    peer.transport.hang_up()
    lab.run()
    assert endings(lab) == {"bad_request": 1}


def test_a_request_with_very_many_fields_is_none() -> None:
    lab = Lab()
    peer = lab.peer(1)
    peer.transport.arrive(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 300 + b"\r\n")
    lab.run()
    assert status(peer) == 431


def test_who_hung_up_before_it_was_looked_at_is_nobody() -> None:
    """Its socket has no name any more, so nobody would be counted for the handshake that it sent."""
    lab = Lab()
    peer = lab.peer(1)
    peer.transport.forget_peer()
    peer.transport.arrive(upgrade("/ws", "X-Forwarded-For: 203.0.113.77") + client_frame(peer.wire.hello()))
    lab.run()
    assert status(peer) == 400
    assert not lab.core.sessions
    assert len(lab.core.handshake_rate) == 0
