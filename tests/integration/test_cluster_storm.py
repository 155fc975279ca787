"""A node dies with all that were at it, and they come back at once, at the others."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import TYPE_CHECKING, Final

import pytest

from keys.identity import Identity
from tests.support.bulk import BulkClient
from tests.support.clients import eventually, run_async
from tests.support.nats_cluster import ClusterProcess
from tests.support.talkers import Talkers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CROWD: Final = 300
WATCHED: Final = 30
AT_ONCE: Final = 64


@pytest.fixture
def relays(tmp_path: Path) -> Iterator[ClusterProcess]:
    running = ClusterProcess(tmp_path, servers=1, limits={"handshakes_per_second": 0}, may_warn=("cluster_node_gone",))
    try:
        yield running
        running.check()
    finally:
        running.close()


def sessions(relays: ClusterProcess) -> int:
    """How many sessions the relays have that live."""
    count = 0
    for relay in relays.relays:
        if relay.running:
            with urllib.request.urlopen(f"http://127.0.0.1:{relay.port}/status", timeout=30) as answer:
                count += json.loads(answer.read())["connections"]
    return count


async def arrive(relays: ClusterProcess, identities: list[Identity], places: list[int]) -> list[BulkClient]:
    """Let everybody in, all at once, each at the next of these relays."""
    at_once = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, identity: Identity) -> BulkClient:
        relay = relays.relays[places[number % len(places)]]
        async with at_once:
            return await BulkClient.open(relay.port, identity, relay.public)

    return await asyncio.gather(*(one(number, identity) for number, identity in enumerate(identities)))


@run_async
async def test_all_come_back_at_once_at_the_nodes_that_are_left(relays: ClusterProcess) -> None:
    identities = [Identity.generate() for _ in range(CROWD)]
    async with Talkers(relays) as talkers:
        watcher, other = await talkers.at(1), await talkers.at(2)
        crowd = await arrive(relays, identities, [0])
        watched = crowd[:WATCHED]
        watcher.watch(*watched)
        # One of the others has sent to them, and knows where they are: what comes next is not to go there.
        for client in crowd:
            watcher.say(client)
        for client in crowd:
            await client.received(watcher.id, 1)
        for client in watched:
            await watcher.until_told(client, online=True)
        relays.relays[0].kill()
        await asyncio.gather(*(client.gone() for client in crowd))
        back = await arrive(relays, identities, [1, 2])
        assert not any(client.lost for client in back)
        for client in back:
            for sender in (watcher, other):
                sender.say(client)
        for client in back:
            for sender in (watcher, other):
                await client.received(sender.id, 1)
        # What the dead node had not acknowledged was refused, arrived or not; what was sent since arrived once.
        for client in back:
            for sender in (watcher, other):
                [number] = client.delivered[sender.id]
                assert number == sender.sent[client.id][-1]
                assert number not in sender.refused
        for client in watched:
            await watcher.until_told(client, online=True)
        await watcher.turn()
        for client in watched:
            assert watcher.told_of(client)[-1]
            assert not client.over
        assert not any(client.lost for client in (*back, watcher, other))
        await eventually(lambda: sessions(relays) == CROWD + 2, "each has one session, and nobody is left")
        for client in back:
            client.transport.abort()
