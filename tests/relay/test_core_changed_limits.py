"""Limits that change under live sessions: in force for all of them, and nobody is dropped by it."""

from collections import OrderedDict, deque
from dataclasses import fields, replace
from typing import Any, Final

import pytest

from relay.core import Core
from relay.limits import KIB, MIB, Limits
from relay.reasons import Ending
from tests.relay.crowds import SMALL, fill, refusals, stalled, watch
from tests.relay.harness import Lab, client_frame, hang_up_all, identity, upgrade
from tests.relay.loop import Loop
from tests.wire.pair import SERVER, Counted
from wire import commands as c

BASE: Final = Limits(handshakes_per_second=0)


def change(lab: Lab, **limits: Any) -> None:
    """Change limits of a lab, and let what follows from it happen."""
    lab.core.change_limits(replace(lab.core.limits, **limits))
    lab.run()


def settle(lab: Lab, seconds: int) -> None:
    for _ in range(seconds):
        lab.tick()


# --- Every limit reaches whatever holds it ---------------------------------------------------------------------------


def state(thing: object, seen: set[int] | None = None) -> Any:
    """Return all that an object of the relay holds, down to plain values, without random secrets and the loop."""
    seen = set() if seen is None else seen
    if isinstance(thing, int | float | str | bytes | bool | type(None)):
        return thing
    if id(thing) in seen:
        return "…"
    seen.add(id(thing))
    if isinstance(thing, dict | OrderedDict):
        return {repr(state(key, seen)): state(value, seen) for key, value in thing.items()}
    if isinstance(thing, list | tuple | set | frozenset | deque):
        return [state(each, seen) for each in thing]
    if not type(thing).__module__.startswith("relay."):
        return type(thing).__name__
    names = [*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())]
    return {
        name: state(getattr(thing, name), seen)
        for name in names
        if hasattr(thing, name) and name not in ("_secret", "identity", "random")
    }


def core(limits: Limits) -> tuple[Core, Loop]:
    loop = Loop()
    return Core(loop.asyncio, SERVER, limits, random=Counted("relay")), loop


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_relay_whose_limit_changed_is_as_one_that_was_started_with_it(name: str, factor: float) -> None:
    """Whoever copies a limit at its making has to be told of its change: this finds the one that is not."""
    value = getattr(BASE, name) or 20.0
    changes: dict[str, Any] = {name: type(value)(value * factor)}
    other = replace(BASE, **changes)
    changed, loop = core(BASE)
    changed.change_limits(other)
    loop.run()
    loop.now += 1000.0
    changed.settle_limits(loop.now)
    fresh, its_loop = core(other)
    its_loop.now = loop.now
    assert changed.limits == other
    assert state(changed) == state(fresh)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_session_whose_limits_changed_is_as_one_that_came_after(factor: float) -> None:
    names = ("frames_burst", "bytes_burst", "commands_burst", "refusals_burst", "flush_size")
    other = {name: int(getattr(BASE, name) * factor) for name in names}
    lab = Lab(BASE)
    (alice,) = lab.connect(1)
    alice.say(c.Unsubscribe(()))
    alice.send(identity(9).id)
    lab.run()
    change(lab, **other)
    assert alice.session.outbox.room == other["flush_size"]
    assert alice.session.frames_left <= other["frames_burst"]
    assert alice.session.bytes_left <= other["bytes_burst"]
    for allowance in (alice.session.commands_left, alice.session.refusals_left):
        assert allowance is not None
        kind = "commands_burst" if allowance is alice.session.commands_left else "refusals_burst"
        assert allowance._burst == other[kind]


# --- Rates of a session ----------------------------------------------------------------------------------------------


def test_a_rate_that_is_switched_on_holds_who_is_there_already() -> None:
    lab = Lab(replace(BASE, frames_per_second=0))
    alice, bob = lab.connect(1, 2)
    alice.send_many(bob, 100)
    lab.run()
    change(lab, frames_per_second=10, frames_burst=5)
    alice.send_many(bob, 10)
    late = alice.send(bob)
    lab.run()
    assert not alice.transport.reading
    assert len(bob.delivered) == 110
    lab.advance(2.0)
    assert bob.delivered[-1] == late


