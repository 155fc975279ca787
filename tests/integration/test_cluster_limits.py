"""All relays of a cluster together let through little more than one alone, of an address as of a client who moves.

And none takes a handshake that another has taken, one that was started later neither.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from tests.support.clients import WAIT, run_async, tcp_connect, upgrade_request, ws_frame
from tests.support.nats_cluster import ClusterProcess
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BURST = 400
PLACES = 120
AT_ONCE = 20
INTRODUCTIONS = 12
ADDRESS = {"X-Forwarded-For": "203.0.113.7"}


@pytest.fixture(scope="module")
def relays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    directory: Path = tmp_path_factory.mktemp("cluster")
    limits = {
        "handshakes_burst": BURST,
        "handshakes_per_second": 0.0001,
        "connections_per_address": PLACES,
        "introductions_burst": INTRODUCTIONS,
        "introductions_per_second": 0.0001,
        "introductions_pair_burst": INTRODUCTIONS,
    }
    running = ClusterProcess(directory, servers=1, limits=limits)
    try:
        yield running
        running.check()
    finally:
        running.close()


async def handshake(port: int) -> str:
    """Say a handshake that is noise, at once with the opening; returns what became of it."""
    reader, writer = await tcp_connect(port)
    writer.write(upgrade_request(headers=ADDRESS) + ws_frame(os.urandom(172)))
    async with asyncio.timeout(WAIT):
        answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 101 "):
        return answer.split(b" ", 2)[1].decode()
    close = answer.partition(b"\r\n\r\n")[2]
    return str(int.from_bytes(close[2:4], "big"))


@run_async
async def test_handshakes(relays: ClusterProcess) -> None:
    outcomes: Counter[str] = Counter()

    async def attack(port: int) -> None:
        for _ in range(BURST // AT_ONCE):
            outcomes[await handshake(port)] += 1

    # Each node alone could take all of these.
    await asyncio.gather(*(attack(relay.port) for relay in relays.relays for _ in range(AT_ONCE)))
    assert set(outcomes) <= {"1008", "1013", "429"}
    assert outcomes.total() == 3 * BURST
    # 1008: it was looked at, which is what costs a relay something.
    assert BURST <= outcomes["1008"] <= 1.5 * BURST
    # What was too much is a debt, at every node.
    assert [await handshake(relay.port) for relay in relays.relays] == ["429"] * 3


@run_async
async def test_connections(relays: ClusterProcess) -> None:
    held: list[asyncio.StreamWriter] = []
    outcomes: Counter[str] = Counter()
    address = {"X-Forwarded-For": "203.0.113.8"}

    async def attack(port: int) -> None:
        for _ in range(PLACES // AT_ONCE):
            reader, writer = await tcp_connect(port)
            held.append(writer)
            writer.write(upgrade_request(headers=address))
            async with asyncio.timeout(WAIT):
                line = await reader.readline()
            outcomes[line.split(b" ", 2)[1].decode() if line else "cut"] += 1

    await asyncio.gather(*(attack(relay.port) for relay in relays.relays for _ in range(AT_ONCE)))
    for writer in held:
        writer.close()
    assert PLACES <= outcomes["101"] <= 1.5 * PLACES


@run_async
async def test_a_client_that_goes_from_relay_to_relay(relays: ClusterProcess) -> None:
    spammer = Identity.generate()
    async with relays.clients(0) as here:
        friend = await here.open()
        for turn in range(6):
            async with relays.clients(turn % 3) as there:
                client = await there.open(spammer)
                for number in range(INTRODUCTIONS):
                    await client.command(c.Introduce(friend.id, f"{turn} {number}"))
                await client.round_trip()
                await client.close()
        # What follows goes the same way, and so comes behind all of it.
        async with relays.clients(5 % 3) as there:
            last = await there.open()
            await last.command(c.Introduce(friend.id, "last"))
            came = [(await friend.expect(c.IntroFrom)).nickname]
            while came[-1] != "last":
                came.append((await friend.expect(c.IntroFrom)).nickname)
    assert INTRODUCTIONS <= len(came) - 1 <= 1.5 * INTRODUCTIONS


@run_async
async def test_a_relay_that_is_started_later_knows_what_was_taken(relays: ClusterProcess) -> None:
    async with relays.clients(0) as here:
        client = await here.connect()
        hello = client.session.hello()
        await client.raw.send(hello)
        await client.welcomed()
        await client.close()
    relays.relays.append(await asyncio.to_thread(relays.start, 3))
    async with relays.clients(3) as there:
        thief = await there.socket()
        await thief.send(hello)
        closed = await thief.receive_close()
    assert (closed.code, closed.reason) == (1008, "a handshake is accepted once")
