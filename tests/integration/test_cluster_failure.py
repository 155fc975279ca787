"""Three relays and three NATS servers, and what breaks: nodes are killed and paused, NATS is killed and comes back."""

from __future__ import annotations

import signal
import urllib.request
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from tests.support.clients import Closed, eventually, run_async
from tests.support.nats_cluster import ClusterProcess
from tests.support.talk import talk
from wire import commands as c
from wire.session import PeerFrame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.clients import Client


@pytest.fixture
def relays(tmp_path: Path) -> Iterator[ClusterProcess]:
    limits = {"queue_total": 32 << 20}
    running = ClusterProcess(tmp_path, warned=("cluster_node_gone", "cluster_unreachable"), limits=limits)
    try:
        yield running
    finally:
        running.close()


def ready(relays: ClusterProcess, index: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{relays.relays[index].port}/readyz", timeout=10) as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def events(relays: ClusterProcess, index: int) -> list[str]:
    return [record["event"] for record in relays.relays[index].records]


async def there_and_back(one: Client, other: Client) -> None:
    """Let both say something: the answer says to the first one's node that the question arrived."""
    await one.send(other.public, b"before")
    assert await other.text_from(one.public) == b"before"
    await other.send(one.public, b"before")
    assert await one.text_from(other.public) == b"before"


@run_async
async def test_a_node_is_killed(relays: ClusterProcess) -> None:
    async with relays.clients(0) as here, relays.clients(1) as there, relays.clients(2) as elsewhere:
        alice, bob = await here.open(), await there.open()
        await alice.subscribe(bob.public)
        assert await alice.expect(c.PeerOnline)
        await there_and_back(alice, bob)
        relays.relays[1].kill()
        nonce = await alice.send(bob.public, b"while it is not known")
        # Its client comes back elsewhere at once: the hung id is not kept from it.
        bob = await elsewhere.open(bob.identity)
        came = [await alice.next() for _ in range(3)]
        assert c.RecipientOffline(bob.id, nonce) in came
        told = [item for item in came if not isinstance(item, c.RecipientOffline)]
        assert told[-1] == c.PeerOnline.of([bob.public.x_pub])
        assert c.PeerOffline.of([bob.public.x_pub]) in told
        await alice.send(bob.public, b"after")
        assert await bob.text_from(alice.public) == b"after"
        # The node comes back as another, and is one of them again.
        relays.relays[1] = relays.start(1)
        async with relays.clients(1) as back:
            carol = await back.open()
            await bob.send(carol.public, b"welcome")
            assert await carol.text_from(bob.public) == b"welcome"


@run_async
async def test_a_node_is_paused_and_goes_on(relays: ClusterProcess) -> None:
    async with relays.clients(0) as here, relays.clients(1) as there, relays.clients(2) as elsewhere:
        alice, bob, carol = await here.open(), await there.open(), await elsewhere.open()
        await alice.subscribe(bob.public)
        assert await alice.expect(c.PeerOnline)
        await there_and_back(alice, bob)
        relays.relays[1].process.send_signal(signal.SIGSTOP)
        # What is sent now lies in buffers that are bounded; the rest is refused, and the others go on.
        sent = [await alice.send(bob.public, bytes(900_000)) for _ in range(12)]
        refused = [(await alice.expect(c.RecipientOffline)).nonce]
        await carol.send(alice.public, b"we go on")
        while not isinstance(item := await alice.next(), PeerFrame):
            assert isinstance(item, c.RecipientOffline)
            refused.append(item.nonce)
        assert alice.opened(item, carol.public) == b"we go on"
        await eventually(lambda: "cluster_node_gone" in events(relays, 0), "it is given up")
        while len(refused) < len(sent):
            item = await alice.next()
            if isinstance(item, c.RecipientOffline):
                refused.append(item.nonce)
            else:
                assert item == c.PeerOffline.of([bob.public.x_pub])
        assert sorted(refused) == sorted(sent)
        again = await elsewhere.open(bob.identity)
        relays.relays[1].process.send_signal(signal.SIGCONT)
        # Of two sessions of one id the later stays, and nothing that was answered arrives after all.
        with pytest.raises(Closed) as closed:
            while True:
                assert not isinstance(await bob.next(), PeerFrame)
        assert closed.value.code == 1008
        await alice.send(again.public, b"after")
        assert await again.text_from(alice.public) == b"after"
        async with relays.clients(1) as back:
            dave = await back.open()
            await alice.send(dave.public, b"and you?")
            assert await dave.text_from(alice.public) == b"and you?"


@run_async
async def test_nats_is_gone_and_comes_back(relays: ClusterProcess) -> None:
    async with relays.clients(0) as here, relays.clients(1) as there:
        alice, local, bob = await here.open(), await here.open(), await there.open()
        await alice.send(bob.public, b"before")
        assert await bob.text_from(alice.public) == b"before"
        assert ready(relays, 0) == "ready\n"
        for index in range(3):
            relays.nats.kill(index)
        for index in range(3):
            await eventually(lambda index=index: "degraded" in ready(relays, index), "it says so")  # type: ignore[misc]
        nonce = await alice.send(bob.public, b"lost")
        assert await alice.expect(c.RecipientOffline) == c.RecipientOffline(bob.id, nonce)
        await alice.send(local.public, b"local")
        assert await local.text_from(alice.public) == b"local"
        # Who comes now is let in by a node that cannot ask the others.
        carol = await there.open(Identity.generate())
        await bob.send(carol.public, b"local too")
        assert await carol.text_from(bob.public) == b"local too"
        for index in range(3):
            relays.nats.start(index)
        for index in range(3):
            await eventually(lambda index=index: ready(relays, index) == "ready\n", "it is back")  # type: ignore[misc]
        await talk(alice, bob)
        await talk(alice, carol)
        await talk(carol, local)


@run_async
async def test_one_nats_server_of_three_is_killed(relays: ClusterProcess) -> None:
    async with relays.clients(0) as here, relays.clients(1) as there:
        alice, bob = await here.open(), await there.open()
        await talk(alice, bob)
        relays.nats.kill(1)
        # Its relay has no other to go to: the three relays name one each.
        await eventually(lambda: "degraded" in ready(relays, 1), "it says so")
        assert ready(relays, 0) == "ready\n"
        relays.nats.start(1)
        await eventually(lambda: ready(relays, 1) == "ready\n", "it is back")
        await talk(alice, bob)


@run_async
async def test_one_nats_server_of_three_is_paused(relays: ClusterProcess) -> None:
    """It goes on taking what its relay writes, and says nothing: its relay has to notice by itself."""
    async with relays.clients(0) as here, relays.clients(1) as there, relays.clients(2) as elsewhere:
        alice, carol = await here.open(), await elsewhere.open()
        bob, local = await there.open(), await there.open()
        await there_and_back(alice, bob)
        relays.nats.signal(1, signal.SIGSTOP)
        await bob.send(local.public, b"as if nothing were")
        assert await local.text_from(bob.public) == b"as if nothing were"
        await eventually(lambda: "degraded" in ready(relays, 1), "it says so")
        assert ready(relays, 0) == "ready\n"
        await talk(alice, carol)
        relays.nats.signal(1, signal.SIGCONT)
        await eventually(lambda: ready(relays, 1) == "ready\n", "it is back")
        await talk(alice, bob)
        await talk(bob, carol)


@run_async
async def test_two_relays_claim_one_id(relays: ClusterProcess) -> None:
    async with relays.clients(0) as here, relays.clients(2) as there:
        alice = await here.open()
        await alice.round_trip()
        refused = await there.connect(alice.identity)
        await refused.greet()
        assert await refused.expect(c.IdInUse) == c.IdInUse()
        assert len(alice.pings) == 1
        alice.pongs = False
        alice.stop_reading()
        again = await there.open(alice.identity)
        await again.round_trip()


@run_async
async def test_a_node_that_is_told_to_stop_loses_nothing(relays: ClusterProcess) -> None:
    async with relays.clients(0) as here, relays.clients(1) as there, relays.clients(2) as elsewhere:
        alice, bob, carol = await here.open(), await there.open(), await elsewhere.open()
        await carol.subscribe(alice.public, bob.public)
        assert len((await carol.expect(c.PeerOnline)).x_pubs) == 2
        sent = {await alice.send(bob.public, b"%d" % number) for number in range(300)}
        relays.relays[0].signal(signal.SIGTERM)
        answered: set[bytes] = set()
        try:
            while True:
                item = await alice.next()
                if isinstance(item, c.RecipientOffline):
                    answered.add(item.nonce)
        except Closed as closed:
            assert closed.code == 1001
        assert relays.relays[0].wait() == 0
        arrived: set[bytes] = set()
        while arrived | answered != sent:
            arrived.add((await bob.expect(PeerFrame)).packet[:24])
        assert not arrived & answered
        # Those who are left see it go, and come back elsewhere.
        assert await carol.expect(c.PeerOffline) == c.PeerOffline.of([alice.public.x_pub])
        alice = await elsewhere.open(alice.identity)
        assert await carol.expect(c.PeerOnline) == c.PeerOnline.of([alice.public.x_pub])
        assert "cluster_node_left" in events(relays, 1)
        assert "cluster_node_gone" not in events(relays, 1)