@pytest.mark.parametrize("rate", [0, 1000])
def test_who_is_held_for_a_debt_is_let_go_when_the_rate_allows_it(rate: float) -> None:
    lab = Lab(replace(BASE, frames_per_second=0.01, frames_burst=5))
    alice, bob = lab.connect(1, 2)
    alice.send_many(bob, 10)
    late = alice.send(bob)
    lab.run()
    lab.advance(5.0)
    assert late not in bob.delivered
    change(lab, frames_per_second=rate)
    lab.advance(0.1)
    assert bob.delivered[-1] == late
    assert alice.transport.reading


def test_a_debt_stays_one_when_the_rate_falls() -> None:
    lab = Lab(replace(BASE, frames_per_second=1, frames_burst=5))
    alice, bob = lab.connect(1, 2)
    alice.send_many(bob, 10)
    lab.run()
    change(lab, frames_per_second=0.1)
    alice.send(bob)
    lab.advance(10.0)
    late = alice.send(bob)
    lab.advance(30.0)
    assert late not in bob.delivered
    lab.advance(60.0)
    assert bob.delivered[-1] == late


@pytest.mark.parametrize("name", ["commands", "refusals"])
def test_the_rates_of_what_costs_seals(name: str) -> None:
    lab = Lab(Limits(**{"handshakes_per_second": 0, f"{name}_per_second": 0}))
    (alice,) = lab.connect(1)

    def act() -> None:
        if name == "refusals":
            alice.send(identity(9).id)
        else:
            alice.say(c.Subscribe((identity(8).public.x_pub,)))
        lab.run()

    act()
    change(lab, **{f"{name}_per_second": 0.1, f"{name}_burst": 2})
    for _ in range(3):
        act()
    assert not alice.transport.reading
    change(lab, **{f"{name}_per_second": 0})
    lab.advance(0.1)
    assert alice.transport.reading


def test_who_is_held_for_a_debt_waits_for_what_is_left_of_it_at_the_new_rate() -> None:
    lab = Lab(replace(BASE, refusals_per_second=0.001, refusals_burst=2))
    (alice,) = lab.connect(1)
    alice.send_many(identity(9).id, 3)
    lab.run()
    change(lab, refusals_per_second=0.1)
    lab.advance(9.0)
    assert not alice.transport.reading
    lab.advance(2.0)
    assert alice.transport.reading


# --- Rates of addresses, senders, keys -------------------------------------------------------------------------------


def test_the_rate_of_handshakes_from_an_address() -> None:
    lab = Lab(replace(BASE, handshakes_per_second=0.001, handshakes_burst=1))
    lab.connect(1)
    late = lab.peer(2).open()
    lab.run()
    assert late.session.ended is Ending.HANDSHAKE_RATE
    change(lab, handshakes_per_second=0)
    lab.connect(3, 4)
    change(lab, handshakes_per_second=0.001, handshakes_burst=1)
    last = lab.peer(5).open()
    lab.run()
    assert last.session.ended is Ending.HANDSHAKE_RATE


def test_presence_that_waits_is_told_when_the_rate_allows_it() -> None:
    lab = Lab(replace(BASE, presence_per_second=0.0001, presence_burst=1))
    alice, bob = lab.connect(1, 2)
    watch(alice, bob)
    bob.transport.die()
    lab.run()
    assert alice.presence == [(False, bob.public.x_pub)]
    lab.connect(2)
    settle(lab, 60)
    assert len(alice.presence) == 1
    change(lab, presence_per_second=1.0)
    settle(lab, 3)
    assert alice.presence[1:] == [(True, bob.public.x_pub)]


def test_replay_memory_that_becomes_smaller_forgets_the_oldest() -> None:
    lab = Lab(BASE)
    hellos = {}
    for number in range(1, 21):
        peer = lab.peer(number)
        hellos[number] = peer.wire.hello()
        peer.transport.arrive(upgrade() + client_frame(hellos[number]))
        lab.run()
    change(lab, replay_keys=4)
    assert len(lab.core.handshakes_seen) == 4
    for number, ending in ((1, None), (20, Ending.REPLAYED_HANDSHAKE)):
        again = lab.peer(number)
        again.transport.arrive(upgrade() + client_frame(hellos[number]))
        lab.run()
        assert again.session.ended is ending


