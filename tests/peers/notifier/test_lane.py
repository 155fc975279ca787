"""The pushes of one channel, in virtual time: what is coalesced, capped, dropped and given up."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from peers.notifier.channel import Outcome, Push, Result
from peers.notifier.limits import Limits
from tests.peers.notifier.rig import Rig, passes
from tests.peers.notifier.scripted import CALL, MESSAGE, SENT, answers, device
from tests.support.virtual_time import in_virtual_time

HOUR = 3600.0


# --- Messages --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_first_message_is_pushed_at_once() -> None:
    rig = Rig()
    rig.lane.wake(device(), MESSAGE)
    await passes(0)
    (taken,) = rig.channel.taken
    assert (taken.token, taken.push) == (b"phone", Push(MESSAGE, 86400))
    assert rig.times == [0]
    assert rig.ledger.told == [("worked", b"phone")]
    assert rig.figure("pushes_total", channel="fcm", type="message", outcome="sent") == 1


@in_virtual_time
async def test_wakes_just_after_a_push_are_covered_by_it() -> None:
    rig = Rig()
    for _ in range(10):
        rig.lane.wake(device(), MESSAGE)
        await passes(0.99)
    await passes(HOUR)
    assert rig.times == [0]
    assert rig.skipped(MESSAGE, "coalesced") == 9


@in_virtual_time
async def test_a_later_wake_in_the_window_has_one_push_at_its_end() -> None:
    rig = Rig()
    rig.lane.wake(device(), MESSAGE)
    await passes(11)
    for _ in range(15):
        rig.lane.wake(device(), MESSAGE)
        await passes(1)
    await passes(HOUR)
    assert rig.times == [0, 30]


@in_virtual_time
async def test_where_the_push_covers_the_whole_window_there_is_none_at_its_end() -> None:
    rig = Rig(limits=Limits(covered_for=30))
    rig.lane.wake(device(), MESSAGE)
    await passes(29)
    rig.lane.wake(device(), MESSAGE)
    await passes(2)
    rig.lane.wake(device(), MESSAGE)
    await passes(HOUR)
    assert rig.times == [0, 31]


@in_virtual_time
async def test_never_more_than_one_message_push_in_a_window_whatever_comes() -> None:
    rig = Rig()
    for _ in range(3000):
        rig.lane.wake(device(), MESSAGE)
        await passes(0.1)
    assert len(rig.times) == 10
    assert all(later - earlier > 29.999 for earlier, later in itertools.pairwise(rig.times))


@in_virtual_time
async def test_devices_do_not_share_windows() -> None:
    rig = Rig()
    for name in ("phone", "tablet", "phone", "tablet"):
        rig.lane.wake(device(name), MESSAGE)
    await passes(HOUR)
    assert rig.channel.tokens == [b"phone", b"tablet"]


@in_virtual_time
async def test_a_wake_while_its_push_fails_is_not_lost() -> None:
    rig = Rig(answers(Outcome(Result.RETRY), Outcome(Result.RETRY)))
    rig.lane.wake(device(), MESSAGE)
    await passes(0.1)
    rig.lane.wake(device(), MESSAGE)
    await passes(HOUR)
    assert len(rig.times) == 3
    assert rig.figure("pushes_total", channel="fcm", type="message", outcome="sent") == 1


@in_virtual_time
async def test_a_push_service_keeps_a_late_message_for_less_long() -> None:
    rig = Rig(answers(Outcome(Result.RETRY, 100.0)))
    rig.lane.wake(device(), MESSAGE)
    await passes(HOUR)
    first, second = rig.channel.taken
    assert first.push.ttl == 86400
    assert 86400 - 111 <= second.push.ttl <= 86400 - 100


# --- Calls -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_every_call_rings() -> None:
    rig = Rig()
    rig.lane.wake(device(), MESSAGE)
    for _ in range(3):
        rig.lane.wake(device(), CALL)
        await passes(1)
    assert [each.push.type for each in rig.channel.taken] == [MESSAGE, CALL, CALL, CALL]
    assert {each.push.ttl for each in rig.channel.taken if each.push.type is CALL} == {30}


@in_virtual_time
async def test_calls_are_capped_each_minute() -> None:
    rig = Rig(limits=Limits(calls_per_minute=4))
    for _ in range(180):
        rig.lane.wake(device(), CALL)
        await passes(1)
    assert len(rig.times) == 12
    assert rig.skipped(CALL, "capped") == 168
    for start in range(120):
        assert sum(start <= at < start + 60 for at in rig.times) <= 4


@in_virtual_time
async def test_a_call_is_not_tried_longer_than_it_rings() -> None:
    async def broken(_token: bytes, _push: Push) -> Outcome:
        return Outcome(Result.RETRY)

    rig = Rig(broken)
    rig.lane.wake(device(), CALL)
    await passes(HOUR)
    assert len(rig.times) > 5
    assert max(rig.times) < 30
    assert rig.skipped(CALL, "expired") == 1
    ttls = [each.push.ttl for each in rig.channel.taken]
    assert ttls == sorted(ttls, reverse=True)
    assert min(ttls) >= 1


@in_virtual_time
async def test_calls_go_before_messages() -> None:
    gate = asyncio.Event()

    async def held(_token: bytes, _push: Push) -> Outcome:
        await gate.wait()
        return SENT

    rig = Rig(held, workers=1)
    for number in range(5):
        rig.lane.wake(device(f"message {number}"), MESSAGE)
    await passes(0)
    rig.lane.wake(device("call"), CALL)
    gate.set()
    await passes(1)
    assert rig.channel.tokens[:3] == [b"message 0", b"call", b"message 1"]


@in_virtual_time
async def test_a_call_that_waits_takes_the_next_one_along() -> None:
    gate = asyncio.Event()

    async def held(_token: bytes, _push: Push) -> Outcome:
        await gate.wait()
        return SENT

    rig = Rig(held, workers=1)
    rig.lane.wake(device("other"), CALL)
    await passes(0)
    for _ in range(3):
        rig.lane.wake(device(), CALL)
    gate.set()
    await passes(1)
    assert rig.channel.tokens == [b"other", b"phone"]
    assert rig.skipped(CALL, "coalesced") == 2


# --- Bounds ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_so_many_at_once_and_no_more() -> None:
    async def slow(_token: bytes, _push: Push) -> Outcome:
        await asyncio.sleep(1)
        return SENT

    rig = Rig(slow, workers=8)
    for number in range(80):
        rig.lane.wake(device(f"phone {number}"), MESSAGE)
    await passes(HOUR)
    assert rig.channel.most_at_once == 8
    assert len(set(rig.channel.tokens)) == 80
    assert rig.times[-1] == pytest.approx(9)


@in_virtual_time
async def test_ten_thousand_wakes_at_once_lose_none() -> None:
    async def slow(_token: bytes, _push: Push) -> Outcome:
        await asyncio.sleep(0.2)
        return SENT

    rig = Rig(slow, workers=32)
    for number in range(10_000):
        rig.lane.wake(device(f"phone {number}"), CALL if number % 10 == 0 else MESSAGE)
    await passes(HOUR)
    assert len(set(rig.channel.tokens)) == len(rig.channel.tokens) == 10_000
    assert rig.lane.queued == 0


@in_virtual_time
async def test_of_too_many_the_oldest_message_gives_way_and_no_call() -> None:
    gate = asyncio.Event()

    async def held(_token: bytes, _push: Push) -> Outcome:
        await gate.wait()
        return SENT

    rig = Rig(held, workers=1, limits=Limits(queue=16))
    rig.lane.wake(device("under way"), MESSAGE)
    await passes(0)
    for number in range(8):
        rig.lane.wake(device(f"call {number}"), CALL)
    for number in range(12):
        rig.lane.wake(device(f"message {number}"), MESSAGE)
    assert rig.lane.queued == 16
    assert rig.skipped(MESSAGE, "dropped") == 4
    for number in range(8, 18):
        rig.lane.wake(device(f"call {number}"), CALL)
    assert rig.lane.waiting(CALL) == 16  # two calls more than fit put the oldest calls out
    assert (rig.skipped(MESSAGE, "dropped"), rig.skipped(CALL, "dropped")) == (12, 2)
    rig.lane.wake(device("late"), MESSAGE)
    assert rig.skipped(MESSAGE, "dropped") == 13
    gate.set()
    await passes(HOUR)
    assert rig.channel.tokens == [b"under way", *(b"call %d" % number for number in range(2, 18))]


@in_virtual_time
async def test_a_dropped_message_can_be_asked_for_again() -> None:
    gate = asyncio.Event()

    async def held(_token: bytes, _push: Push) -> Outcome:
        await gate.wait()
        return SENT

    rig = Rig(held, workers=1, limits=Limits(queue=16))
    for number in range(18):
        rig.lane.wake(device(f"phone {number}"), MESSAGE)
        await passes(0)
    assert rig.skipped(MESSAGE, "dropped") == 1
    gate.set()
    await passes(1)
    rig.lane.wake(device("phone 1"), MESSAGE)
    await passes(1)
    assert sorted(rig.channel.tokens) == sorted(b"phone %d" % number for number in range(18))


@in_virtual_time
async def test_what_is_over_is_forgotten() -> None:
    rig = Rig()
    for number in range(100):
        rig.lane.wake(device(f"phone {number}"), MESSAGE)
        rig.lane.wake(device(f"phone {number}"), CALL)
    await passes(31)
    rig.lane.sweep()
    assert rig.lane.devices == 100, "calls count for a minute"
    await passes(30)
    rig.lane.wake(device("new"), MESSAGE)
    rig.lane.sweep()
    assert rig.lane.devices == 1


@in_virtual_time
async def test_unregistered_devices_are_not_pushed_to() -> None:
    gate = asyncio.Event()

    async def held(_token: bytes, _push: Push) -> Outcome:
        await gate.wait()
        return Outcome(Result.RETRY)

    rig = Rig(held, workers=1)
    rig.lane.wake(device("first"), MESSAGE)
    await passes(0)
    rig.lane.wake(device("second"), MESSAGE)
    for name in ("first", "second", "unknown"):
        rig.lane.drop(device(name).token_hash)
    gate.set()
    await passes(HOUR)
    assert rig.channel.tokens == [b"first"], "not again, for it was unregistered meanwhile"
    assert rig.lane.queued == 0


# --- The end ---------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_at_the_end_what_can_be_sent_is_sent_and_the_rest_given_up() -> None:
    async def slow(token: bytes, _push: Push) -> Outcome:
        await asyncio.sleep(1)
        return Outcome(Result.RETRY) if token == b"phone 0" else SENT

    rig = Rig(slow, workers=4)
    loop = asyncio.get_running_loop()
    for number in range(100):
        rig.lane.wake(device(f"phone {number}"), MESSAGE)
    await passes(0.5)
    given_up = await rig.lane.finish(loop.time() + 5.2)
    # Under way now and four times more; the last four are cut off.
    assert len(rig.channel.tokens) == 24
    assert given_up == 100 - 20 + 1
    assert rig.skipped(MESSAGE, "abandoned") == given_up
    assert rig.channel.under_way == 0
    rig.lane.wake(device("late"), MESSAGE)
    await passes(HOUR)
    assert len(rig.channel.tokens) == 24
    assert (rig.lane.queued, rig.lane.in_flight) == (0, 0)


@in_virtual_time
async def test_an_end_with_nothing_to_do_comes_at_once() -> None:
    rig = Rig()
    before = asyncio.get_running_loop().time()
    rig.lane.wake(device(), MESSAGE)
    await passes(12)
    rig.lane.wake(device(), MESSAGE)  # held back until the end of the window
    assert await rig.lane.finish(before + HOUR) == 1
    assert asyncio.get_running_loop().time() == before + 12
