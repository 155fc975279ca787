"""The pushes of one channel that fail, in virtual time: what is tried again, paused, held and told."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import structlog

from peers.client.backoff import ASKED_MOST
from peers.notifier.channel import Outcome, Push, Result
from peers.notifier.limits import Limits
from tests.peers.notifier.rig import Rig, passes
from tests.peers.notifier.scripted import CALL, MESSAGE, SENT, answers, device
from tests.support.virtual_time import in_virtual_time

HOUR = 3600.0


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


async def hangs_on_tar(token: bytes, _push: Push) -> Outcome:
    """Let pushes to some devices hang until they are cut."""
    if token.startswith(b"tar"):
        await asyncio.Event().wait()
    return SENT


@in_virtual_time
async def test_devices_that_never_answer_leave_most_of_the_lane_to_the_others() -> None:
    """Whoever registers chooses the server, and can choose one that lets each push hang until it is cut."""
    rig = Rig(hangs_on_tar, workers=8, limits=Limits(attempt=20))
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
    rig = Rig(hangs_on_tar, workers=8, limits=Limits(attempt=20))
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
