"""What is taken, handed out and deleted, through the core above a real file, and above a real stream."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keys.deposit import open_deposit, seal_deposit
from peers.mailbox.core import Caller
from peers.mailbox.quotas import Rate
from peers.mailbox.rules import DAY, HOUR, AccessRule, token_digest
from peers.mailbox.store import StoreFull
from tests.peers.mailbox.lab import (
    ALICE,
    BOB,
    BOX,
    CAROL,
    START,
    Box,
    asked,
    content,
    contents,
    limits,
    refusal,
    secret,
)
from tests.support.clients import run_async
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks
from wire.mailbox_codes import LEASE_ROOM, Access, ItemKind, Reason, Word

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("both_stores")


# --- Lease, ack, delete -----------------------------------------------------------------------------------------------


@run_async
async def test_a_deposit_from_end_to_end(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        sealed = seal_deposit(ALICE.public, BOB.public.x_pub, BOX, b"the packet")
        kept = await box.deposit(asked(7, deposit=sealed))
        assert kept.request == 7
        assert 14 * DAY <= kept.expires_in * 1000 < 14 * DAY + HOUR
        lease = await box.fetch()
        (item,) = lease.items
        assert open_deposit(BOB, BOX, item.content) == (ALICE.public, b"the packet")
        assert (item.kind, item.expires_in, lease.lease, lease.left) == (ItemKind.DEPOSIT, kept.expires_in, 60, 0)
        assert await box.acknowledge(lease) == 1
        assert (await box.fetch()).items == ()
        assert (await box.store.totals()).items == 0


@run_async
async def test_nothing_is_deleted_on_handing_over(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        for number in range(3):
            await box.deposit(asked(number))
        first = await box.fetch(limit=2)
        assert (contents(first), first.left) == ([0, 1], 1)
        second = await box.fetch()
        assert (contents(second), second.left) == ([2], 0)
        assert contents(await box.fetch()) == []
        await box.acknowledge(second)
        box.passes(59.9)
        assert contents(await box.fetch()) == []
        box.passes(0.2)
        assert contents(await box.fetch()) == [0, 1]
        assert await box.acknowledge(first) == 2  # an ACK counts however late it comes
        assert await box.acknowledge(first) == 0
        box.passes(100)
        assert contents(await box.fetch()) == []


@run_async
async def test_a_restart_ends_leases_and_forgets_nothing_else(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await box.deposit(asked(1))
        lease = await box.fetch()
        await box.restart()
        again = await box.fetch()
        assert again.items[0].content == lease.items[0].content
        assert await box.acknowledge(lease) == 1
        await box.restart()
        assert (await box.fetch()).items == ()


@run_async
async def test_recipients_are_apart(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await box.deposit(asked(1, BOB))
        await box.deposit(asked(2, CAROL))
        lease = await box.fetch(BOB)
        assert contents(lease) == [1]
        assert contents(await box.fetch(ALICE)) == []
        assert await box.acknowledge(lease, CAROL) == 0
        assert await box.acknowledge(lease, ALICE) == 0
        assert contents(await box.fetch(CAROL)) == [2]


@run_async
async def test_numbers_tell_nothing_and_are_not_given_again(tmp_path: Path) -> None:
    """An ACK that somebody repeats later must not delete what came since."""
    async with Box(tmp_path / "box.db") as box:
        seen: set[int] = set()
        for round_ in range(20):
            await box.deposit(asked(round_))
            lease = await box.fetch()
            numbers = {item.number for item in lease.items}
            assert not numbers & seen
            seen |= numbers
            await box.acknowledge(lease)
            await box.deposit(asked(1000))
            assert await box.acknowledge(lease) == 0
            assert await box.acknowledge(await box.fetch()) == 1


@run_async
async def test_a_lease_fits_a_frame(tmp_path: Path) -> None:
    bounds = limits(fetch_items=64)
    async with Box(tmp_path / "box.db", bounds) as box:
        for number in range(5):
            await box.deposit(asked(number, deposit=content(number, 1 << 18)))
        await box.deposit(asked(5))
        lease = await box.fetch()
        assert contents(lease) == [0, 1, 2]
        assert sum(item.size for item in lease.items) <= LEASE_ROOM
        assert lease.left == 3
        assert len(lease.encode()) < 1 << 20
        assert contents(await box.fetch()) == [3, 4, 5]


@run_async
async def test_so_much_is_handed_out_at_a_time(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", limits(fetch_items=3, leased=5)) as box:
        for number in range(8):
            await box.deposit(asked(number))
        first, second = await box.fetch(), await box.fetch()
        assert [contents(first), contents(second)] == [[0, 1, 2], [3, 4]]
        third = await box.fetch()
        assert (contents(third), third.left) == ([], 3)
        await box.acknowledge(first)
        assert contents(await box.fetch()) == [5, 6, 7]
        assert contents(await box.fetch(limit=0)) == []


@run_async
async def test_counts(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        assert await box.says(asks.List(9), BOB) == answers.Counts(9, 0, 0, 0, 0, 0, 0)
        for number in range(3):
            await box.deposit(asked(number))
        await box.fetch(limit=2)
        assert await box.says(asks.List(9), BOB) == answers.Counts(9, 3, 3072, 2, 0, 0, 0)
        box.passes(61)
        assert await box.says(asks.List(9), BOB) == answers.Counts(9, 3, 3072, 0, 0, 0, 0)


# --- Ends -------------------------------------------------------------------------------------------------------------


@run_async
async def test_what_has_ended_is_handed_out_no_more_and_erased(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        short = await box.deposit(asked(1, ttl=60))
        long = await box.deposit(asked(2, ttl=0xFFFF_FFFF))
        assert 60 <= short.expires_in < 60 + 3600
        assert 30 * DAY <= long.expires_in * 1000 < 30 * DAY + HOUR
        box.passes(short.expires_in - 1)
        assert contents(await box.fetch()) == [1, 2]
        box.passes(61)
        assert contents(await box.fetch()) == [2]
        assert await box.tend() == 1
        assert (await box.store.totals()).items == 1
        assert box.mailbox.tallies.expired == 1


@run_async
async def test_what_ends_while_it_is_handed_out_ends_its_lease(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", limits(leased=2, fetch_items=2)) as box:
        for number in range(2):
            kept = await box.deposit(asked(number, ttl=60))
        await box.deposit(asked(2, ttl=86400))
        box.passes(kept.expires_in - 10)
        assert contents(await box.fetch()) == [0, 1]
        box.passes(12)
        assert contents(await box.fetch()) == []  # two are out, for all it knows
        await box.tend()
        assert contents(await box.fetch()) == [2]


@run_async
async def test_a_clock_that_jumps_neither_wipes_nor_keeps(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await box.deposit(asked(1, ttl=14 * 86400))
        box.wall += 365 * DAY  # while it runs
        box.passes(60)
        assert await box.tend() == 0
        await box.restart()  # and over a restart
        box.passes(60)
        assert await box.tend() == 0
        box.wall -= 2 * 365 * DAY
        box.passes(60)
        assert await box.tend() == 0
        await box.restart()
        assert contents(await box.fetch()) == [1]
        for _ in range(28 * 24 + 2):
            box.passes(3600)
            await box.mailbox.tend(box.at)
        assert (await box.store.totals()).items == 0  # twice its ttl at most, though the clock says it is a year ago


@run_async
async def test_time_goes_on_where_it_was(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        assert box.at.now == START
        box.passes(3600)
        await box.tend()
        box.wall = START - 10 * DAY
        await box.restart()
        assert box.at.now == START + HOUR


# --- Depositors -------------------------------------------------------------------------------------------------------


@run_async
async def test_a_retry_is_held_once(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        first = await box.deposit(asked(1))
        assert await box.deposit(asked(1)) == first
        assert contents(await box.fetch()) == [1]
        await box.restart()
        assert await box.deposit(asked(1)) == first
        assert (await box.store.totals()).items == 1
        assert await refusal(box, asked(1, deposit=content(2))) is Reason.BAD_DEPOSIT
        assert await refusal(box, asked(1, CAROL)) is None  # digests are each recipient's own


@run_async
async def test_a_depositor_deletes_what_it_left(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        for number in range(3):
            await box.deposit(asked(number))
        x_pub = BOB.public.x_pub
        assert await box.says(asks.Drop(5, x_pub, secret(1))) == answers.Dropped(5, True)
        assert await box.says(asks.Drop(5, x_pub, secret(1))) == answers.Dropped(5, False)
        assert await box.says(asks.Drop(5, CAROL.public.x_pub, secret(2))) == answers.Dropped(5, False)
        assert await box.says(asks.Drop(5, x_pub, secret(9))) == answers.Dropped(5, False)
        assert contents(await box.fetch()) == [0, 2]
        assert await box.says(asks.Drop(5, x_pub, secret(0))) == answers.Dropped(5, True)  # handed out or not
        box.passes(100)
        assert contents(await box.fetch()) == [2]
        assert (await box.store.totals()).items == 1


@run_async
async def test_what_is_no_deposit(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", limits(item_bytes=1 << 16)) as box:
        assert await refusal(box, asked(1, deposit=bytes(1025))) is Reason.BAD_DEPOSIT
        assert await refusal(box, asked(1, deposit=b"")) is Reason.BAD_DEPOSIT
        assert await refusal(box, asked(1, deposit=bytes(1 << 18))) is Reason.TOO_BIG
        assert await refusal(box, asked(1, recipient=bytes(32))) is Reason.BAD_DEPOSIT
        assert (await box.store.totals()).items == 0


@run_async
async def test_access(tmp_path: Path) -> None:
    rule = AccessRule(frozenset({BOB.public.x_pub}), (token_digest(b"token"),))
    async with Box(tmp_path / "box.db", access=rule) as box:
        assert await refusal(box, asked(1)) is Reason.TOKEN
        assert await refusal(box, asked(1, CAROL, token=b"token")) is Reason.NOT_SERVED
        assert await refusal(box, asked(1, token=b"token")) is None
        assert box.mailbox.about(asks.Info(1), box.at).access == Access.TOKEN


# --- Quotas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bounds",
    [
        {"recipient_items": 3},
        {"recipient_bytes": 3072 + 1023, "item_bytes": 1024},
        {"total_items": 3, "recipient_items": 3},
        {"total_bytes": 3072, "recipient_bytes": 3072, "item_bytes": 1024},
    ],
    ids=str,
)
@run_async
async def test_when_it_is_full_the_depositor_is_told_and_the_recipient_sees_it(
    tmp_path: Path, bounds: dict[str, int]
) -> None:
    async with Box(tmp_path / "box.db", limits(**bounds)) as box:
        assert [await refusal(box, asked(number)) for number in range(5)] == [None] * 3 + [Reason.FULL] * 2
        lease = await box.fetch()
        assert (contents(lease), lease.refusals, lease.since) == ([0, 1, 2], 2, START // HOUR * HOUR)
        counts = await box.says(asks.List(1), BOB)
        assert (counts.refusals, counts.since) == (2, START // HOUR * HOUR)
        box.passes(3 * 3600)
        assert await refusal(box, asked(9)) is Reason.FULL
        await box.restart()
        # One more came than the recipient was told of when it acknowledged: that one is still to be told.
        assert await box.acknowledge(lease) == 3
        counts = await box.says(asks.List(1), BOB)
        assert (counts.items, counts.refusals, counts.since) == (0, 1, START // HOUR * HOUR)
        await box.says(asks.Ack(1, (), 1), BOB)
        assert await box.says(asks.List(1), BOB) == answers.Counts(1, 0, 0, 0, 0, 0, 0)
        assert await refusal(box, asked(10)) is None


@run_async
async def test_markers_are_bounded_and_end(tmp_path: Path) -> None:
    bounds = limits(total_items=1, recipient_items=1, markers=2, marker_days=30)
    async with Box(tmp_path / "box.db", bounds) as box:
        await box.deposit(asked(1, BOB))
        for number, to in enumerate((ALICE, BOB, CAROL, ALICE), 2):
            assert await refusal(box, asked(number, to)) is Reason.FULL
        told = [(await box.says(asks.List(1), who)).refusals for who in (ALICE, BOB, CAROL)]
        assert told == [2, 1, 0]
        box.passes(31 * 86400)
        await box.tend()
        told = [(await box.says(asks.List(1), who)).refusals for who in (ALICE, BOB, CAROL)]
        assert told == [0, 0, 0]
        assert [await refusal(box, asked(20, CAROL)), await refusal(box, asked(21, CAROL))] == [None, Reason.FULL]
        assert (await box.says(asks.List(1), CAROL)).refusals == 1


@run_async
async def test_depositors_and_addresses_have_rates(tmp_path: Path) -> None:
    bounds = replace(limits(), depositor=Rate(2, 1 << 20, 60.0), address=Rate(3, 1 << 20, 60.0))
    async with Box(tmp_path / "box.db", bounds) as box:
        alice, carol = Caller(depositor=ALICE.public.x_pub), Caller(depositor=CAROL.public.x_pub)
        seen = [await refusal(box, asked(number), alice) for number in range(3)]
        assert seen == [None, None, Reason.TOO_FAST]
        assert await refusal(box, asked(3), carol) is None
        one, other = Caller(address="192.0.2.1"), Caller(address="2001:db8::1")
        seen = [await refusal(box, asked(10 + number), one) for number in range(4)]
        assert seen == [None, None, None, Reason.TOO_FAST]
        assert await refusal(box, asked(20), other) is None
        box.passes(30)
        assert await refusal(box, asked(21), alice) is None
        lease = await box.fetch()
        assert lease.refusals == 0  # whose fault that was is no matter of the recipient's
        assert "2001" not in repr(other)


# --- All of it --------------------------------------------------------------------------------------------------------


@run_async
async def test_requests_are_answered_by_their_own(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        assert isinstance(await box.says(asked(3)), answers.Kept)
        lease = await box.says(asks.Fetch(4, 1), BOB)
        assert isinstance(lease, answers.Lease)
        assert lease.request == 4
        assert await box.says(asks.Ack(5, (lease.items[0].number,)), BOB) == answers.Acked(5, 1)
        assert await box.says(asks.Restore(6), BOB) == answers.Restored(6, 0)
        about = await box.says(asks.Info(7))
        assert (about.request, about.now, about.ttl, about.ttl_max) == (7, START, 14 * 86400, 30 * 86400)
        assert (about.item, about.items, about.size) == (1 << 18, 1000, 32 << 20)
        tallies = box.mailbox.tallies
        assert (tallies.deposits, tallies.handed, tallies.acknowledged) == (1, 1, 1)
        assert set(tallies.refused.values()) == {0}


@pytest.mark.parametrize("body", [asks.Fetch(1, 1), asks.Ack(1, (1,)), asks.List(1), asks.Restore(1)])
@run_async
async def test_without_a_proven_key_nothing_is_handed_out(tmp_path: Path, body: asks.ForMailbox) -> None:
    async with Box(tmp_path / "box.db") as box:
        assert await box.says(body) == answers.Refused(1, Reason.BAD_REQUEST, 0)
        assert box.mailbox.tallies.refused[Reason.BAD_REQUEST] == 1


@run_async
async def test_what_is_no_request_of_ours_is_not_answered(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        assert await box.says(Word(0x02), BOB) is None
        assert await box.says(asks.parse_for_mailbox(0x77, b"1234"), BOB) is None


@run_async
async def test_a_store_that_fails_is_a_refusal(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await box.store.close()
        for body in (
            asked(1),
            asks.Fetch(1, 1),
            asks.Ack(1, (1,)),
            asks.List(1),
            asks.Drop(1, BOB.public.x_pub, secret(1)),
        ):
            answer = await box.says(body, BOB)
            assert answer == answers.Refused(1, Reason.FAILED, 0)
        assert box.mailbox.tallies.refused[Reason.FAILED] == 5

        async def full(*_: object) -> None:
            raise StoreFull("the disk is full")

        box.store.deposit = full
        assert await box.says(asked(1)) == answers.Refused(1, Reason.FULL, 0)
