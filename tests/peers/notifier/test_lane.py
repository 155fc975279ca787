"""The pushes of one channel, in virtual time: what is coalesced, capped, tried again, dropped and given up."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
import structlog

from peers.client.backoff import ASKED_MOST
from peers.notifier.channel import Outcome, Push, PushType, Result
from peers.notifier.lane import Lane
from peers.notifier.limits import Limits
from peers.notifier.metrics import Metrics
from tests.peers.notifier.scripted import CALL, MESSAGE, SENT, ListLedger, ScriptedChannel, answers, device
from tests.support.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOUR = 3600.0


class Rig:
    """A lane with a scripted channel."""

    def __init__(
        self,
        script: Callable[[bytes, Push], Awaitable[Outcome]] | None = None,
        *,
        workers: int = 8,
        limits: Limits | None = None,
    ) -> None:
        self.channel = ScriptedChannel(script=script)
        self.ledger = ListLedger()
        self.metrics = Metrics(["fcm"])
        self.limits = limits or Limits()
        self.lane = Lane(self.channel, self.limits, workers, self.ledger, self.metrics)
        self.began = asyncio.get_running_loop().time()

    def skipped(self, kind: PushType, reason: str) -> int:
        return self.figure("skipped_total", channel="fcm", type=kind.value, reason=reason)

    def figure(self, name: str, **labels: str) -> int:
        value = self.metrics.registry.get_sample_value(f"blindrelay_notifier_{name}", labels)
        assert value is not None
        return int(value)

    @property
    def times(self) -> list[float]:
        """When pushes were tried, since the beginning."""
        return [each.at - self.began for each in self.channel.taken]


async def passes(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)


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


# --- Faults ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_retries_come_less_and_less_often_and_end() -> None:
    async def broken(_token: bytes, _push: Push) -> Outcome:
        return Outcome(Result.RETRY)

    rig = Rig(broken)
    rig.lane.wake(device(), MESSAGE)
    await passes(HOUR)
    assert 6 <= len(rig.times) <= 40
    assert 300 < max(rig.times) < 600
    assert rig.skipped(MESSAGE, "expired") == 1
    assert rig.ledger.told == [("failed", b"phone")]
    # And a later wake begins anew.
    rig.lane.wake(device(), MESSAGE)
    before = len(rig.times)
    await passes(0)
    assert len(rig.times) == before + 1


@in_virtual_time
async def test_retry_after_is_honoured() -> None:
    rig = Rig(answers(Outcome(Result.RETRY, 77.0)))
    rig.lane.wake(device(), MESSAGE)
    await passes(HOUR)
    assert 77 <= rig.times[1] <= 77 * 1.1


@in_virtual_time
async def test_what_is_asked_to_come_too_late_is_given_up() -> None:
    rig = Rig(answers(Outcome(Result.RETRY, 40.0)))
    rig.lane.wake(device(), CALL)
    await passes(HOUR)
    assert rig.times == [0]
    assert rig.skipped(CALL, "expired") == 1


@in_virtual_time
async def test_busy_pauses_the_whole_channel() -> None:
    rig = Rig(answers(Outcome(Result.BUSY, 60.0)))
    rig.lane.wake(device("one"), MESSAGE)
    await passes(1)
    for number in range(20):
        rig.lane.wake(device(f"more {number}"), MESSAGE)
    rig.lane.wake(device("call"), CALL)
    await passes(50)
    assert rig.times == [0]
    assert rig.lane.paused
    assert rig.figure("paused", channel="fcm") == 1
    await passes(HOUR)
    assert sorted(rig.channel.tokens) == sorted([b"one", b"one", *(b"more %d" % number for number in range(20))])
    assert all(60 <= at <= 66 for at in rig.times[1:])
    assert rig.skipped(CALL, "expired") == 1  # nobody lets it ring for a minute
    assert not rig.lane.paused


@in_virtual_time
async def test_a_pause_is_never_longer_than_a_bound_and_grows_without_a_figure() -> None:
    async def busy(_token: bytes, _push: Push) -> Outcome:
        return Outcome(Result.BUSY)

    rig = Rig(busy, limits=Limits(retry_for=86400))
    rig.lane.wake(device(), MESSAGE)
    await passes(12 * HOUR)
    pauses = [later - earlier for earlier, later in itertools.pairwise(rig.times)]
    assert pauses[0] <= 10
    assert max(pauses) <= ASKED_MOST * 1.1
    assert len(rig.times) < 250
    other = Rig(answers(Outcome(Result.BUSY, 1e9)), limits=Limits(retry_for=86400))
    other.lane.wake(device(), MESSAGE)
    await passes(HOUR)
    assert ASKED_MOST <= other.times[1] <= ASKED_MOST * 1.1


@pytest.mark.parametrize("result", [Result.GONE, Result.UNUSABLE])
@in_virtual_time
async def test_a_token_that_is_gone_is_forgotten(result: Result) -> None:
    gate = asyncio.Event()

    async def gone(_token: bytes, _push: Push) -> Outcome:
        await gate.wait()
        return Outcome(result)

    rig = Rig(gone, workers=1)
    rig.lane.wake(device(), CALL)
    await passes(0)
    rig.lane.wake(device(), MESSAGE)  # waits behind it, and must not be tried any more
    gate.set()
    await passes(HOUR)
    assert rig.channel.tokens == [b"phone"]
    assert rig.ledger.told == [("forget", b"phone")]
    assert (rig.lane.devices, rig.lane.queued, rig.lane.in_flight) == (0, 0, 0)


@in_virtual_time
async def test_a_refusal_is_told_once_a_minute_and_not_tried_again() -> None:
    async def refused(_token: bytes, _push: Push) -> Outcome:
        return Outcome(Result.REFUSED, detail="status 403")

    rig = Rig(refused)
    with structlog.testing.capture_logs() as logs:
        for number in range(50):
            rig.lane.wake(device(f"phone {number}"), MESSAGE)
        await passes(59)
        rig.lane.wake(device("one more"), MESSAGE)
        await passes(2)
        assert len(rig.times) == 51
        rig.lane.wake(device("and one"), MESSAGE)
        await passes(1)
    assert [(line["event"], line["channel"], line["detail"]) for line in logs] == [
        ("push_refused", "fcm", "status 403")
    ] * 2
    assert rig.ledger.told == []


@in_virtual_time
async def test_wakes_do_not_hammer_a_service_that_refuses() -> None:
    async def refused(_token: bytes, _push: Push) -> Outcome:
        return Outcome(Result.REFUSED)

    rig = Rig(refused)
    with structlog.testing.capture_logs():
        for _ in range(300):
            rig.lane.wake(device(), MESSAGE)
            await passes(0.99)
    assert len(rig.times) == 10


@in_virtual_time
async def test_what_is_held_says_nothing_of_the_token_and_is_not_lost() -> None:
    """Its server rests, or had its share: that is no failure, and wakes meanwhile join it."""
    rig = Rig(answers(Outcome(Result.HELD, 100.0), Outcome(Result.HELD, 200.0)))
    rig.lane.wake(device(), MESSAGE)
    await passes(50)
    rig.lane.wake(device(), MESSAGE)
    await passes(HOUR)
    first, second, third = rig.times
    assert (first, 100 <= second < 130, second + 200 <= third < second + 250) == (0, True, True)
    assert {each.push.known for each in rig.channel.taken} == {True}, "what it is to be is still what it was"
    assert rig.skipped(MESSAGE, "coalesced") == 1
    assert rig.ledger.told == [("worked", b"phone")]


@in_virtual_time
async def test_what_is_held_too_long_is_no_failure_of_the_token() -> None:
    async def held(_token: bytes, _push: Push) -> Outcome:
        return Outcome(Result.HELD, 15.0)

    rig = Rig(held)
    for kind in (MESSAGE, CALL):
        rig.lane.wake(device(), kind)
    await passes(HOUR)
    assert (rig.skipped(MESSAGE, "expired"), rig.skipped(CALL, "expired")) == (1, 1)
    assert len(rig.times) < 45
    assert rig.ledger.told == []


@in_virtual_time
async def test_channels_are_told_whose_last_push_was_taken() -> None:
    rig = Rig(answers(Outcome(Result.RETRY)))
    rig.lane.wake(device("known"), MESSAGE)
    await passes(100)
    rig.lane.wake(device("new", fresh=True), MESSAGE)
    rig.lane.wake(device("failed", failures=1), MESSAGE)
    await passes(1)
    assert [each.push.known for each in rig.channel.taken] == [True, False, False, False]


@in_virtual_time
async def test_an_answer_of_no_push_service_counts_against_the_token_and_tells_nobody() -> None:
    async def strange(_token: bytes, _push: Push) -> Outcome:
        return Outcome(Result.STRANGE, detail="status 405")

    rig = Rig(strange)
    with structlog.testing.capture_logs() as logs:
        for _ in range(45):
            rig.lane.wake(device(), MESSAGE)
            await passes(1)
    assert rig.times == [0, 30]
    assert rig.ledger.told == [("failed", b"phone")] * 2
    assert logs == []


@in_virtual_time
async def test_a_refusal_that_may_pass_is_told_and_tried_again() -> None:
    rig = Rig(answers(Outcome(Result.REFUSED, 60.0, "status 403")))
    with structlog.testing.capture_logs() as logs:
        rig.lane.wake(device(), MESSAGE)
        await passes(HOUR)
    assert [line["event"] for line in logs] == ["push_refused"]
    assert 60 <= rig.times[1] <= 66
    assert rig.ledger.told == [("worked", b"phone")]


@pytest.mark.parametrize("unregistered", [False, True])
@in_virtual_time
async def test_a_token_registered_again_while_its_push_was_under_way_is_not_forgotten(unregistered: bool) -> None:
    gate = asyncio.Event()

    async def gone(_token: bytes, _push: Push) -> Outcome:
        await gate.wait()
        return Outcome(Result.GONE)

    rig = Rig(gone)
    rig.lane.wake(device(), MESSAGE)
    await passes(0)
    if unregistered:
        rig.lane.drop(device().token_hash)
    rig.lane.renewed(device().token_hash)
    gate.set()
    await passes(1)
    assert rig.ledger.told == []
    await passes(HOUR)
    # What was asked for before is asked again, and this answer is about the token as it is now.
    assert rig.ledger.told == ([] if unregistered else [("forget", b"phone")])
    assert (rig.lane.queued, rig.lane.in_flight) == (0, 0)


@in_virtual_time
async def test_a_fault_of_the_channel_is_a_passing_one_and_told_without_its_text() -> None:
    calls = itertools.count()

    async def faulty(token: bytes, _push: Push) -> Outcome:
        if next(calls) == 0:
            raise RuntimeError(f"about {token!r}")
        return SENT

    rig = Rig(faulty)
    with structlog.testing.capture_logs() as logs:
        rig.lane.wake(device("secret token"), MESSAGE)
        await passes(HOUR)
    assert len(rig.times) == 2
    (line,) = logs
    assert (line["event"], line["error"]) == ("internal_error", "RuntimeError")
    assert "secret token" not in str(line)


@in_virtual_time
async def test_a_push_that_never_ends_is_ended() -> None:
    async def hangs(_token: bytes, _push: Push) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    rig = Rig(hangs, limits=Limits(attempt=7))
    rig.lane.wake(device(), CALL)
    await passes(HOUR)
    assert rig.figure("pushes_total", channel="fcm", type="call", outcome="retry") == len(rig.times) > 1
    assert rig.lane.in_flight == 0


@in_virtual_time
async def test_devices_that_never_answer_leave_most_of_the_lane_to_the_others() -> None:
    """Whoever registers chooses the server, and can choose one that lets each push hang until it is cut."""

    async def script(token: bytes, _push: Push) -> Outcome:
        if token.startswith(b"tar"):
            await asyncio.Event().wait()
        return SENT

    rig = Rig(script, workers=8, limits=Limits(attempt=20))
    for number in range(100):
        rig.lane.wake(device(f"tar {number}", failures=1), MESSAGE)
    await passes(1)
    assert rig.channel.under_way == 2
    for number in range(100):
        rig.lane.wake(device(f"good {number}"), MESSAGE)
    await passes(1)
    assert sum(token.startswith(b"good") for token in rig.channel.tokens) == 100


@in_virtual_time
async def test_servers_that_were_never_reached_leave_room_for_those_that_were() -> None:
    """Ids and host names cost nothing: any number of tokens can be new, and each of their servers hang."""

    async def script(token: bytes, _push: Push) -> Outcome:
        if token.startswith(b"tar"):
            await asyncio.Event().wait()
        return SENT

    rig = Rig(script, workers=8, limits=Limits(attempt=20))
    for number in range(100):
        rig.lane.wake(device(f"tar {number}", fresh=True), CALL)
    await passes(1)
    assert rig.channel.under_way == 4
    rig.lane.wake(device("good"), MESSAGE)
    rig.lane.wake(device("good and called"), CALL)
    await passes(1)
    assert sum(token.startswith(b"good") for token in rig.channel.tokens) == 2


@in_virtual_time
async def test_after_its_first_failure_a_push_is_among_its_like() -> None:
    async def hangs(_token: bytes, _push: Push) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    rig = Rig(hangs, workers=8, limits=Limits(attempt=20))
    for number in range(100):
        rig.lane.wake(device(f"tar {number}"), CALL)
    await passes(1)
    assert rig.channel.under_way == 8
    for number in range(8):
        rig.lane.wake(device(f"again {number}"), MESSAGE)
    await passes(64)
    assert rig.channel.under_way == 2  # the calls expired, the messages failed once: all that is left is suspect
    await passes(HOUR)
    assert rig.channel.under_way == 0


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