# --- What waits for recipients ---------------------------------------------------------------------------------------


def test_a_total_that_shrinks_below_what_waits_drops_nobody_and_nothing() -> None:
    lab = Lab(SMALL)
    alice, *readers = lab.connect(*range(1, 5))
    queued = {peer.id: fill(alice, stalled(peer, alice), 18 * KIB) for peer in readers}
    used = lab.core.budget.used
    assert used > 40 * KIB
    change(lab, queue_size=8 * KIB, queue_total=8 * KIB, queue_share=2 * KIB, flush_size=2 * KIB)
    settle(lab, 3)
    assert not any(peer.over for peer in readers)
    assert refusals(lab) == {}
    assert lab.core.budget.used <= lab.core.limits.queue_total <= used
    # By its own bound a queue takes no more ...
    more = fill(alice, readers[0], KIB)
    assert alice.nacked == more
    # ... and as they are read the total comes down to what was asked for.
    for peer in readers[:2]:
        peer.resume()
    settle(lab, 1)
    for peer in readers[:2]:
        assert peer.delivered[1:] == queued[peer.id]
    assert lab.core.limits.queue_total == lab.core.budget.used
    readers[2].resume()
    settle(lab, 1)
    assert lab.core.limits.queue_total == 8 * KIB
    assert readers[2].delivered[1:] == queued[readers[2].id]
    hang_up_all([alice, *readers])
    lab.run()
    lab.check_empty()


def test_sockets_that_are_full_are_not_ended_for_a_smaller_total() -> None:
    """All that waits is in the transports, where nothing can be taken back: the only way to shed it is to hang up."""
    lab = Lab(replace(SMALL, flush_size=16 * KIB))
    alice, *readers = lab.connect(*range(1, 6))
    for peer in readers:
        peer.stall()
        alice.send_many(peer, 10, KIB)
    lab.run()
    change(lab, flush_size=KIB, queue_size=KIB, queue_share=KIB, queue_total=KIB)
    settle(lab, 5)
    assert not any(peer.over for peer in readers)
    assert lab.core.budget.used > 30 * KIB
    for peer in readers:
        peer.resume()
    settle(lab, 1)
    assert lab.core.limits.queue_total == KIB
    assert all(len(peer.delivered) == 10 for peer in readers)


def test_a_queue_that_may_be_longer_takes_more() -> None:
    lab = Lab(SMALL)
    alice, bob = lab.connect(1, 2)
    fill(alice, stalled(bob, alice), 40 * KIB)
    refused = len(alice.nacked)
    assert refused > 0
    change(lab, queue_size=60 * KIB, queue_total=MIB)
    fill(alice, bob, 20 * KIB)
    assert len(alice.nacked) == refused


def test_room_that_was_granted_is_taken_back_when_a_queue_may_be_no_longer() -> None:
    lab = Lab(SMALL)
    alice, bob = lab.connect(1, 2)
    fill(alice, stalled(bob, alice), 10 * KIB)
    assert bob.session.outbox.granted == SMALL.queue_size
    change(lab, queue_size=12 * KIB, flush_size=8 * KIB)
    outbox = bob.session.outbox
    assert outbox.room == outbox.granted - outbox.in_transport
    fill(alice, bob, 4 * KIB)
    assert len(alice.nacked) == 3
    assert outbox.untaken <= 12 * KIB


def test_a_flush_size_reaches_live_sessions_stalled_or_not() -> None:
    lab = Lab(SMALL)
    alice, bob, carol = lab.connect(1, 2, 3)
    stalled(carol, alice)
    change(lab, flush_size=KIB)
    assert bob.session.outbox.room == KIB
    carol.resume()
    lab.run()
    assert carol.session.outbox.room == KIB
    nonces = fill(alice, bob, 8 * KIB)
    assert bob.delivered == nonces


def test_a_very_old_queue_has_the_new_age_from_the_change_on() -> None:
    lab = Lab(replace(SMALL, queue_age=600))
    alice, bob, carol = lab.connect(1, 2, 3)
    stalled(bob, alice)
    settle(lab, 100)
    change(lab, queue_age=30)
    settle(lab, 29)
    assert not bob.over
    stalled(carol, alice)
    settle(lab, 2)
    assert bob.session.ended is Ending.STALLED
    assert not carol.over
    settle(lab, 30)
    assert carol.session.ended is Ending.STALLED


