"""Two thousand who watch one: each is told, and frames between others flow meanwhile."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from tests.support.bulk import BulkClient
from tests.support.clients import WAIT, ws_frame
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.relay_process import RelayProcess

WATCHERS = 2000
ROUNDS = 5


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow this process as many sockets as the test takes; skip where the system does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WATCHERS + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, and the hard limit is {hard}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Watcher(BulkClient):
    """Writes the arrival of every notice into a diary that all share."""

    diary: list[str] | None = None

    def data_received(self, data: bytes) -> None:
        before = len(self.said)
        super().data_received(data)
        if self.diary is not None:
            self.diary.extend(type(body).__name__ for body in self.said[before:])


async def echo(one: BulkClient, other: BulkClient, diary: list[str], enough: asyncio.Event) -> int:
    """Exchange one packet after the other until told that it is enough; return how many."""
    count = 0
    while not enough.is_set():
        for sender, recipient in ((one, other), (other, one)):
            await sender.write(sender.frames(recipient.id, count, 1))
            await recipient.received(sender.id, count + 1)
        count += 1
        diary.append("echo")
    return count


async def fan_out(relay: RelayProcess) -> None:
    diary: list[str] = []
    peer = Identity.generate()
    gate = asyncio.Semaphore(100)

    async def watcher() -> Watcher:
        async with gate:
            client = await Watcher.open(relay.port, Identity.generate(), relay.public)
            client.diary = diary
            client.transport.write(ws_frame(client.session.command(c.Subscribe.of([peer.public.x_pub]))))
            return client

    watchers = await asyncio.gather(*(watcher() for _ in range(WATCHERS)))
    pair = [await BulkClient.open(relay.port, Identity.generate(), relay.public) for _ in range(2)]
    one, other = pair

    async def all_told(kind: type[c.PeerOnline | c.PeerOffline]) -> bool:
        """Wait until everybody got this one notice; tell whether an echo was completed in between."""
        enough = asyncio.Event()
        echoes = asyncio.create_task(echo(one, other, diary, enough))
        async with asyncio.timeout(WAIT):
            for each in watchers:
                await each.told()
                assert each.said == [kind.of([peer.public.x_pub])]
                each.said.clear()
        enough.set()
        assert await echoes
        for client in pair:
            client.delivered.clear()
        notices = [at for at, entry in enumerate(diary) if entry == kind.__name__]
        assert len(notices) == WATCHERS
        between = "echo" in diary[notices[0] : notices[-1]]
        diary.clear()
        return between

    flowed = []
    for _ in range(ROUNDS):
        guest = await BulkClient.open(relay.port, peer, relay.public)
        flowed.append(await all_told(c.PeerOnline))
        guest.transport.abort()
        flowed.append(await all_told(c.PeerOffline))
    # One of these is enough: a test process that was not scheduled finds everything arrived at once.
    assert any(flowed)
    for client in [*watchers, *pair]:
        client.transport.abort()


@pytest.mark.usefixtures("many_files")
def test_everybody_is_told_and_frames_flow_meanwhile(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits={"presence_per_second": 0})
    asyncio.run(fan_out(relay))
    relay.check()
    assert relay.stopped["refusals"] == {}
