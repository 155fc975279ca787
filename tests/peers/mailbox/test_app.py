"""The web app's codes: its way of acknowledging is a guess, and these are the guesses."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest

from peers.mailbox.app import AppSession, AppSessions
from peers.mailbox.price import PriceList
from peers.mailbox.quotas import Rate
from peers.mailbox.rules import DAY, AccessRule, Limits, token_digest
from tests.peers.mailbox.lab import ALICE, BOB, CAROL, Box, asked, contents, limits
from tests.support.clients import run_async
from wire import mailbox_commands as asks
from wire.mailbox_answers import Delivery
from wire.mailbox_codes import ItemKind, MailboxCommand, Word

if TYPE_CHECKING:
    from pathlib import Path

    from keys.identity import Identity

pytestmark = pytest.mark.usefixtures("both_stores")

NEXT = Word(MailboxCommand.FETCH_NEXT)
EMPTY, FULL, STORED = Word(MailboxCommand.EMPTY), Word(MailboxCommand.FULL), Word(MailboxCommand.STORED)
NOT_FOUND, TOO_BIG = Word(MailboxCommand.NOT_FOUND), Word(MailboxCommand.TOO_BIG)


def env(number: int, sender: Identity = ALICE, size: int = 136) -> bytes:
    return (sender.public.x_pub + number.to_bytes(8, "little")).ljust(size, b"\0")


class App:
    """One client of the app, whose packets are all new."""

    def __init__(self, box: Box, who: Identity) -> None:
        self.box = box
        self.session = AppSession(box.mailbox, who.public.x_pub)
        self.nonces = count(1)

    async def says(self, body: asks.ForMailbox, nonce: bytes | None = None) -> Delivery | Word | None:
        return await self.session.serve(body, nonce or next(self.nonces).to_bytes(24, "little"), self.box.at)

    async def next(self) -> int | None:
        """The number of the next envelope, None if there is none."""
        answer = await self.says(NEXT)
        return int.from_bytes(answer.env[32:40], "little") if isinstance(answer, Delivery) else None

    async def store(self, number: int, to: Identity = BOB) -> Delivery | Word | None:
        return await self.says(asks.Store(to.public.x_pub, env(number)))


async def filled(box: Box, items: int) -> tuple[App, App]:
    alice, bob = App(box, ALICE), App(box, BOB)
    for number in range(items):
        assert await alice.store(number) == STORED
    return alice, bob


@run_async
async def test_the_next_fetch_in_time_acknowledges(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        _, bob = await filled(box, 3)
        assert await bob.next() == 0
        box.passes(8)
        assert await bob.next() == 1
        box.passes(8.1)
        assert await bob.next() == 1  # too late: the one before may never have arrived
        box.passes(1)
        assert [await bob.next(), await bob.next()] == [2, None]
        box.passes(DAY / 2000)
        assert await bob.next() is None


@run_async
async def test_a_delivery_that_failed_is_handed_out_again(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        _, bob = await filled(box, 2)
        assert await bob.next() == 0
        bob.session.sent(b"n" * 24)
        assert not await bob.session.undelivered(b"other" * 5)
        assert await bob.session.undelivered(b"n" * 24)
        assert not await bob.session.undelivered(b"n" * 24)
        assert [await bob.next(), await bob.next()] == [0, 1]


@run_async
async def test_a_session_that_ends_acknowledges_nothing(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        _, bob = await filled(box, 1)
        assert await bob.next() == 0
        await bob.session.closed()
        await bob.session.closed()
        assert await bob.next() == 0
        await box.restart()
        again = App(box, BOB)
        assert await again.next() == 0


@run_async
async def test_a_packet_that_comes_twice_counts_once(tmp_path: Path) -> None:
    """A relay that repeats a FETCH_NEXT would acknowledge what it withholds."""
    async with Box(tmp_path / "box.db") as box:
        _, bob = await filled(box, 2)
        nonce = b"n" * 24
        assert isinstance(await bob.says(NEXT, nonce), Delivery)
        assert await bob.says(NEXT, nonce) is None
        assert (await box.says(asks.List(1), BOB)).restorable == 0


@run_async
async def test_what_was_acknowledged_is_restorable_for_a_while(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        _, bob = await filled(box, 3)
        assert [await bob.next() for _ in range(4)] == [0, 1, 2, None]
        counts = await box.says(asks.List(1), BOB)
        assert (counts.items, counts.size, counts.restorable) == (0, 0, 3)
        assert contents(await box.fetch()) == []
        assert (await box.says(asks.Restore(1), BOB)).count == 3
        assert (await box.says(asks.Restore(1), BOB)).count == 0
        assert [await bob.next() for _ in range(3)] == [0, 1, 2]
        counts = await box.says(asks.List(1), BOB)
        assert (counts.items, counts.restorable) == (1, 2)
        box.passes(26 * 3600)
        await box.tend()
        counts = await box.says(asks.List(1), BOB)
        assert (counts.items, counts.restorable) == (1, 0)
        assert (await box.says(asks.Restore(1), BOB)).count == 0


@run_async
async def test_what_can_be_restored_gives_way(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db", limits(recipient_items=3)) as box:
        alice, bob = await filled(box, 3)
        assert [await bob.next() for _ in range(3)] == [0, 1, 2]  # 0 and 1 are acknowledged, 2 is open
        assert (await box.store.totals()).items == 3
        assert await alice.store(3) == STORED
        assert (await box.says(asks.List(1), BOB)).restorable == 1
        assert await alice.store(4) == STORED
        assert await alice.store(5) == FULL  # 2, 3 and 4 were acknowledged by nobody
        assert (await box.store.totals()).items == 3
        assert (await box.says(asks.List(1), BOB)).refusals == 1


@run_async
async def test_the_app_and_others_share_items(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        _, bob = await filled(box, 2)
        await box.deposit(asked(7))
        lease = await box.fetch()
        assert [item.kind for item in lease.items] == [ItemKind.ENVELOPE, ItemKind.ENVELOPE, ItemKind.DEPOSIT]
        assert lease.items[0].content == env(0)
        assert await bob.next() is None  # all are handed out
        box.passes(61)
        assert [await bob.next(), await bob.next(), await bob.next()] == [0, 1, None]  # what it can read, that is
        assert contents(await box.fetch()) == [7]


@run_async
async def test_who_may_store(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        alice = App(box, ALICE)
        to = BOB.public.x_pub
        assert await alice.says(asks.Store(to, env(1, CAROL))) == FULL  # not in Carol's name
        assert await alice.says(asks.Store(bytes(32), env(1))) == FULL
        assert await alice.says(asks.Store(to, env(1, size=(1 << 18) + 1))) == TOO_BIG
        assert await alice.says(asks.Store(to, env(1, size=1 << 18))) == STORED
        assert await alice.store(2) == await alice.store(2) == STORED
        assert (await box.store.totals()).items == 2


@pytest.mark.parametrize(
    ("bounds", "access"),
    [
        (limits(prices=PriceList(base=1)), AccessRule()),
        (limits(), AccessRule(tokens=(token_digest(b"token"),))),
        (limits(), AccessRule(recipients=frozenset({CAROL.public.x_pub}))),
        (replace(limits(), depositor=Rate(1, 1, 60.0)), AccessRule()),
    ],
)
@run_async
async def test_where_more_is_asked_for_than_the_app_can_give(
    tmp_path: Path, bounds: Limits, access: AccessRule
) -> None:
    async with Box(tmp_path / "box.db", bounds, access) as box:
        assert await App(box, ALICE).store(1) == FULL
        assert sum(box.mailbox.tallies.refused.values()) == 1


@run_async
async def test_delete_finds_nothing(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        alice, bob = await filled(box, 1)
        assert await alice.says(asks.Delete(BOB.public.x_pub, env(0))) == NOT_FOUND
        assert await bob.next() == 0


@run_async
async def test_what_is_not_the_apps_is_not_answered(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        bob = App(box, BOB)
        for body in (asks.Fetch(1, 1), asks.Info(1), Word(0x11), asks.parse_for_mailbox(0x05, b"")):
            assert await bob.says(body) is None


@run_async
async def test_a_store_that_fails(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        alice, bob = await filled(box, 2)
        assert await bob.next() == 0
        await box.store.close()
        assert await bob.next() is None
        assert await alice.store(3) == FULL


@run_async
async def test_sessions_by_key(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await filled(box, 1)
        sessions = AppSessions(box.mailbox, size=2)
        bob = await sessions.of(BOB.public.x_pub)
        assert isinstance(await bob.serve(NEXT, b"n" * 24, box.at), Delivery)
        await sessions.of(ALICE.public.x_pub)
        assert await sessions.of(BOB.public.x_pub) is bob
        await sessions.of(CAROL.public.x_pub)
        assert sessions.known(ALICE.public.x_pub) is None
        await sessions.of(ALICE.public.x_pub)
        assert len(sessions) == 2
        assert sessions.known(BOB.public.x_pub) is None
        assert len((await box.fetch()).items) == 1  # what Bob had open is not handed out any more
