"""What a deposit costs, and what proves a recipient, through the core above a real file, and above a real stream."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from keys.errors import OpenError
from keys.pickup import answer_challenge
from keys.stamp import WINDOW, mint_stamp
from peers.mailbox.core import Caller
from peers.mailbox.price import TOLD, PriceList
from peers.mailbox.quotas import Rate
from peers.mailbox.rules import AccessRule, Refused
from tests.keys.known import LOW_ORDER_X
from tests.peers.mailbox.lab import (
    ALICE,
    BOB,
    BOX,
    CAROL,
    START,
    Box,
    asked,
    limits,
    refusal,
)
from tests.support.clients import run_async
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks
from wire.mailbox_codes import Reason

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("both_stores")


URL = "https://mailbox.example/box"


# --- Stamps -----------------------------------------------------------------------------------------------------------

PRICED = limits(prices=PriceList(base=6, most=10))


def stamped(number: int, bits: int, now: int = START, **changed: Any) -> asks.Deposit:
    request = asked(number, **changed)
    return replace(request, stamp=mint_stamp(BOX.x_pub, request.recipient, request.deposit, now, bits))


@run_async
async def test_stamps(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", PRICED) as box:
        assert box.mailbox.about(asks.Info(1), box.at).bits == 6
        assert await refusal(box, asked(1)) is Reason.STAMP_CHEAP
        assert await refusal(box, stamped(1, 5)) is Reason.STAMP_CHEAP
        assert await refusal(box, replace(asked(2), stamp=stamped(1, 10).stamp)) is Reason.STAMP_WRONG
        assert await refusal(box, stamped(1, 6, START - WINDOW - 1)) is Reason.STAMP_TIME
        assert await refusal(box, stamped(1, 6)) is None
        assert await refusal(box, stamped(2, 9)) is None


@run_async
async def test_a_stamp_is_good_once(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", PRICED) as box:
        request = stamped(1, 6)
        kept = await box.deposit(request)
        assert await box.deposit(request) == kept  # the answer had not arrived
        await box.acknowledge(await box.fetch())
        assert await refusal(box, request) is Reason.STAMP_USED
        assert (await box.fetch()).items == ()


@run_async
async def test_a_stamp_that_bought_nothing_is_not_used(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", replace(PRICED, recipient_items=1)) as box:
        await box.deposit(stamped(1, 6))
        request = stamped(2, 6)
        assert await refusal(box, request) is Reason.FULL
        await box.acknowledge(await box.fetch())
        assert await refusal(box, request) is None


@run_async
async def test_stamps_older_than_those_forgotten_are_not_taken(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", replace(PRICED, remembered=2)) as box:
        old = stamped(9, 6, START - 1000)
        for number in range(4):
            await box.deposit(stamped(number, 6, START + number))
        assert await refusal(box, old) is Reason.STAMP_TIME
        assert await refusal(box, stamped(10, 6, START + 100)) is None


@run_async
async def test_the_price_rises_as_it_fills_and_refusals_tell_it(tmp_path: Path) -> None:
    bounds = limits(total_items=10, recipient_items=10, prices=PriceList(base=0, most=8))
    async with Box(tmp_path / "box.db", bounds) as box:
        for number in range(5):
            await box.deposit(asked(number))
        await box.tend()
        assert box.mailbox.about(asks.Info(1), box.at).bits == 2
        assert await refusal(box, asked(5)) is None  # nothing was the price a moment ago
        box.passes(TOLD + 1)
        assert await box.says(asked(6)) == answers.Refused(6, Reason.STAMP_CHEAP, 2)
        assert await refusal(box, stamped(6, 2, box.at.now)) is None


# --- Proofs -----------------------------------------------------------------------------------------------------------


@run_async
async def test_a_proof_serves_once(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        body = asks.Fetch(1, 5)
        challenge = box.mailbox.challenge(BOB.public.x_pub, Caller(), box.at)
        answer = answer_challenge(BOB, BOX, URL, body.command, body.encode(), challenge)

        def prove(x_pub: bytes = BOB.public.x_pub, url: str = URL, arguments: bytes = body.encode()) -> None:
            box.mailbox.prove(url, x_pub, body.command, arguments, answer, box.at)

        for wrong in ({"x_pub": ALICE.public.x_pub}, {"url": URL + "x"}, {"arguments": b"x"}):
            with pytest.raises(OpenError):
                prove(**wrong)
        prove()
        with pytest.raises(OpenError):
            prove()


@run_async
async def test_a_proof_ends_and_does_not_outlive_the_process(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        for end in ("time", "restart"):
            challenge = box.mailbox.challenge(BOB.public.x_pub, Caller(), box.at)
            answer = answer_challenge(BOB, BOX, URL, 0x71, b"", challenge)
            if end == "time":
                box.passes(61)
            else:
                await box.restart()
            with pytest.raises(OpenError):
                box.mailbox.prove(URL, BOB.public.x_pub, 0x71, b"", answer, box.at)


@run_async
async def test_a_stranger_learns_nothing_by_asking(tmp_path: Path) -> None:
    """The same for one who has post, for one who has none, and for one whom the mailbox does not serve."""
    async with Box(tmp_path / "box.db", access=AccessRule(frozenset({BOB.public.x_pub}))) as box:
        await box.deposit(asked(1))
        sizes = {len(box.mailbox.challenge(who.public.x_pub, Caller(), box.at)) for who in (ALICE, BOB, CAROL)}
        assert len(sizes) == 1
        empty = [await box.says(asks.Fetch(1, 9), who) for who in (ALICE, CAROL)]
        await box.acknowledge(await box.fetch())
        assert empty == [await box.says(asks.Fetch(1, 9), BOB)] * 2


@run_async
async def test_challenges_for_keys_that_nobody_has_and_too_many(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", replace(limits(), asking=Rate(2, 1, 60.0))) as box:
        for x_pub in (b"", bytes(32), bytes.fromhex(LOW_ORDER_X[2])):
            with pytest.raises(Refused, match="BAD_REQUEST"):
                box.mailbox.challenge(x_pub, Caller(), box.at)
        caller = Caller(address="192.0.2.1")
        for _ in range(2):
            box.mailbox.challenge(BOB.public.x_pub, caller, box.at)
        with pytest.raises(Refused, match="TOO_FAST"):
            box.mailbox.challenge(BOB.public.x_pub, caller, box.at)
