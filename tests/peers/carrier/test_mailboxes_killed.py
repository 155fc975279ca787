"""kill -9 at every step of leaving, picking up and acknowledging: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from keys.invite import RelayCard
from peers.store import contacts, feed, mailboxes, messages, owing, parcels
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.carrier import killed
from tests.peers.carrier.conversation import WAIT, Person
from tests.peers.carrier.post_boxes import FAST, MAIL
from tests.peers.dropping.boxes import HttpBox
from tests.peers.mailbox.lab import limits
from tests.support.clients import run_async
from wire.peer_mailboxes import Listed

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

    from peers.store.contacts import ContactRow
    from tests.support.relay_process import RelayProcess

_STEPS_MAX: Final = 200
_SOON: Final = replace(FAST, mail=replace(MAIL, every=0.2))
"""What was leased to who was killed is handed out again, and asked for."""
_LIMITS: Final = limits(lease=0.3, app_patience=0.1)
_TEXTS: Final = ["one", "two", "drei"]


def start(person: Person, relay: RelayProcess, kill_at: int) -> ForkServerProcess:
    card = RelayCard(relay.public, relay.url)
    seeds = person.keys.identity.seeds
    return killed.start(seeds, person.keys.nickname, person.path, card.text, kill_at, _SOON)


async def knows(person: Person, other: Person, ours: HttpBox, theirs: HttpBox) -> ContactRow:
    """Write down what the two would have told each other, had they met."""
    row = await person.adds(other)

    def write(db: Any) -> None:
        contacts.met(db, row.id, extended=True)
        mailboxes.add_own(db, person.now(), ours.card)
        mailboxes.tell_settled(db, row.id, mailboxes.serial(db))
        mailboxes.heard(db, person.now(), row.id, 1, (Listed(theirs.card),))

    await person.store.write(write)
    return row


async def alive(process: ForkServerProcess, done: asyncio.Task[Any]) -> bool:
    """Wait until the task is done or the process is dead; whether it lives."""
    dead = asyncio.create_task(asyncio.to_thread(process.join, WAIT))
    await asyncio.wait([dead, done], return_when=asyncio.FIRST_COMPLETED)
    if done.done():
        process.kill()
        await dead
        return True
    assert process.exitcode == -signal.SIGKILL
    return False


class Pair:
    """Alice, Bob and their mailboxes, for one run."""

    def __init__(self, directory: Path) -> None:
        self.alice, self.bob = Person(directory, "Alice"), Person(directory, "Bob")
        self.his, self.hers = HttpBox(directory / "his", _LIMITS), HttpBox(directory / "hers", _LIMITS)
        self.said: list[int] = []

    async def meet(self) -> None:
        self.to_bob = await knows(self.alice, self.bob, self.hers, self.his)
        self.to_alice = await knows(self.bob, self.alice, self.his, self.hers)
        for text in _TEXTS[:2]:
            await self.say(text)

    async def say(self, text: str) -> int:
        self.said.append((await self.alice.says(self.to_bob, text)).id)
        return self.said[-1]

    async def leave(self) -> None:
        """What has to be left is left, and of one that was left the words change."""
        await _until(self.alice, _at_rest)
        third = await self.say("three")
        await self.alice.until(messages.get, lambda row: row.left == 1, third)
        await self.alice.store.write(messages.edit, self.alice.now(), third, _TEXTS[2])
        await _until(self.alice, _at_rest)

    async def leave_the_rest(self) -> None:
        """The same for one who died somewhere on the way."""
        if len(self.said) < 3:
            await self.say(_TEXTS[2])
        elif (await self.alice.store.read(messages.get, self.said[2])).text != _TEXTS[2]:
            await self.alice.store.write(messages.edit, self.alice.now(), self.said[2], _TEXTS[2])
        await _until(self.alice, _at_rest)

    async def taken(self) -> None:
        await _until(self.bob, _all_paid)
        await self.his.until_held(self.bob.keys.identity, 0)

    async def check(self, relay: RelayProcess) -> None:
        assert await self.bob.heard(self.to_alice) == _TEXTS
        events = await self.bob.store.read(feed.read, 0)
        told = [event.message for event in events if event.kind is Kind.MESSAGE]
        assert len(told) == len(set(told)) == 3
        async with self.alice.at(relay, _SOON):
            for message in self.said:
                await self.alice.until(messages.get, lambda row: row.state is State.DELIVERED, message)
            await self.hers.until_held(self.alice.keys.identity, 0)
        for person in (self.alice, self.bob):
            await person.store.close()


@pytest.mark.parametrize("victim", ["sender", "receiver"])
@run_async
async def test_killed_at_every_step(relay: RelayProcess, tmp_path: Path, victim: str) -> None:
    survived = False
    kills = 0
    # Each second one: nothing is done between the end of one step and the beginning of the next.
    for kill_at in range(1, _STEPS_MAX, 2):
        pair = Pair(tmp_path / str(kill_at))
        async with pair.his, pair.hers:
            await pair.meet()
            if victim == "sender":
                survived = await _suffer(pair.alice, relay, kill_at, pair.leave())
                if not survived:
                    assert await alive(start(pair.alice, relay, 0), asyncio.create_task(pair.leave_the_rest()))
            else:
                async with pair.alice.at(relay, _SOON):
                    await pair.leave()
            # However often a deposit was repeated, the mailbox holds it once.
            assert await pair.his.held(pair.bob.keys.identity) == 3
            if victim == "sender":
                async with pair.bob.at(relay, _SOON):
                    await pair.taken()
            else:
                survived = await _suffer(pair.bob, relay, kill_at, pair.taken())
                if not survived:
                    assert await alive(start(pair.bob, relay, 0), asyncio.create_task(pair.taken()))
            await pair.check(relay)
        kills += not survived
        if survived:
            break
    assert survived, f"still killed at step {_STEPS_MAX}"
    assert kills > 5


async def _suffer(person: Person, relay: RelayProcess, kill_at: int, work: Coroutine[Any, Any, None]) -> bool:
    """Let a process do its work until it is killed; whether it got to the end."""
    process = start(person, relay, kill_at)
    task = asyncio.create_task(work)
    survived = await alive(process, task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return survived


async def _until(person: Person, holds: Any) -> None:
    await person.until(holds, bool)


def _at_rest(db: Any) -> bool:
    """All that is written lies in a mailbox as it is now, and nothing else does."""
    texts = db.execute("SELECT id, edited_at FROM messages WHERE outgoing = 1").fetchall()
    rows = db.execute("SELECT message, revision, state FROM parcels WHERE what = 'text'").fetchall()
    return sorted(map(tuple, rows)) == sorted((each[0], each[1] or 0, "kept") for each in texts)


def _all_paid(db: Any) -> bool:
    """All came, and nothing is owed any more or on its way to a mailbox."""
    (came,) = db.execute("SELECT count(*) FROM messages WHERE outgoing = 0").fetchone()
    return came == 3 and not owing.creditors(db) and not parcels.busy(db)
