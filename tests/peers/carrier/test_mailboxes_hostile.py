"""Mailboxes that mean harm, and what a mailbox learns of those who leave things there."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keys.deposit import seal_deposit
from keys.identity import Identity
from keys.invite import MailboxCard
from keys.primitives import random_bytes
from peers.carrier import fetching, mail
from peers.dropping import Depositor, DroppingOptions, MailboxRefused
from peers.dropping.by_http import HttpWay
from peers.store import feed, mailboxes, messages
from peers.store.feed import Kind
from tests.peers.carrier.conversation import Person
from tests.peers.carrier.post_boxes import DROPPING, FAST, MAIL, acquainted, meet, until_left, uses
from tests.peers.dropping.boxes import HttpBox, RelayBox
from tests.peers.mailbox.lab import limits
from tests.support.clients import run_async
from wire import mailbox_answers as answers
from wire.mailbox_codes import MailboxCommand

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from peers.mailbox.core import Caller
    from tests.support.relay_process import RelayProcess


class Forgetful(HttpBox):
    """Says that it keeps what it is given, for no time at all."""

    async def serve(self, x_pub: bytes | None, body: Any, caller: Caller) -> answers.FromMailbox:
        if body.command == MailboxCommand.DEPOSIT:
            self.asked.append(body.command)
            return answers.Kept(0, 0)
        return await super().serve(x_pub, body, caller)


@run_async
async def test_a_mailbox_that_keeps_things_for_no_time_is_not_asked_again_and_again(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    async with acquainted(relay, alice, bob, Forgetful(tmp_path / "box")) as (box, to_bob, _):
        async with alice.at(relay, FAST):
            for text in ("a", "b", "c"):
                await until_left(alice, await alice.says(to_bob, text))
            box.asked.clear()
            await until_left(alice, await alice.says(to_bob, "d"))
        assert box.asked.count(MailboxCommand.DEPOSIT) == 1


class Complaining(HttpBox):
    """Hands out the same again and again, and tells of refusals each time."""

    rounds = 0

    async def serve(self, x_pub: bytes | None, body: Any, caller: Caller) -> answers.FromMailbox:
        if body.command == MailboxCommand.FETCH:
            self.rounds += 1
            items = tuple(answers.Item(number, 0, 60, bytes(1024)) for number in range(64))
            return answers.Lease(0, 60, 0xFFFFFFFF, items, 0xFFFFFFFF, (1 << 64) - 1)
        if body.command == MailboxCommand.ACK:
            return answers.Acked(0, 64)
        return await super().serve(x_pub, body, caller)


@run_async
async def test_a_mailbox_without_end_is_left_alone_and_does_not_fill_the_feed(
    relay: RelayProcess, bob: Person, tmp_path: Path
) -> None:
    async with Complaining(tmp_path / "bad") as bad:
        await uses(bob, bad)
        async with bob.at(relay, FAST):
            for _ in range(3):
                await bob.until(mailboxes.own, lambda own: own[0].tried_at >= own[0].asked_at)
                await bob.store.write(mailboxes.ask, bob.now())
            (own,) = await bob.until(mailboxes.own, lambda own: own[0].tried_at >= own[0].asked_at)
        assert bad.rounds <= 12
        assert own.trouble
        notices = [each for each in await bob.store.read(feed.read, 0) if each.kind is Kind.NOTICE]
        assert len(notices) == 1


class Stuck(HttpBox):
    """Takes a request to pick up, and never answers."""

    stuck = False

    async def serve(self, x_pub: bytes | None, body: Any, caller: Caller) -> answers.FromMailbox:
        if self.stuck and body.command == MailboxCommand.FETCH:
            await asyncio.Event().wait()
        return await super().serve(x_pub, body, caller)


@run_async
async def test_a_mailbox_that_never_answers_does_not_keep_what_lies_in_another(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_TOGETHER", 0.1)
    async with HttpBox(tmp_path / "good") as good, Stuck(tmp_path / "stuck") as stuck:
        await uses(bob, good, stuck)
        to_bob, to_alice = await meet(relay, alice, bob)
        async with alice.at(relay, FAST):
            await until_left(alice, await alice.says(to_bob, "it lies there"), 2)
        stuck.stuck = True
        async with bob.at(relay, replace(FAST, mail=replace(MAIL, dropping=DroppingOptions(timeout=3600.0)))):
            await bob.until(messages.received, lambda rows: rows[-1].text == "it lies there", to_alice.id)
            await good.until_held(bob.keys.identity, 0)


@run_async
async def test_what_was_refused_is_told_once_and_counted(relay: RelayProcess, bob: Person, tmp_path: Path) -> None:
    """Also where the look goes on after what was refused was told: there is more than one round."""
    async with HttpBox(tmp_path / "box", limits(recipient_items=2)) as box:
        depositor = Depositor(box.card, HttpWay(box.card, DROPPING), DROPPING)
        x_pub = bob.keys.identity.public.x_pub
        for number in range(5):
            deposit = seal_deposit(Identity.generate().public, x_pub, box.card.public, bytes((number,)))
            with suppress(MailboxRefused):
                await depositor.deposit(x_pub, deposit, random_bytes(32))
        await depositor.rest()
        await uses(bob, box)
        async with bob.at(relay, FAST):
            (own,) = await bob.until(mailboxes.own, lambda own: own[0].looked_at is not None)
        assert (own.picked, own.refused) == (2, 3)


@run_async
async def test_the_relay_way_shows_no_two_recipients_of_one_depositor(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    carol = Person(tmp_path / "carol", "Carol")
    async with RelayBox(tmp_path / "box", relay) as box:
        await uses(bob, box)
        await uses(carol, box)
        to_bob, _ = await meet(relay, alice, bob)
        to_carol, _ = await meet(relay, alice, carol)
        async with alice.at(relay, FAST):
            said = [await alice.says(to, f"{n}") for n in range(3) for to in (to_bob, to_carol)]
            for each in said:
                await until_left(alice, each)
        whom: dict[bytes, set[bytes]] = {}
        for depositor, recipient in box.left:
            whom.setdefault(depositor, set()).add(recipient)
        assert all(len(each) == 1 for each in whom.values())
        assert {next(iter(each)) for each in whom.values()} == {
            bob.keys.identity.public.x_pub,
            carol.keys.identity.public.x_pub,
        }


@run_async
async def test_a_contact_leads_us_to_nothing_of_this_machine(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless our relay is there as well, which that of this test is."""
    monkeypatch.setattr(mail, "is_loopback", lambda _: False)
    async with HttpBox(tmp_path / "box") as box:
        await uses(bob, box)
        cloud = MailboxCard(Identity.generate().public, "http://169.254.169.254/latest")
        far = MailboxCard(Identity.generate().public, "https://mailbox.example")
        for card in (cloud, far):
            await bob.store.write(mailboxes.add_own, bob.now(), card)
        to_bob = await alice.adds(bob)
        monkeypatch.setattr(fetching.Fetching, "_due_at", lambda *_: math.inf)  # nobody looks into these
        async with alice.at(relay, FAST), bob.at(relay, FAST):
            await alice.until_delivered(await alice.says(to_bob, "hello"))
            await bob.until_delivered(await bob.says(await bob.knows(alice), "hello"))
            places = await alice.until(mailboxes.of_contact, bool, to_bob.id)
        assert [place.card for place in places] == [far]
