"""The mailbox as a peer of a relay, without sockets: what the relay's client tells, and what is sent through it."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from keys.contact import Contact
from keys.identity import Identity, PublicIdentity
from peers.client import (
    Connected,
    Disconnected,
    Event,
    Introduction,
    NotConnected,
    PeerPacket,
    PeersOffline,
    Reason,
    Undelivered,
)
from peers.mailbox.meter import Metrics
from peers.mailbox.relay_face import RelayFace
from peers.mailbox.settings_limits import LimitSettings
from peers.mailbox.store import StoreError
from peers.mailbox.strangers import Strangers
from peers.mailbox.trouble import Trouble
from tests.peers.mailbox.lab import ALICE, BOB, CAROL, Box, asked, content, contents
from tests.support.clients import WAIT, run_async
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks
from wire.inner import Inner, parse_inner
from wire.mailbox_answers import parse_from_mailbox
from wire.mailbox_codes import MailboxCommand, Word
from wire.mailbox_codes import Reason as Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

US = Identity(b"m" * 32, b"M" * 32)
ENVELOPE = ALICE.public.x_pub + bytes(104)


class Relay:
    """What the face sees of a relay client."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.sent: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self.introduced: asyncio.Queue[bytes] = asyncio.Queue()
        self.watched: set[bytes] = set()
        self.open = True
        self.goes = asyncio.Event()
        self.goes.set()

    def __aiter__(self) -> Relay:
        return self

    async def __anext__(self) -> Event:
        event = await self.events.get()
        if event is None:
            raise StopAsyncIteration
        return event

    async def send(self, recipient_id: bytes, packet: bytes) -> None:
        await self.goes.wait()
        if not self.open:
            raise NotConnected("it is over")
        self.sent.put_nowait((recipient_id, packet))

    async def introduce(self, target_id: bytes, nickname: str) -> None:
        assert nickname == "mailbox"
        self.introduced.put_nowait(target_id)

    async def watch(self, x_pubs: list[bytes]) -> None:
        self.watched |= set(x_pubs)

    async def unwatch(self, x_pubs: list[bytes]) -> None:
        self.watched -= set(x_pubs)


class Lab:
    def __init__(self, box: Box, **limits: Any) -> None:
        self.box = box
        self.relay = Relay()
        self.metrics = Metrics(box.mailbox)
        self.settings = LimitSettings(**limits)
        self.face = RelayFace(
            box.mailbox, US, self.settings, self.metrics, Trouble(self.metrics), moment=lambda _: box.at
        )

    def figure(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"blindrelay_mailbox_{name}", labels) or 0.0

    def comes(self, who: Identity) -> None:
        self.relay.events.put_nowait(Introduction(who.public, "nobody needs to know"))

    def say(self, who: Identity, body: Any) -> bytes:
        packet = Contact(who, US.public).seal(Inner(7, body.command, body.encode()).encode())
        self.relay.events.put_nowait(PeerPacket(who.id, packet))
        return packet

    async def hear(self, who: Identity) -> Any:
        """The answer that comes next, which must be for this client; `self.nonce` is of its packet."""
        async with asyncio.timeout(WAIT):
            to, packet = await self.relay.sent.get()
        assert to == who.id
        self.nonce = packet[:24]
        inner = parse_inner(Contact(who, US.public).open(packet))
        return parse_from_mailbox(inner.command, inner.body)

    async def asks(self, who: Identity, body: Any) -> Any:
        self.say(who, body)
        return await self.hear(who)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT):
            while not holds():  # noqa: ASYNC110 - of a count there is no event
                await asyncio.sleep(0)


@asynccontextmanager
async def served(path: Path, **limits: Any) -> AsyncIterator[Lab]:
    async with Box(path / "box.db") as box:
        lab = Lab(box, **limits)
        running = asyncio.create_task(lab.face.run(lab.relay))  # type: ignore[arg-type]
        lab.relay.events.put_nowait(Connected())
        try:
            yield lab
        finally:
            lab.relay.events.put_nowait(None)
            await running
            assert await lab.face.finish(WAIT) == 0
            assert lab.figure("failures_total", kind="internal") == 0


