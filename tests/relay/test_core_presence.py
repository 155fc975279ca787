"""Who is told of whom, with sessions."""

from typing import Final

import pytest

from relay.limits import Limits
from relay.reasons import Refusal
from tests.relay.harness import Lab, Peer, identity
from tests.wire.pair import Counted
from wire import commands as c

LIMITS: Final = Limits(handshakes_per_second=0)


@pytest.fixture
def lab() -> Lab:
    return Lab(LIMITS)


def key(who: int) -> bytes:
    return identity(who).public.x_pub


def watch(peer: Peer, *keys: bytes) -> list[c.ServerBody]:
    """Subscribe; return what the relay said to that."""
    peer.news()
    peer.say(c.Subscribe.of(keys))
    peer.lab.run()
    return [body for body in peer.news() if isinstance(body, c.PeerOnline | c.PeerOffline | c.Info)]


def leave(peer: Peer) -> None:
    peer.close()
    peer.lab.run()


def told(peer: Peer) -> list[tuple[bool, bytes]]:
    presence = peer.presence
    peer.news()
    return presence


# --- Subscribing -----------------------------------------------------------------------------------------------------


def test_a_subscription_is_answered_at_once_with_those_who_are_there(lab: Lab) -> None:
    alice, _, _ = lab.connect(1, 2, 3)
    assert watch(alice, key(2), key(9), key(3)) == [c.PeerOnline((key(2), key(3)))]