# --- Silence, openings, unfinished messages --------------------------------------------------------------------------


def sweep(lab: Lab, seconds: int) -> None:
    """Let time pass with all that the pulse does."""
    for _ in range(seconds):
        lab.tick()
        for session in list(lab.core.sessions.values()):
            lab.pulse.look(session, lab.loop.now, b"12345678")
        lab.run()


def test_who_was_silent_for_longer_than_is_now_allowed_is_asked_first() -> None:
    lab = Lab(replace(BASE, ping_after=100, silent_after=300))
    alice, dead = lab.connect(1, 2)
    dead.answers_pings = False
    sweep(lab, 90)
    change(lab, ping_after=5, silent_after=12)
    sweep(lab, 11)
    assert not alice.over
    assert not dead.over
    sweep(lab, 3)
    assert dead.session.ended is Ending.SILENT
    assert not alice.over
    sweep(lab, 60)
    assert not alice.over


def test_a_connection_that_opens_has_the_new_time_from_the_change_on() -> None:
    lab = Lab(replace(BASE, opening_deadline=100))
    early = lab.peer(1)
    settle(lab, 50)
    change(lab, opening_deadline=10)
    settle(lab, 9)
    assert not early.over
    settle(lab, 2)
    assert early.session.ended is Ending.SLOW_OPENING


def test_unfinished_messages_are_not_ended_for_a_smaller_pool() -> None:
    lab = Lab(replace(BASE, partial_free=KIB, partial_total=MIB, partial_grace=1.0))
    slow, other, late = lab.connect(1, 2, 3)
    head = client_frame(bytes(300 * KIB))
    for peer in (slow, other):
        peer.transport.arrive(head[: 100 * KIB])
    lab.run()
    assert lab.core.partial_used > 200 * KIB
    settle(lab, 5)
    change(lab, partial_total=64 * KIB)
    settle(lab, 5)
    assert not slow.over
    assert not other.over
    for peer in (slow, other):
        peer.transport.arrive(head[100 * KIB :])
    lab.run()
    settle(lab, 1)
    assert not slow.over
    assert not other.over
    assert lab.core.partial_used == 0
    assert lab.core.limits.partial_total == 64 * KIB
    assert not late.over


# --- The change itself -----------------------------------------------------------------------------------------------


def test_what_is_watched_stays_watched_when_fewer_may_be() -> None:
    lab = Lab(BASE)
    alice, bob = lab.connect(1, 2)
    watch(alice, bob)
    alice.say(c.Subscribe(tuple(identity(number).public.x_pub for number in range(10, 15))))
    lab.run()
    change(lab, subscriptions=2)
    bob.transport.die()
    lab.run()
    assert alice.presence == [(False, bob.public.x_pub)]
    alice.news()
    alice.say(c.Subscribe((identity(20).public.x_pub,)))
    lab.run()
    assert refusals(lab)["too_many_subscriptions"] == 1


def test_thousands_of_sessions_are_changed_in_slices() -> None:
    lab = Lab(BASE, unit=0.01)
    peers = lab.connect(*range(1, 301))
    lab.core.change_limits(replace(BASE, frames_burst=7))
    lab.loop.turn()
    changed = sum(peer.session.frames_left == 7 for peer in peers)
    assert 0 < changed < len(peers)
    peers[-1].transport.die()
    # Another change while the first goes on: the last one counts for all.
    lab.core.change_limits(replace(BASE, frames_burst=5))
    lab.run()
    assert all(peer.session.frames_left == 5 for peer in peers[:-1])


def test_a_change_back_before_it_was_settled() -> None:
    lab = Lab(BASE)
    change(lab, silent_after=20, queue_total=16 * MIB)
    assert lab.core.limits.silent_after == BASE.silent_after
    lab.core.change_limits(BASE)
    lab.run()
    assert lab.core.limits == BASE
    settle(lab, 100)
    assert lab.core.limits == BASE


def test_the_slice_stays_endless_while_the_relay_stops() -> None:
    lab = Lab(BASE, unit=1.0)
    lab.core.turns.postpone_no_more()
    change(lab, slice=0.001)
    lab.core.turns.late()
    assert not lab.core.turns.late()
