"""Messages for those who are offline, by mailboxes: from store to store."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keys.contact import Contact
from keys.deposit import seal_deposit
from keys.identity import Identity
from keys.primitives import random_bytes
from peers.dropping import Depositor
from peers.dropping.by_http import HttpWay
from peers.mailbox.price import PriceList
from peers.mailbox.rules import AccessRule, token_digest
from peers.store import contacts, feed, mailboxes, messages, owing, parcels, unsettled
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.carrier.post_boxes import DROPPING, FAST, MAIL, acquainted, all_left, meet, until_left, uses
from tests.peers.carrier.scripted_peer import ScriptedPeer
from tests.peers.dropping.boxes import HttpBox, RelayBox
from tests.peers.mailbox.lab import limits
from tests.support.clients import WAIT, run_async
from tests.support.cutting import CuttingProxy
from tests.support.relay_process import RelayProcess
from wire.mailbox_codes import Reason
from wire.peer_commands import ChangeAck, DeliveryAck, Text, encode_for_peer
from wire.peer_mailboxes import Acks, Listed, Mailboxes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.carrier.conversation import Person
    from wire.commands import Body


@run_async
async def test_a_message_waits_in_every_mailbox_and_its_ticks_come_back(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    """They are never there at the same time."""
    async with HttpBox(tmp_path / "one") as one, HttpBox(tmp_path / "two") as two, HttpBox(tmp_path / "hers") as hers:
        await uses(bob, one, two)
        await uses(alice, hers)
        to_bob, to_alice = await meet(relay, alice, bob)
        async with alice.at(relay, FAST):
            said = [await alice.says(to_bob, text) for text in ("a", "b", "c")]
            left = await until_left(alice, said[-1], 2)
            assert (left.state < State.DELIVERED, left.standing) == (True, "left")
            for message in said:
                await until_left(alice, message, 2)
        assert await one.held(bob.keys.identity) == await two.held(bob.keys.identity) == 3
        async with bob.at(relay, FAST):
            rows = await bob.until(messages.history, lambda rows: len(rows) >= 5, to_alice.id)
            assert [row.text for row in rows if not row.outgoing] == ["first", "a", "b", "c"]
            await bob.store.write(messages.mark_read, bob.now(), to_alice.id, rows[-1].id)
            await all_left(bob)
        # Every copy was acknowledged where it lay.
        assert await one.held(bob.keys.identity) == await two.held(bob.keys.identity) == 0
        async with alice.at(relay, FAST):
            for message in said:
                row = await alice.until(messages.get, lambda row: row.state is State.READ, message.id)
                assert row.standing == "read"
            await alice.until(parcels.lying, lambda count: count == 0)
            await alice.until(parcels.busy, lambda waiting: not waiting)
        assert await hers.held(alice.keys.identity) == 0
    # Of acknowledgements nobody makes acknowledgements.
    assert not await alice.store.read(owing.creditors)
    assert not await alice.store.read(parcels.any_places) or not await alice.store.read(parcels.busy)


@run_async
async def test_over_the_relay_nobody_sees_who_leaves(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    async with acquainted(relay, alice, bob, RelayBox(tmp_path / "box", relay)) as (box, to_bob, to_alice):
        async with alice.at(relay, FAST):
            await until_left(alice, await alice.says(to_bob, "by the relay"))
        async with bob.at(relay, FAST):
            await bob.until(messages.received, lambda rows: bool(rows) and rows[-1].text == "by the relay", to_alice.id)
            await bob.until(mailboxes.own, lambda own: own[0].picked == 1 and not own[0].trouble)
        assert await box.held(bob.keys.identity) == 0
        assert bob.keys.identity.public.x_pub in box.callers
        assert alice.keys.identity.public.x_pub not in box.callers
        assert len(box.callers) >= 2


@run_async
async def test_a_mailbox_at_another_relay(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path) -> None:
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    elsewhere = RelayProcess(directory)
    try:
        async with RelayBox(tmp_path / "box", elsewhere) as box:
            await uses(bob, box)
            to_bob, to_alice = await meet(relay, alice, bob)
            async with alice.at(relay, FAST):
                await until_left(alice, await alice.says(to_bob, "elsewhere"))
            async with bob.at(relay, FAST):
                await bob.until(
                    messages.received, lambda rows: bool(rows) and rows[-1].text == "elsewhere", to_alice.id
                )
    finally:
        elsewhere.check()


@run_async
async def test_one_mailbox_is_down_and_one_lost_its_disk(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    async with (
        HttpBox(tmp_path / "good") as good,
        HttpBox(tmp_path / "down") as down,
        HttpBox(tmp_path / "lossy") as lossy,
    ):
        await uses(bob, down, lossy, good)
        to_bob, to_alice = await meet(relay, alice, bob)
        await down.stop()
        async with alice.at(relay, FAST):
            said = [await alice.says(to_bob, text) for text in ("x", "y")]
            for message in said:
                await until_left(alice, message, 2)
        await lossy.stop()
        lossy.lose_disk()
        await lossy.start()
        async with bob.at(relay, FAST):
            rows = await bob.until(messages.received, lambda rows: len(rows) == 3, to_alice.id)
            assert [row.text for row in rows] == ["first", "x", "y"]
            troubles = await bob.until(
                lambda db: {own.id: own.trouble for own in mailboxes.own(db)}, lambda each: any(each.values())
            )
            assert [bool(each) for each in troubles.values()] == [True, False, False]
            # What lay nowhere but in the one that is down is not there twice when that is up again.
            await down.start()
            async with alice.at(relay, FAST):
                for message in said:
                    await alice.until_delivered(message)
                await alice.until(parcels.lying, lambda count: count == 0)
                await alice.until(parcels.busy, lambda waiting: not waiting)
        assert [row.text for row in await bob.store.read(messages.received, to_alice.id)] == ["first", "x", "y"]
        for box in (good, down, lossy):
            assert await box.held(bob.keys.identity) == 0


@run_async
async def test_what_is_edited_or_deleted_is_replaced_and_dropped(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    async with acquainted(relay, alice, bob, HttpBox(tmp_path / "box")) as (box, to_bob, to_alice):
        async with alice.at(relay, FAST):
            said = [await alice.says(to_bob, text) for text in ("old words", "regretted", "kept")]
            for message in said:
                await until_left(alice, message)
            await alice.store.write(messages.edit, alice.now(), said[0].id, "new words")
            await alice.store.write(messages.delete, alice.now(), said[1].id, for_both=True)
            await alice.until(_parcels, lambda rows: rows == [("delete", "kept"), ("text", "kept"), ("text", "kept")])
        assert await box.held(bob.keys.identity) == 3
        async with bob.at(relay, FAST):
            await bob.until(messages.received, lambda rows: len(rows) >= 3, to_alice.id)
            await bob.until(mailboxes.own, lambda own: own[0].picked == 3)
        heard = await bob.heard(to_alice)
        assert sorted(heard) == ["first", "kept", "new words"]


@run_async
async def test_an_edit_of_what_arrived_comes_by_mailbox(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    async with HttpBox(tmp_path / "box") as box, HttpBox(tmp_path / "hers") as hers:
        await uses(bob, box)
        await uses(alice, hers)
        to_bob, to_alice = await meet(relay, alice, bob)
        async with alice.at(relay, FAST):
            (first,) = [row for row in await alice.store.read(messages.history, to_bob.id) if row.outgoing]
            await alice.store.write(messages.edit, alice.now(), first.id, "second thoughts")
            await alice.until(_parcels, lambda rows: rows == [("edit", "kept")])
        async with bob.at(relay, FAST):
            await bob.until(messages.received, lambda rows: rows[0].text == "second thoughts", to_alice.id)
            await all_left(bob)
        async with alice.at(relay, FAST):
            await alice.until(unsettled.changes_to_send, lambda rows: not rows, to_bob.id, 10)
            await alice.until(_parcels, lambda rows: not rows)


@run_async
async def test_what_arrives_by_the_relay_is_dropped(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    async with acquainted(relay, alice, bob, HttpBox(tmp_path / "box")) as (box, to_bob, to_alice):
        async with alice.at(relay, FAST):
            said = await alice.says(to_bob, "either way")
            await until_left(alice, said)
            # He does not look into his mailbox: it is none of his any more for as long as this lasts.
            (own,) = await bob.store.read(mailboxes.own)
            await bob.store.write(mailboxes.remove_own, bob.now(), own.id)
            async with bob.at(relay, FAST):
                await alice.until_delivered(said)
                await alice.until(_parcels, lambda rows: not rows)
                # Told that there is none any more.
                await alice.until(mailboxes.of_contact, lambda places: not places, to_bob.id)
        assert await box.held(bob.keys.identity) == 0
        assert await bob.heard(to_alice) == ["first", "either way"]


@run_async
async def test_a_stranger_by_mailbox_is_an_introduction(relay: RelayProcess, bob: Person, tmp_path: Path) -> None:
    stranger = Identity.generate()
    async with HttpBox(tmp_path / "box") as box, HttpBox(tmp_path / "trap") as trap:
        await uses(bob, box)
        depositor = Depositor(box.card, HttpWay(box.card, DROPPING), DROPPING)
        contact = Contact(stranger, bob.keys.identity.public)
        bodies: list[Body] = [Mailboxes(5, (Listed(trap.card),), "Eve"), Text(messages.uuid(), "let me in")]
        for sender in (stranger.public, Identity.generate().public):  # the second is a claim that no packet bears out
            for body in bodies:
                packet = contact.seal(encode_for_peer(body))
                deposit = seal_deposit(sender, bob.keys.identity.public.x_pub, box.card.public, packet)
                await depositor.deposit(bob.keys.identity.public.x_pub, deposit, random_bytes(32))
        await depositor.rest()
        async with bob.at(relay, FAST):
            await bob.until(mailboxes.own, lambda own: own[0].picked == 4)
            (row,) = await bob.store.read(contacts.everyone)
            assert (row.label, row.trust, row.origin) == ("Eve", "unverified", "introduction")
            assert await bob.heard(row) == ["let me in"]
            # Nothing goes to a mailbox that a stranger names, not even that their text came …
            assert await bob.store.read(owing.creditors) == [row.id]
            notices = [e.detail for e in await bob.store.read(feed.read, 0) if e.kind is Kind.NOTICE]
            assert any("4 deposits waited" in text for text in notices)
            assert trap.asked == []
            # … until they are answered.
            await until_left(bob, await bob.says(row, "who are you?"))
            await all_left(bob)
        assert await trap.held(stranger) == 3  # the list of his mailboxes, his text, his acknowledgements


@pytest.mark.parametrize("reason", [Reason.FULL, Reason.TOO_FAST, Reason.FAILED])
@run_async
async def test_a_mailbox_that_refuses_is_tried_again(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path, reason: Reason
) -> None:
    async with HttpBox(tmp_path / "good") as good, HttpBox(tmp_path / "bad") as bad:
        await uses(bob, bad, good)
        to_bob, _ = await meet(relay, alice, bob)
        bad.fail = reason
        async with alice.at(relay, FAST):
            said = await alice.says(to_bob, "again")
            await until_left(alice, said)
            assert await good.held(bob.keys.identity) == 1
            bad.fail = None
            await until_left(alice, said, 2)


@run_async
async def test_a_token_that_changed_is_told_by_mailbox_and_tried_at_once(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    """They are never there at the same time, and what is refused rests for longer than the test."""
    access = AccessRule(tokens=(token_digest(b"right"),))
    resting = replace(FAST, mail=replace(MAIL, full=3600.0))
    async with HttpBox(tmp_path / "his", access=access) as his, HttpBox(tmp_path / "hers") as hers:
        await uses(alice, hers)
        own = await bob.store.write(mailboxes.add_own, bob.now(), his.card, b"wrong")
        to_bob, _ = await meet(relay, alice, bob)
        async with alice.at(relay, resting):
            first = await alice.says(to_bob, "refused")
            (refused,) = await alice.until(mailboxes.unwelcome, bool)
            assert (refused.contact, refused.card, refused.token_told) == (to_bob.id, his.card, True)
            # Nobody waits for what comes after it either.
            second = await alice.says(to_bob, "and this")
            await alice.until(lambda db: mailboxes.unwelcome(db)[0].waiting, lambda count: count == 2)
            await alice.until(parcels.pending, lambda pending: not pending, second.id)
            await bob.store.write(mailboxes.set_token, bob.now(), own.id, b"right")
            async with CuttingProxy(relay.port, relay.public) as network:
                network.shut()
                async with bob.at(network, resting):
                    await bob.until(parcels.any_places, bool)
                    kept = "SELECT 1 FROM parcels WHERE what = 'cards' AND state = 'kept'"
                    await bob.until(lambda db: db.execute(kept).fetchall(), bool)
            await alice.store.write(mailboxes.ask, alice.now())
            for message in (first, second):
                await until_left(alice, message)
            assert await alice.store.read(mailboxes.unwelcome) == []
        assert await his.held(bob.keys.identity) >= 2


@run_async
async def test_what_is_said_while_a_mailbox_is_let_go_of_is_left(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with acquainted(relay, alice, bob, HttpBox(tmp_path / "box")) as (_box, to_bob, _):
        closing, go_on = asyncio.Event(), asyncio.Event()
        rest = Depositor.rest
        rests = itertools.count(1)

        async def slow(depositor: Depositor) -> None:
            # The first is the one before a new recipient, the second the one when there is nothing more to do.
            if next(rests) == 2:
                closing.set()
                await go_on.wait()
            await rest(depositor)

        monkeypatch.setattr(Depositor, "rest", slow)
        async with alice.at(relay, FAST) as carrier:
            await until_left(alice, await alice.says(to_bob, "first"))
            await closing.wait()
            said = await alice.says(to_bob, "meanwhile")
            await alice.until(parcels.busy, bool)
            leaving = carrier._mail._leaving
            # The one who is closing was told of it, and nobody looks any more: there is no event of that.
            async with asyncio.timeout(WAIT):
                while leaving._stirred.is_set() or not any(more.is_set() for more in leaving._more.values()):
                    await alice.store.read(parcels.busy)
            monkeypatch.setattr(carrier._mail, "stir", lambda: None)
            for _ in range(50):
                await alice.store.read(parcels.busy)
            go_on.set()
            await until_left(alice, said)


@run_async
async def test_a_stamp_is_paid_by_the_mailboxs_clock_and_only_if_cheap(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    priced = limits(prices=PriceList(base=6, most=6))
    async with HttpBox(tmp_path / "box", priced) as box:
        box.clock_off = 86_400_000 * 400
        await box.stop()
        await box.start()
        await uses(bob, box)
        to_bob, _ = await meet(relay, alice, bob)
        stingy = replace(FAST, mail=replace(MAIL, dropping=replace(DROPPING, stamp_bits=5)))
        said = await alice.says(to_bob, "for work")
        async with alice.at(relay, stingy):
            await alice.until(lambda db: db.execute("SELECT sum(tries) FROM parcels").fetchone()[0], bool)
        assert await box.held(bob.keys.identity) == 0
        async with alice.at(relay, FAST):
            await until_left(alice, said)


@run_async
async def test_a_relay_that_is_down_holds_up_nothing(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    async with (
        acquainted(relay, alice, bob, HttpBox(tmp_path / "box")) as (_, to_bob, to_alice),
        CuttingProxy(relay.port, relay.public) as network,
    ):
        network.shut()
        async with alice.at(network, FAST):
            await until_left(alice, await alice.says(to_bob, "no relay"))
        async with bob.at(network, FAST):
            await bob.until(messages.received, lambda rows: rows[-1].text == "no relay", to_alice.id)


@run_async
async def test_lists_and_acknowledgements_by_the_relay(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    """An old list changes nothing, a mailbox of this very machine counts as our relay lies, and a program that never
    answers is told three times."""
    bob = Identity.generate()
    row = await alice.store.write(contacts.add, alice.now(), bob.public, nickname="Bob")
    async with HttpBox(tmp_path / "hers") as hers:
        await uses(alice, hers)
        said = await alice.says(row, "hello")
        for number in range(4):
            async with alice.at(relay, FAST), ScriptedPeer(relay, bob, alice.keys.identity.public) as peer:
                await peer.until_there()
                if number == 0:
                    assert (await peer.next(Text)).uuid == said.uuid
                    await peer.say(DeliveryAck(said.uuid))
                    await alice.until_delivered(said)
                if number < 3:
                    assert (await peer.next(Mailboxes)).cards == (hers.card,)
                else:
                    await peer.say(Text(messages.uuid(), "yes?"))
                    assert isinstance(await peer.any(), DeliveryAck)  # and no list before it
                    await peer.say(Mailboxes(7, (Listed(hers.card),)), Mailboxes(6, ()), Acks(read=(said.uuid,)))
                    for _ in range(2):
                        await peer.next(ChangeAck)
                    await alice.until(messages.get, lambda row: row.state is State.READ, said.id)
        assert [place.card for place in await alice.store.read(mailboxes.of_contact, row.id)] == [hers.card]
        assert (await alice.store.read(contacts.get, row.id)).extended


def _parcels(db: object) -> list[tuple[str, str]]:
    rows = db.execute("SELECT what, state FROM parcels WHERE what != 'cards' ORDER BY what, id")  # type: ignore[attr-defined]
    return [tuple(row) for row in rows]