@run_async
async def test_a_deposit_from_end_to_end(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        throwaway = Identity.generate()
        lab.comes(throwaway)
        assert isinstance(await lab.asks(throwaway, asked(1)), answers.Kept)
        lab.comes(BOB)
        lease = await lab.asks(BOB, asks.Fetch(2, 10))
        assert (lease.request, contents(lease)) == (2, [1])
        assert await lab.asks(BOB, asks.Ack(3, (lease.items[0].number,))) == answers.Acked(3, 1)
        assert (await lab.asks(BOB, asks.List(4))).items == 0
        lab.comes(CAROL)
        assert (await lab.asks(CAROL, asks.Info(5))).ttl == 14 * 86400
        assert lab.face.connected
        assert lab.figure("request_seconds_count", face="relay", command="deposit") == 1


@run_async
async def test_many_of_one_client_keep_their_order(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        lab.comes(ALICE)
        for number in range(60):
            lab.say(ALICE, asked(number))
        for _ in range(60):
            assert isinstance(await lab.hear(ALICE), answers.Kept)
        lab.comes(BOB)
        assert contents(await lab.asks(BOB, asks.Fetch(1, 64))) == list(range(60))


@run_async
async def test_strangers_are_not_answered(tmp_path: Path) -> None:
    """Without their keys there is nothing to open or to seal."""
    async with served(tmp_path) as lab:
        lab.say(ALICE, asked(1))
        await lab.until(lambda: lab.figure("unreadable_total", reason="unknown_sender") == 1)
        lab.comes(ALICE)
        lab.relay.events.put_nowait(PeerPacket(ALICE.id, bytes(200)))
        await lab.until(lambda: lab.figure("unreadable_total", reason="unopened") == 1)
        assert isinstance(await lab.asks(ALICE, asked(1)), answers.Kept)


@run_async
async def test_a_relay_that_tells_wrong_keys_picks_up_nothing(tmp_path: Path) -> None:
    """It can introduce Bob's X25519 key with an Ed25519 key of its own; what opens is then what Bob or we sealed."""
    async with served(tmp_path) as lab:
        lab.comes(BOB)
        await lab.asks(BOB, asks.List(1))
        forger = Identity.generate()
        lab.relay.events.put_nowait(Introduction(PublicIdentity(BOB.public.x_pub, forger.public.ed_pub), ""))
        packet = lab.say(BOB, asks.Fetch(2, 1))  # Bob's own do not open any more: the relay could drop them as well
        await lab.until(lambda: lab.figure("unreadable_total", reason="unopened") == 1)
        lab.comes(BOB)
        lab.say(BOB, asks.List(1))
        await lab.until(lambda: not lab.relay.sent.empty())
        _, answer = lab.relay.sent.get_nowait()
        lab.relay.events.put_nowait(Introduction(PublicIdentity(BOB.public.x_pub, forger.public.ed_pub), ""))
        signed = answer[:-64]
        lab.relay.events.put_nowait(PeerPacket(BOB.id, signed + forger.sign(signed)))
        await lab.until(lambda: lab.figure("unreadable_total", reason="not_asked") == 1)
        assert packet != answer


@run_async
async def test_what_does_not_fit_its_layout_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        lab.comes(BOB)
        packet = Contact(BOB, US.public).seal(Inner(1, MailboxCommand.FETCH, (9).to_bytes(4, "little")).encode())
        lab.relay.events.put_nowait(PeerPacket(BOB.id, packet))
        assert await lab.hear(BOB) == answers.Refused(9, Refusal.BAD_REQUEST)
        packet = Contact(BOB, US.public).seal(Inner(1, MailboxCommand.STORE, b"x").encode())
        lab.relay.events.put_nowait(PeerPacket(BOB.id, packet))  # the app knows no answer for that
        assert isinstance(await lab.asks(BOB, asks.List(1)), answers.Counts)
        assert lab.figure("unreadable_total", reason="malformed") == 2


@run_async
async def test_what_was_handed_out_does_not_stay_in_memory(tmp_path: Path) -> None:
    """2,048 of these are remembered, should the relay say that one was not delivered; a LEASE has up to a megabyte."""
    async with served(tmp_path) as lab:
        await lab.box.deposit(asked(1, deposit=content(1, 262_144)))
        lab.comes(BOB)
        # Other tests of this process may have left some, in failures that are kept. By type(): isinstance() asks a
        # weak proxy for what it stands for, which may be gone.
        known = {id(each): each for each in gc.get_objects() if type(each) is answers.Item}
        lease = await lab.asks(BOB, asks.Fetch(1, 64))
        (left,) = lease.items
        assert left.content == content(1, 262_144)
        gc.collect()
        items = [each for each in gc.get_objects() if type(each) is answers.Item and id(each) not in known]
        assert [each is left for each in items] == [True]


# --- The web app's codes ----------------------------------------------------------------------------------------------


@run_async
async def test_the_apps_codes(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        lab.comes(ALICE)
        assert await lab.asks(ALICE, asks.Store(BOB.public.x_pub, ENVELOPE)) == Word(MailboxCommand.STORED)
        lab.comes(BOB)
        fetch_next = Word(MailboxCommand.FETCH_NEXT)
        assert await lab.asks(BOB, fetch_next) == answers.Delivery(ENVELOPE)
        assert lab.relay.watched == {ALICE.public.x_pub, BOB.public.x_pub}
        lab.relay.events.put_nowait(Undelivered(BOB.id, lab.nonce))
        assert await lab.asks(BOB, fetch_next) == answers.Delivery(ENVELOPE)
        lab.relay.events.put_nowait(PeersOffline((BOB.public.x_pub,)))
        assert await lab.asks(BOB, fetch_next) == answers.Delivery(ENVELOPE)
        lab.relay.events.put_nowait(Disconnected(Reason.LOST, "it broke", 1.0))
        lab.relay.events.put_nowait(Connected())
        assert await lab.asks(BOB, fetch_next) == answers.Delivery(ENVELOPE)
        assert await lab.asks(BOB, fetch_next) == Word(MailboxCommand.EMPTY)
        assert await lab.asks(BOB, asks.Delete(BOB.public.x_pub, ENVELOPE)) == Word(MailboxCommand.NOT_FOUND)
        assert await lab.asks(BOB, asks.Restore(1)) == answers.Restored(1, 1)


@run_async
async def test_a_repeated_request_of_the_app_acknowledges_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        lab.comes(ALICE)
        lab.comes(BOB)
        await lab.asks(ALICE, asks.Store(BOB.public.x_pub, ENVELOPE))
        packet = lab.say(BOB, Word(MailboxCommand.FETCH_NEXT))
        assert await lab.hear(BOB) == answers.Delivery(ENVELOPE)
        lab.relay.events.put_nowait(PeerPacket(BOB.id, packet))
        assert (await lab.asks(BOB, asks.List(1))).items == 1


@run_async
async def test_we_introduce_ourselves_to_those_who_may_not_have_our_card(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        lab.comes(ALICE)
        await lab.asks(ALICE, asks.Info(1))
        lab.comes(BOB)
        async with asyncio.timeout(WAIT):
            assert await lab.relay.introduced.get() == BOB.id
        assert lab.relay.introduced.empty()


# --- Answers that do not arrive ---------------------------------------------------------------------------------------


@run_async
async def test_a_lease_that_did_not_arrive_ends_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        lab.comes(ALICE)
        lab.comes(BOB)
        for number in range(3):
            await lab.asks(ALICE, asked(number))
        assert contents(await lab.asks(BOB, asks.Fetch(1, 2))) == [0, 1]
        lab.relay.events.put_nowait(Undelivered(BOB.id, lab.nonce))
        await lab.until(lambda: lab.figure("unsent_total") == 1)
        assert contents(await lab.asks(BOB, asks.Fetch(2, 5))) == [0, 1, 2]
        lab.box.passes(61)
        lab.relay.open = False
        lab.say(BOB, asks.Fetch(3, 5))
        await lab.until(lambda: lab.figure("unsent_total") == 2)
        lab.relay.open = True
        assert contents(await lab.asks(BOB, asks.Fetch(4, 5))) == [0, 1, 2]


# --- Bounds -----------------------------------------------------------------------------------------------------------


@run_async
async def test_of_one_client_so_much_is_under_way(tmp_path: Path) -> None:
    async with served(tmp_path, session_in_progress=2) as lab:
        lab.comes(ALICE)
        lab.comes(BOB)
        held = asyncio.Event()
        deposit = lab.box.store.deposit

        async def slow(*arguments: Any) -> int:
            await held.wait()
            kept: int = await deposit(*arguments)
            return kept

        lab.box.store.deposit = slow
        for number in range(3):
            lab.say(ALICE, asked(number))
        assert await lab.hear(ALICE) == answers.Refused(2, Refusal.TOO_FAST)
        assert (await lab.asks(BOB, asks.List(1))).items == 0  # others are served
        held.set()
        assert {(await lab.hear(ALICE)).request for _ in range(2)} == {0, 1}
        assert isinstance(await lab.asks(ALICE, asked(4)), answers.Kept)


@run_async
async def test_of_all_so_much_is_under_way_and_the_relay_waits(tmp_path: Path) -> None:
    async with served(tmp_path, in_progress=3) as lab:
        lab.relay.goes.clear()  # answers that nobody takes
        people = [Identity.generate() for _ in range(8)]
        for each in people:
            lab.comes(each)
            lab.say(each, asks.Info(1))
        await lab.until(lambda: lab.figure("in_progress", face="relay") == 3)
        for _ in range(100):
            await asyncio.sleep(0)
        assert lab.relay.events.qsize() >= 8  # not taken
        lab.relay.goes.set()
        for _ in people:
            async with asyncio.timeout(WAIT):
                await lab.relay.sent.get()
        assert lab.figure("in_progress", face="relay") == 0


@run_async
async def test_the_bytes_of_all_are_bounded(tmp_path: Path) -> None:
    async with served(tmp_path, in_progress_bytes=1 << 20) as lab:
        lab.relay.goes.clear()
        lab.comes(ALICE)
        for number in range(6):
            lab.say(ALICE, asked(number, deposit=bytes(262144)))
        await lab.until(lambda: lab.figure("in_progress", face="relay") == 3)
        for _ in range(100):
            await asyncio.sleep(0)
        assert lab.figure("in_progress", face="relay") == 3
        lab.relay.goes.set()
        for _ in range(6):
            await lab.hear(ALICE)


@run_async
async def test_what_is_handed_out_counts_before_it_is_there(tmp_path: Path) -> None:
    async with served(tmp_path, in_progress_bytes=1 << 20) as lab:
        lab.relay.goes.clear()
        for who in (BOB, CAROL):
            lab.comes(who)
            for number in range(4):
                lab.say(who, asks.Fetch(number, 1))
        await lab.until(lambda: lab.figure("in_progress", face="relay") == 3)
        for _ in range(100):
            await asyncio.sleep(0)
        assert lab.figure("in_progress", face="relay") == 3
        lab.relay.goes.set()
        for _ in range(8):
            async with asyncio.timeout(WAIT):
                await lab.relay.sent.get()


@run_async
async def test_at_the_end_what_is_under_way_is_answered_and_nothing_begun(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        lab.relay.goes.clear()
        lab.comes(ALICE)
        lab.say(ALICE, asked(1))
        await lab.until(lambda: lab.figure("in_progress", face="relay") == 1)
        finishing = asyncio.create_task(lab.face.finish(WAIT))
        await asyncio.sleep(0)
        lab.say(ALICE, asked(2))
        lab.relay.goes.set()
        assert isinstance(await lab.hear(ALICE), answers.Kept)
        assert await finishing == 0
        assert (await lab.box.store.totals()).items == 1


@run_async
async def test_what_cannot_be_finished_in_time_is_counted(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        lab.relay.goes.clear()
        lab.comes(ALICE)
        lab.say(ALICE, asked(1))
        await lab.until(lambda: lab.figure("in_progress", face="relay") == 1)
        assert await lab.face.finish(0.0) == 1
        lab.relay.goes.set()


@run_async
async def test_a_store_that_fails_when_the_app_goes_ends_no_service(tmp_path: Path) -> None:
    async with served(tmp_path) as lab:
        lab.comes(ALICE)
        lab.comes(BOB)
        await lab.asks(ALICE, asks.Store(BOB.public.x_pub, ENVELOPE))
        await lab.asks(BOB, Word(MailboxCommand.FETCH_NEXT))
        release = lab.box.store.release

        async def fails(*_: object) -> None:
            raise StoreError("the disk is full")

        lab.box.store.release = fails
        lab.relay.events.put_nowait(PeersOffline((BOB.public.x_pub,)))
        await lab.until(lambda: lab.figure("failures_total", kind="store") == 1)
        lab.box.store.release = release
        assert isinstance(await lab.asks(BOB, asks.List(1)), answers.Counts)


# --- Who is known -----------------------------------------------------------------------------------------------------


def test_those_heard_least_lately_are_forgotten() -> None:
    known = Strangers(US, 2)
    for who in (ALICE, BOB):
        assert known.introduced(who.public) is not None
    assert known.heard(ALICE.id) is not None
    assert known.introduced(CAROL.public) is not None
    assert known.heard(BOB.id) is None
    assert known.heard(ALICE.id) is not None
    assert len(known) == 2


def test_the_latest_keys_of_an_id_count_and_the_same_ones_change_nothing() -> None:
    known = Strangers(US, 2)
    first = known.introduced(ALICE.public)
    assert known.introduced(ALICE.public) is first
    other = PublicIdentity(ALICE.public.x_pub, BOB.public.ed_pub)
    second = known.introduced(other)
    assert second is not None
    assert known.find(ALICE.id) is second
    assert second.contact.public == other


@pytest.mark.parametrize("public", [US.public, PublicIdentity(US.public.x_pub, BOB.public.ed_pub)])
def test_our_own_keys_are_nobodys(public: PublicIdentity) -> None:
    assert Strangers(US, 2).introduced(public) is None