def test_where_nobody_is_there_nothing_is_said(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    assert watch(alice, key(8), key(9)) == []
    assert watch(alice) == []


def test_it_goes_by_the_whole_key(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    almost = key(2)[:8] + key(3)[8:]
    assert watch(alice, almost) == []
    leave(bob)
    assert told(alice) == []


def test_coming_and_going_is_told(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    watch(alice, key(2))
    leave(bob)
    assert told(alice) == [(False, key(2))]
    lab.connect(2)
    assert told(alice) == [(True, key(2))]


def test_those_who_did_not_ask_are_not_told(lab: Lab) -> None:
    alice, bob, carol = lab.connect(1, 2, 3)
    watch(alice, key(2))
    leave(bob)
    assert carol.news() == []


def test_one_watches_oneself_like_anybody(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    assert watch(alice, key(1)) == [c.PeerOnline((key(1),))]


def test_unsubscribing(lab: Lab) -> None:
    alice, bob, carol = lab.connect(1, 2, 3)
    watch(alice, key(2), key(3))
    alice.say(c.Unsubscribe((key(2), key(9))))
    lab.run()
    leave(bob)
    leave(carol)
    assert told(alice) == [(False, key(3))]
    alice.say(c.Unsubscribe((key(3),)))
    lab.run()
    assert lab.core.presence.watched == 0
    alice.say(c.Unsubscribe((key(3),)))
    lab.run()
    assert not alice.over


def test_unsubscribing_takes_back_what_was_about_to_be_told(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    watch(alice, key(2))
    alice.stall()
    bob.send(alice)
    lab.run()
    leave(bob)
    alice.say(c.Unsubscribe((key(2),)))
    lab.run()
    alice.resume()
    lab.run()
    assert told(alice) == []


def test_subscribing_twice_counts_once(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    watch(alice, key(2), key(2))
    assert watch(alice, key(2)) == [c.PeerOnline((key(2),))]
    leave(bob)
    assert told(alice) == [(False, key(2))]


def test_a_contact_list_has_an_end() -> None:
    lab = Lab(Limits(subscriptions=3, handshakes_per_second=0))
    alice, *_ = lab.connect(*range(1, 7))
    assert watch(alice, key(2), key(3)) == [c.PeerOnline((key(2), key(3)))]
    answer = watch(alice, key(4), key(2), key(5), key(6))
    notice = next(body for body in answer if isinstance(body, c.Info))
    assert "3 contacts" in notice.text
    assert "2 more" in notice.text
    assert c.PeerOnline((key(4), key(2))) in answer
    assert lab.core.presence.watched == 3
    assert lab.core.counters.refusals[Refusal.TOO_MANY_SUBSCRIPTIONS] == 2
    alice.say(c.Unsubscribe((key(2),)))
    lab.run()
    assert watch(alice, key(6)) == [c.PeerOnline((key(6),))]


def test_the_limit_can_be_switched_off() -> None:
    lab = Lab(Limits(subscriptions=0, handshakes_per_second=0))
    (alice,) = lab.connect(1)
    random = Counted("many")
    assert watch(alice, *(random(32) for _ in range(3000))) == []
    assert lab.core.presence.watched == 3000


# --- Gathered and damped ---------------------------------------------------------------------------------------------


def test_changes_of_one_turn_are_told_in_one_frame(lab: Lab) -> None:
    alice, *others = lab.connect(*range(1, 12))
    watch(alice, *(other.public.x_pub for other in others))
    for other in others:
        other.close()
    lab.run()
    (body,) = alice.news()
    assert isinstance(body, c.PeerOffline)
    assert sorted(body.x_pubs) == sorted(other.public.x_pub for other in others)


def test_a_replaced_session_is_told_as_gone_and_come(lab: Lab) -> None:
    alice, _ = lab.connect(1, 2)
    watch(alice, key(2))
    lab.connect(2)
    assert alice.news() == [c.PeerOffline((key(2),)), c.PeerOnline((key(2),))]


def test_flapping_is_told_at_its_rate_and_the_truth_in_the_end() -> None:
    lab = Lab(Limits(presence_burst=2, presence_per_second=0.1, handshakes_per_second=0, replay_ring=1000))
    lab.pulse.start()
    (alice,) = lab.connect(1)
    watch(alice, key(2))
    for _ in range(60):
        (bob,) = lab.connect(2)
        lab.advance(0.5)
        leave(bob)
        lab.advance(0.5)
    frames = [body for body in alice.news() if isinstance(body, c.PeerOnline | c.PeerOffline)]
    # Two of the burst, then one announcement in ten seconds, of two frames at most.
    assert len(frames) <= 2 + 2 * 7
    lab.connect(2)
    lab.advance(21.0)
    assert told(alice)[-1] == (True, key(2))


def test_presence_waits_for_a_reader_that_does_not_read_and_then_tells_the_truth(lab: Lab) -> None:
    alice, bob, carol = lab.connect(1, 2, 3)
    watch(alice, key(2), key(3))
    alice.stall()
    carol.send(alice)
    lab.run()
    leave(bob)
    leave(carol)
    lab.connect(3)
    alice.resume()
    lab.run()
    assert told(alice) == [(False, key(2)), (False, key(3)), (True, key(3))]


def test_nobody_is_told_of_somebody_who_came_and_went_again() -> None:
    lab = Lab(Limits(presence_burst=1, handshakes_per_second=0))
    alice, bob = lab.connect(1, 2)
    watch(alice, key(9))
    alice.stall()
    bob.send(alice)
    lab.run()
    (other,) = lab.connect(9)  # told at once: it waits for Alice to read
    leave(other)  # damped: its turn comes later
    alice.resume()
    lab.run()
    assert told(alice) == []
    lab.tick(30)
    assert told(alice) == [(False, key(9))]


def test_who_unsubscribes_while_others_are_told_is_not_told() -> None:
    lab = Lab(Limits(handshakes_per_second=0, slice=1 / 256), unit=1 / 256)
    star, *watchers = lab.connect(*range(1, 152))
    for watcher in watchers:
        watcher.say(c.Subscribe((star.public.x_pub,)))
    lab.run()
    star.transport.die()
    for _ in range(3):
        lab.loop.turn()
    watchers[-1].news()
    watchers[-1].say(c.Unsubscribe((star.public.x_pub,)))
    lab.run()
    assert watchers[-1].news() == []
    assert watchers[-2].presence[-1] == (False, star.public.x_pub)


def test_a_watcher_that_left_is_not_told(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    watch(alice, key(2))
    bob.close()
    alice.transport.die()
    lab.run()
    lab.tick(10)
    assert lab.core.presence.watched == 0


def test_while_the_relay_stops_nobody_is_told_that_all_go(lab: Lab) -> None:
    alice, bob = lab.connect(1, 2)
    watch(alice, key(2))
    lab.core.draining = True
    leave(bob)
    assert told(alice) == []


# --- Ten thousand ----------------------------------------------------------------------------------------------------


def test_a_key_that_ten_thousand_watch_is_told_in_slices() -> None:
    """Each look at the clock costs a quarter of a slice: no turn may seal for more than a few watchers."""
    lab = Lab(Limits(handshakes_per_second=0, connections_per_address=0, slice=1 / 256), unit=1 / 1024)
    (star,) = lab.connect(100_000)
    watchers = [lab.peer(number).open() for number in range(10_000)]
    lab.run()
    command = c.Subscribe((star.public.x_pub,))
    for watcher in watchers:
        # Opened without a look at what came: 20,000 signatures less to check.
        watcher.message(watcher.command(command)).raw.clear()
    lab.run()
    assert all(len(watcher.raw) == 1 for watcher in watchers)
    told_before = lab.core.counters.presence_told
    star.transport.die()
    lab.loop.turn()
    most = 0
    while lab.loop.ready:
        before = lab.core.counters.presence_told
        lab.loop.turn()
        most = max(most, lab.core.counters.presence_told - before)
    assert lab.core.counters.presence_told - told_before == 10_000
    assert all(len(watcher.raw) == 2 for watcher in watchers)
    assert most <= 4
