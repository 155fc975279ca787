"""People who write to each other while nodes and NATS servers are killed, and ways are cut, all at random.

What was confirmed to its sender is there, and in the end everything is, once. The people are programs with stores, as
users have them; what is drawn at random comes from a seed.
"""

from __future__ import annotations

import asyncio
import random
from itertools import permutations
from typing import TYPE_CHECKING, Final

import pytest

from peers.carrier import CarrierOptions
from peers.client import ClientOptions
from peers.store import contacts, messages, unsettled
from peers.store.message_rows import State
from tests.peers.carrier.conversation import WAIT, Person, close_stores
from tests.support.clients import run_async
from tests.support.cutting import CuttingProxy
from tests.support.nats_cluster import wired_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from peers.store.contacts import ContactRow
    from tests.support.nats_cluster import ClusterProcess

PLACES: Final = 3
NAMES: Final = ("Alice", "Bob", "Carol")
FREELY: Final = {"handshakes_per_second": 0, "presence_per_second": 0}
HOLDS: Final = (0.0, 0.2, 0.6, 1.2)
"""Seconds for which something stays broken: how long is part of what is drawn, and nothing hangs on it."""

PAUSE: Final = 0.1


@pytest.fixture(scope="module")
def relays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    yield from wired_cluster(tmp_path_factory.mktemp("cluster"), limits=FREELY)


@pytest.fixture(autouse=True)
def _mended(relays: ClusterProcess) -> Iterator[None]:
    yield
    relays.nats.heal()
    close_stores()


class Breakage:
    """What breaks, and is mended: processes one after another, and beside them ways one after another."""

    def __init__(self, relays: ClusterProcess, proxies: list[CuttingProxy], seed: int) -> None:
        self.relays = relays
        self.proxies = proxies
        self.at = list(range(PLACES))
        self.random = random.Random(seed)
        self.done: list[str] = []

    async def run(self) -> None:
        processes = [self.relay_killed, self.nats_killed, self.somebody_moves, self.somebody_moves]
        ways = [self.split, self.split, self.door, self.door]
        await asyncio.gather(self._all(processes), self._all(ways))

    async def _all(self, kinds: Sequence[Callable[[random.Random], Coroutine[None, None, None]]]) -> None:
        # Drawn before anything happens: which of two comes first must not change what the other one draws.
        order = self.random.sample(kinds, len(kinds))
        for kind, seed in [(kind, self.random.random()) for kind in order]:
            self.done.append(kind.__name__)
            await kind(random.Random(seed))

    def _move(self, person: int, place: int) -> None:
        self.at[person] = place
        self.proxies[person].target = self.relays.relays[place].port
        self.proxies[person].cut()

    async def relay_killed(self, draw: random.Random) -> None:
        place = draw.randrange(PLACES)
        self.relays.relays[place].kill()
        for person in range(PLACES):
            if self.at[person] == place:
                self._move(person, (place + draw.randint(1, 2)) % PLACES)
        await asyncio.to_thread(self.relays.relays[place].check)
        self.relays.relays[place] = await asyncio.to_thread(self.relays.start, place)

    async def nats_killed(self, draw: random.Random) -> None:
        place = draw.randrange(PLACES)
        self.relays.nats.kill(place)
        await asyncio.sleep(draw.choice(HOLDS))
        await asyncio.to_thread(self.relays.nats.start, place)

    async def somebody_moves(self, draw: random.Random) -> None:
        self._move(draw.randrange(PLACES), draw.randrange(PLACES))
        await asyncio.sleep(draw.choice(HOLDS))

    async def split(self, draw: random.Random) -> None:
        self.relays.nats.split({draw.randrange(PLACES)}, silent=draw.random() < 0.5)
        await asyncio.sleep(draw.choice(HOLDS))
        self.relays.nats.heal()

    async def door(self, draw: random.Random) -> None:
        self.relays.nats.doors[draw.randrange(PLACES)].cut(silent=draw.random() < 0.5)
        await asyncio.sleep(draw.choice(HOLDS))
        self.relays.nats.heal()


class Correspondence:
    """What one person writes to another."""

    def __init__(self, writer: Person, reader: Person, to_reader: ContactRow, to_writer: ContactRow) -> None:
        self.writer = writer
        self.reader = reader
        self._to_reader = to_reader
        self._to_writer = to_writer
        self.texts: list[str] = []
        self._last = 0

    async def says(self, count: int) -> None:
        for _ in range(count):
            self.texts.append(f"{self.writer.keys.nickname} {len(self.texts)}")
            self._last = (await self.writer.says(self._to_reader, self.texts[-1])).id

    async def check_confirmed(self) -> None:
        """Find that the reader has what the writer was told that it has."""
        rows = await self.writer.store.read(messages.history, self._to_reader.id, limit=100_000)
        confirmed = {row.text for row in rows if row.outgoing and row.state >= State.DELIVERED}
        assert confirmed <= set(await self.reader.heard(self._to_writer))

    async def sees_online(self) -> None:
        """Wait until the writer is told that the reader is online."""
        async with asyncio.timeout(WAIT):
            await self.writer.until(contacts.get, lambda row: row.online, self._to_reader.id)

    async def ended(self) -> list[str]:
        """Wait until all is confirmed; returns what the reader has."""
        await self.writer.until(unsettled.contacts_to_send, lambda waiting: self._to_reader.id not in waiting)
        last = await self.writer.store.read(messages.get, self._last)
        assert last.state >= State.DELIVERED
        return await self.reader.heard(self._to_writer)


# With one message at a time on its way to each the order is kept, whatever is lost; with more, lost ones come later.
@pytest.mark.parametrize(("seed", "window"), [(1, 1), (2, 1), (16, 64)])
@run_async
async def test_what_is_confirmed_is_there_and_all_arrives_once(
    relays: ClusterProcess, tmp_path: Path, seed: int, window: int
) -> None:
    options = CarrierOptions(
        client=ClientOptions(backoff_min=0.02, backoff_max=0.2),
        window=window,
        resend=0.3,
        resend_max=1.0,
        probe=0.5,
        wake=False,
    )
    people = [Person(tmp_path / name, name) for name in NAMES]
    known = {(one, other): await one.adds(other) for one, other in permutations(people, 2)}
    letters = [Correspondence(one, other, known[one, other], known[other, one]) for one, other in known]
    proxies = [CuttingProxy(relay.port, relay.public) for relay in relays.relays]
    async with proxies[0], proxies[1], proxies[2]:
        carriers = [person.at(proxy, options) for person, proxy in zip(people, proxies, strict=True)]
        async with carriers[0], carriers[1], carriers[2]:
            breakage = Breakage(relays, proxies, seed)
            breaking = asyncio.create_task(breakage.run())
            while not breaking.done():
                await asyncio.gather(*(letter.says(2) for letter in letters))
                for letter in letters:
                    await letter.check_confirmed()
                # People write slower than programs, and what is not over by the end of all this is waited for.
                await asyncio.wait({breaking}, timeout=PAUSE)
            await breaking
            await asyncio.gather(*(letter.sees_online() for letter in letters))
            await asyncio.gather(*(letter.says(3) for letter in letters))
            for letter in letters:
                heard = await letter.ended()
                assert (heard if window == 1 else sorted(heard, key=letter.texts.index)) == letter.texts
    assert len(breakage.done) == 8
