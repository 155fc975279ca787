"""kill -9 at every step: nothing that was written or acknowledged is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

import pytest

from keys.invite import RelayCard
from peers.store import feed, messages, unsettled
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.carrier import killed
from tests.peers.carrier.conversation import WAIT, Person
from tests.support.clients import run_async

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

_STEPS_MAX: Final = 200
"""Far more steps than there are: the loops end by themselves once a run is not killed any more."""


def start(person: Person, relay: RelayProcess, kill_at: int) -> ForkServerProcess:
    card = RelayCard(relay.public, relay.url)
    return killed.start(person.keys.identity.seeds, person.keys.nickname, person.path, card.text, kill_at)


async def ended(process: ForkServerProcess) -> int | None:
    await asyncio.to_thread(process.join, WAIT)
    return process.exitcode


async def stop(process: ForkServerProcess) -> None:
    process.kill()
    await ended(process)


async def settle(sender: Person, receiver: Person) -> None:
    """Wait until both sides agree that all was said."""
    for person in (sender, receiver):
        await person.until(unsettled.contacts_to_send, lambda waiting: not waiting)


async def check(alice: Person, bob: Person, said: list[int]) -> None:
    to_alice = await bob.knows(alice)
    assert await bob.heard(to_alice) == ["eins", "three", "four"]
    assert [row.uuid for row in await bob.store.read(messages.history, to_alice.id) if row.outgoing] != []
    events = await bob.store.read(feed.read, 0)
    told = [event.message for event in events if event.kind is Kind.MESSAGE]
    assert len(told) == len(set(told)) == 4 + 1  # four of hers, one of his: each was told of once
    states = [(await alice.store.read(messages.get, message)).state for message in said]
    assert states == [State.DELIVERED] * 4
    assert await alice.heard(await alice.knows(bob)) == ["yes"]


async def say_all(alice: Person, bob: Person) -> list[int]:
    """Texts on both sides; of hers one is edited and one deleted after they arrived."""
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    said = [(await alice.says(to_bob, text)).id for text in ("one", "two", "three", "four")]
    await bob.says(to_alice, "yes")
    return said


async def change(alice: Person, said: list[int]) -> None:
    await alice.store.write(messages.edit, alice.now(), said[0], "eins")
    await alice.store.write(messages.delete, alice.now(), said[1], for_both=True)


@pytest.mark.parametrize("victim", ["sender", "receiver"])
@run_async
async def test_killed_at_every_step(relay: RelayProcess, tmp_path: Path, victim: str) -> None:
    kills = 0
    for kill_at in range(1, _STEPS_MAX):
        alice = Person(tmp_path / f"alice-{kill_at}", "Alice")
        bob = Person(tmp_path / f"bob-{kill_at}", "Bob")
        said = await say_all(alice, bob)
        doomed, other = (alice, bob) if victim == "sender" else (bob, alice)
        async with other.at(relay):
            process = start(doomed, relay, kill_at)
            changed = False
            while True:
                dead = asyncio.create_task(ended(process))
                last = asyncio.create_task(alice.until(messages.get, lambda row: row.state >= 2, said[3]))
                await asyncio.wait([dead, last], return_when=asyncio.FIRST_COMPLETED)
                if last.done() and not changed:
                    changed = True
                    await change(alice, said)
                    settled = asyncio.create_task(settle(alice, bob))
                    await asyncio.wait([dead, settled], return_when=asyncio.FIRST_COMPLETED)
                    if settled.done():
                        break
                    settled.cancel()
                last.cancel()
                assert await dead == -signal.SIGKILL
                kills += 1
                process = start(doomed, relay, 0)  # and this one lives
                if changed:
                    await settle(alice, bob)
                    break
            await check(alice, bob, said)
            survived = process.exitcode is None and kills < kill_at
            await stop(process)
        await alice.store.close()
        await bob.store.close()
        if survived:
            break
    else:
        raise AssertionError(f"still killed at step {_STEPS_MAX}")
    assert kills > 20
