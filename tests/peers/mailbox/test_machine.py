"""Deposit, hand out, acknowledge, take back, end, restart, in any order: against a model that is obvious.

The model is a list for each recipient. What it says is what the mailbox must do, item by item: so nothing that was
confirmed is lost before its time, nothing is handed out after its ACK, and no quota is exceeded.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from peers.mailbox import rules
from peers.mailbox.app import AppSession
from peers.mailbox.rules import HOUR, Refused
from tests.peers.mailbox.lab import ALICE, BOB, CAROL, Box, asked, check_sums, content, limits, secret
from tests.peers.mailbox.nats import Nats, check_stream
from wire import mailbox_commands as asks
from wire.mailbox_answers import Delivery
from wire.mailbox_codes import MailboxCommand, Reason, Word

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from keys.identity import Identity
    from wire.mailbox_answers import Lease

PEOPLE = (ALICE, BOB)
LIMITS = limits(
    recipient_items=4,
    recipient_bytes=9096,
    total_items=6,
    item_bytes=4096,
    leased=3,
    fetch_items=2,
    marker_days=10_000,
)
WHO = st.sampled_from(PEOPLE)


@dataclass
class Thing:
    """One held item."""

    bytes: bytes
    secret: int
    expires: int
    envelope: bool
    leased_until: float = 0.0
    aside: bool = False
    ends_else: int = 0
    number: int | None = None


class Mailboxes(RuleBasedStateMachine):
    """The mailbox, and what it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="mailbox-"))
        self.box = Box(self.directory / "box.db", LIMITS)
        self.run(self.open_box())
        self.held: dict[Identity, list[Thing]] = {who: [] for who in PEOPLE}
        self.refused: dict[Identity, int] = dict.fromkeys(PEOPLE, 0)
        self.past: list[tuple[Identity, Lease]] = []
        self.made = 0
        self.nonces = 0
        self.forget_sessions()

    async def open_box(self) -> None:
        # Nobody pulls the plug here (test_killed.py does): without syncs it goes ten times as far in the same time.
        await self.box.open()
        self.box.store._database._writer.execute("PRAGMA synchronous = OFF")

    async def reopen_box(self) -> None:
        await self.box.store.close()
        self.box.tick = 5.0
        await self.open_box()

    def check(self) -> None:
        check_sums(self.box.path)

    def teardown(self) -> None:
        self.run(self.box.store.close())
        self.check()
        self.runner.close()
        shutil.rmtree(self.directory)

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    def forget_sessions(self) -> None:
        self.apps = {who: AppSession(self.box.mailbox, who.public.x_pub) for who in (*PEOPLE, CAROL)}
        self.open: dict[Identity, tuple[Thing, float]] = {}

    def nonce(self) -> bytes:
        self.nonces += 1
        return self.nonces.to_bytes(24, "little")

    # --- The model ---

    def size(self, things: list[Thing]) -> int:
        return sum(len(thing.bytes) for thing in things)

    def fits(self, who: Identity, size: int) -> bool:
        """Tell whether there is room, after what is set aside has given way."""
        all_items = sum(map(len, self.held.values()))
        mine = self.held[who]

        def room() -> bool:
            return len(mine) < 4 and self.size(mine) + size <= LIMITS.recipient_bytes and all_items < 6

        real = [thing for thing in mine if not thing.aside]
        if len(real) < 4 and self.size(real) + size <= LIMITS.recipient_bytes:
            while not room() and any(thing.aside for thing in mine):
                mine.remove(next(thing for thing in mine if thing.aside))
                all_items -= 1
        return room()

    def available(self, who: Identity) -> list[Thing]:
        at = self.box.at
        return [
            thing
            for thing in self.held[who]
            if not thing.aside and thing.expires > at.now and thing.leased_until <= at.tick
        ]

    # --- Deposits ---

    @rule(who=WHO, ttl=st.sampled_from([0, 60, 4000, 86400]), large=st.booleans())
    def deposit(self, who: Identity, ttl: int, large: bool) -> None:
        self.made += 1
        deposit = content(self.made, 4096 if large else 1024)
        expected = self.fits(who, len(deposit))
        expires = rules.expiry(self.box.at.now, ttl * 1000, LIMITS)
        try:
            kept = self.run(self.box.deposit(asked(self.made, who, ttl=ttl, deposit=deposit)))
        except Refused as refusal:
            assert refusal.reason is Reason.FULL
            assert not expected
            self.refused[who] += 1
            return
        assert expected
        assert kept.expires_in >= ttl
        self.held[who].append(Thing(deposit, self.made, expires, envelope=False))

    @rule(who=WHO, at=st.integers(0, 9))
    def deposit_again(self, who: Identity, at: int) -> None:
        """What is held already is confirmed again, however full the mailbox is."""
        things = [thing for thing in self.held[who] if not thing.envelope]
        if things:
            thing = things[at % len(things)]
            self.run(self.box.deposit(asked(thing.secret, who, deposit=thing.bytes)))

    @rule(who=WHO, at=st.integers(0, 9))
    def drop(self, who: Identity, at: int) -> None:
        things = [thing for thing in self.held[who] if not thing.envelope]
        wanted = things[at % len(things)].secret if things and at else 1_000_000
        answer = self.run(self.box.says(asks.Drop(1, who.public.x_pub, secret(wanted))))
        gone = [thing for thing in things if thing.secret == wanted]
        assert answer.found is bool(gone)
        for thing in gone:
            self.forget(who, thing)

    def forget(self, who: Identity, thing: Thing) -> None:
        self.held[who].remove(thing)
        thing.leased_until = 0.0

    # --- Recipients ---

    @rule(who=WHO, limit=st.integers(0, 5))
    def fetch(self, who: Identity, limit: int) -> None:
        at = self.box.at
        out = sum(thing.leased_until > at.tick for thing in self.held[who])
        expected = self.available(who)[: max(0, min(limit, 2, 3 - out))]
        lease = self.run(self.box.fetch(who, limit))
        assert [item.content for item in lease.items] == [thing.bytes for thing in expected]
        assert lease.refusals == self.refused[who]
        for thing, item in zip(expected, lease.items, strict=True):
            assert thing.number in (None, item.number)
            thing.number = item.number
            thing.leased_until = at.tick + LIMITS.lease
        self.past.append((who, lease))

    @rule(at=st.integers(0, 20), refusals=st.booleans())
    def acknowledge(self, at: int, refusals: bool) -> None:
        """One of the leases that ever were, as often as it comes; of somebody else it deletes nothing."""
        if not self.past:
            return
        who, lease = self.past[at % len(self.past)]
        numbers = tuple(item.number for item in lease.items)
        for other in PEOPLE:
            if other is not who:
                assert self.run(self.box.says(asks.Ack(1, numbers), other)).count == 0
        told = min(lease.refusals, self.refused[who]) if refusals else 0
        answer = self.run(self.box.says(asks.Ack(1, numbers, told), who))
        gone = [thing for thing in self.held[who] if thing.number in numbers]
        assert answer.count == len(gone)
        self.refused[who] -= told
        for thing in gone:
            self.forget(who, thing)

    # --- The web app ---

    @rule(who=WHO, again=st.booleans())
    def store(self, who: Identity, again: bool) -> None:
        envelopes = [thing for thing in self.held[who] if thing.envelope]
        if again and envelopes:
            env, expected = envelopes[0].bytes, True
        else:
            self.made += 1
            env = (CAROL.public.x_pub + self.made.to_bytes(8, "little")).ljust(1500, b"\0")
            expected = self.fits(who, len(env))
            if expected:
                expires = rules.expiry(self.box.at.now, 0, LIMITS)
                self.held[who].append(Thing(env, 0, expires, envelope=True))
            else:
                self.refused[who] += 1
        answer = self.run(self.apps[CAROL].serve(asks.Store(who.public.x_pub, env), self.nonce(), self.box.at))
        assert answer == Word(MailboxCommand.STORED if expected else MailboxCommand.FULL)

    @rule(who=WHO)
    def fetch_next(self, who: Identity) -> None:
        at = self.box.at
        opened = self.open.pop(who, None)
        if opened is not None:
            thing, since = opened
            in_time = at.tick - since <= LIMITS.app_patience
            if in_time and thing in self.held[who] and not thing.aside:
                thing.aside = True
                until = -(-(at.now + LIMITS.app_grace) // HOUR) * HOUR
                thing.ends_else, thing.expires = thing.expires, min(thing.expires, until)
                thing.leased_until = 0.0
            elif not in_time and thing.leased_until == since + LIMITS.lease:
                thing.leased_until = 0.0
        out = sum(thing.leased_until > at.tick for thing in self.held[who])
        envelopes = [thing for thing in self.available(who) if thing.envelope] if out < 3 else []
        answer = self.run(self.apps[who].serve(Word(MailboxCommand.FETCH_NEXT), self.nonce(), at))
        if envelopes:
            assert answer == Delivery(envelopes[0].bytes)
            envelopes[0].leased_until = at.tick + LIMITS.lease
            self.open[who] = (envelopes[0], at.tick)
        else:
            assert answer == Word(MailboxCommand.EMPTY)

    @rule(who=WHO)
    def read_all(self, who: Identity) -> None:
        """As the app does when it comes."""
        for _ in range(4):
            self.fetch_next(who)

    @rule(who=WHO)
    def restore(self, who: Identity) -> None:
        things = [thing for thing in self.held[who] if thing.aside and thing.expires > self.box.at.now]
        assert self.run(self.box.says(asks.Restore(1), who)).count == len(things)
        for thing in things:
            thing.aside = False
            thing.expires = thing.ends_else

    # --- Time ---

    @rule(seconds=st.sampled_from([0.5, 7.0, 9.0, 61.0, 1800.0, 90_000.0]))
    def passes(self, seconds: float) -> None:
        self.box.passes(seconds)

    @rule(hours=st.integers(-100, 100))
    def the_clock_jumps(self, hours: int) -> None:
        self.box.wall += hours * HOUR

    @rule()
    def tend(self) -> None:
        now = self.box.at.now
        ended = [(who, thing) for who in PEOPLE for thing in self.held[who] if thing.expires <= now]
        assert self.run(self.box.tend()) >= len(ended)
        for who, thing in ended:
            self.held[who].remove(thing)

    @rule()
    def restart(self) -> None:
        self.run(self.reopen_box())
        for things in self.held.values():
            for thing in things:
                thing.leased_until = 0.0
        self.forget_sessions()

    @invariant()
    def counts_agree(self) -> None:
        for who in PEOPLE:
            things = [thing for thing in self.held[who] if not thing.aside]
            counts = self.run(self.box.says(asks.List(1), who))
            assert (counts.items, counts.size) == (len(things), self.size(things))
            assert counts.leased == sum(thing.leased_until > self.box.tick for thing in things)
            assert counts.restorable == len(self.held[who]) - len(things)
            assert counts.refusals == self.refused[who]
            assert counts.items + counts.restorable <= LIMITS.recipient_items
        totals = self.run(self.box.store.totals())
        assert totals.items == sum(map(len, self.held.values())) <= LIMITS.total_items


TestMailboxes = Mailboxes.TestCase
TestMailboxes.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


class StreamMailboxes(Mailboxes):
    """The same above JetStream."""

    nats: ClassVar[Nats]
    changed: ClassVar[dict[str, Any]] = {}

    async def open_box(self) -> None:
        self.box.open_store = partial(self.nats.open, self.box.path, LIMITS, **self.changed)  # type: ignore[method-assign]
        await self.box.open()

    def check(self) -> None:
        self.run(check_stream(self.nats.settings(self.box.path), LIMITS))


class DeletingMailboxes(StreamMailboxes):
    """The same without overwriting what is deleted."""

    changed: ClassVar[dict[str, Any]] = {"overwrite": False}


TestStreamMailboxes = StreamMailboxes.TestCase
TestStreamMailboxes.settings = settings(max_examples=12, stateful_step_count=50, deadline=None)
TestDeletingMailboxes = DeletingMailboxes.TestCase
TestDeletingMailboxes.settings = settings(max_examples=8, stateful_step_count=50, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _server(nats: Nats) -> None:
    StreamMailboxes.nats = nats
