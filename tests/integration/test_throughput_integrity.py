"""200,000 frames through one process: none is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from tests.support.bulk import BulkClient
from tests.support.clients import run_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.relay_process import RelayProcess

PAIRS = 16
BATCH = 125


async def exchange(one: BulkClient, other: BulkClient, count: int, size: int) -> None:
    """Both send `count` frames to each other and find that all came, in order."""

    async def send(sender: BulkClient, target_id: bytes) -> None:
        for first in range(0, count, BATCH):
            await sender.write(sender.frames(target_id, first, BATCH, size))
            await asyncio.sleep(0)

    await asyncio.gather(send(one, other.id), send(other, one.id))
    for client, peer in ((one, other), (other, one)):
        await client.received(peer.id, count)


@pytest.mark.parametrize(("count", "size"), [(6250, 128), (250, 16_000)], ids=["small", "large"])
@run_async
async def test_every_frame_once_and_in_order(start_relay: Callable[..., RelayProcess], count: int, size: int) -> None:
    # Room for all that one session gets here: nobody is refused for reading slowly on a machine that is busy.
    relay = start_relay(limits={"frames_per_second": 0, "bytes_per_second": 0, "queue_age": 600})
    clients = [await BulkClient.open(relay.port, Identity.generate(), relay.public) for _ in range(2 * PAIRS)]
    pairs = list(zip(clients[::2], clients[1::2], strict=True))
    await asyncio.gather(*(exchange(one, other, count, size) for one, other in pairs))
    for one, other in pairs:
        for client, peer in ((one, other), (other, one)):
            assert client.delivered == {peer.id: list(range(count))}
            assert client.refused == []
            assert client.said == []
            assert client.over is None
    for client in clients:
        client.transport.abort()
    await asyncio.to_thread(relay.check)
    # Of each, the handshake too.
    assert relay.stopped["frames"] == 2 * PAIRS * (count + 1)
    assert relay.stopped["refusals"] == {}
