"""Clients that do not read: the others' frames go on, the relay does not grow, and no frame vanishes in silence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import Client, Clients, Closed, eventually, run_async
from tests.support.flood import Flood, Growth, await_handled, check_resumed, echo, take_frames
from wire import commands as c
from wire.session import PeerFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from keys.identity import Identity
    from tests.support.relay_process import RelayProcess

MIB = 1024 * 1024
# The kernel takes some MiB in any case, and each limit below is far under what is sent.
QUEUE = {"queue_size": MIB, "refusals_per_second": 0}


async def stalled(clients: Clients, identity: Identity | None = None) -> Client:
    """A session that takes nothing, and whose kernel takes little."""
    client = await clients.open(identity, receive_buffer=4096)
    await client.round_trip()
    client.stop_reading()
    return client


async def watching(clients: Clients, *watched: Client) -> Client:
    client = await clients.open()
    await client.subscribe(*(each.public for each in watched))
    await client.expect(c.PeerOnline)
    return client


@run_async
async def test_stalled_reader_costs_only_itself(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits={**QUEUE, "queue_age": 600})
    async with Clients(relay) as clients:
        victim = await stalled(clients)
        floods = [Flood(await watching(clients, victim), victim.id) for _ in range(4)]
        pairs = [(await clients.open(), await clients.open()) for _ in range(2)]
        async with Growth(relay) as growth:
            await asyncio.gather(
                *(flood.send(250) for flood in floods),
                *(echo(one, other, 150) for one, other in pairs),
            )
            for flood in floods:
                await await_handled(flood)
        sent = sum(flood.sent for flood in floods) * 64 * 1024
        assert sent > 60 * MIB
        assert growth.most < 32 * MIB, f"grew by {growth.most >> 10} KiB"
        assert all(len(flood.refused) > 100 for flood in floods)

        victim.read_on()
        await check_resumed(victim, floods)


@run_async
async def test_only_those_who_watch_are_told_that_it_reads_again(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits={**QUEUE, "queue_age": 600})
    async with Clients(relay) as clients:
        victim = await stalled(clients)
        refused, not_refused = await watching(clients, victim), await watching(clients, victim)
        stranger = await clients.open()
        floods = [Flood(refused, victim.id), Flood(stranger, victim.id)]
        for flood in floods:
            await flood.send(200)
            await await_handled(flood)
            assert flood.refused
        victim.read_on()
        await refused.expect(c.PeerOnline)
        await take_frames(victim, floods)
        for client in (refused, not_refused, stranger):
            await client.round_trip()


@run_async
async def test_total_of_all_queues_is_bounded(start_relay: Callable[..., RelayProcess]) -> None:
    limits = {**QUEUE, "queue_age": 600, "queue_size": 4 * MIB, "queue_total": 6 * MIB}
    relay = start_relay(limits=limits)
    async with Clients(relay) as clients:
        victims = [await stalled(clients) for _ in range(6)]
        floods = [Flood(await clients.open(), victim.id) for victim in victims]
        pair = await clients.open(), await clients.open()
        async with Growth(relay) as growth:
            for _ in range(3):
                await asyncio.gather(*(flood.send(200) for flood in floods), echo(*pair, 50))
                for flood in floods:
                    await await_handled(flood)
        # Measured at 15 to 40: the heap of a process that sheds whole queues has holes.
        assert sum(flood.sent for flood in floods) * 64 * 1024 > 220 * MIB
        assert growth.most < 80 * MIB, f"grew by {growth.most >> 10} KiB"
        for flood, victim in zip(floods, victims, strict=True):
            # Of those that gave way the answers came in a row of their own.
            refusals = asyncio.create_task(_take_refusals(flood))
            victim.read_on()
            try:
                await take_frames(victim, [flood])
            except Closed as closed:
                # The heaviest may have had nothing left to give but its transport's bytes.
                assert closed.code is None
                assert len(set(flood.delivered + flood.refused)) == len(flood.delivered + flood.refused)
            else:
                flood.check()
            refusals.cancel()
            assert flood.refused


async def _take_refusals(flood: Flood) -> None:
    while True:
        flood.take_refusal(await flood.sender.expect(c.RecipientOffline))


@run_async
async def test_those_who_write_to_themselves_and_do_not_read(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits={**QUEUE, "queue_age": 600})
    async with Clients(relay) as clients:
        pair = await clients.open(), await clients.open()
        greedy = [await stalled(clients) for _ in range(4)]
        floods = [Flood(each, each.id) for each in greedy]
        # Frames for nobody: what waits is refusals alone, and so many fill what the kernel takes.
        floods.append(Flood(await stalled(clients), os.urandom(8), size=104))
        async with Growth(relay) as growth:
            writers = [asyncio.create_task(flood.send(30_000)) for flood in floods]
            await echo(*pair, 300)
            for writer in writers:
                # By now, or soon, the relay reads no more of them.
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writer
        assert growth.most < 48 * MIB, f"grew by {growth.most >> 10} KiB"
        for flood in floods:
            flood.sender.read_on()
            while not flood.settled:
                item = await flood.sender.next()
                if isinstance(item, PeerFrame):
                    flood.take_frame(item)
                else:
                    assert isinstance(item, c.RecipientOffline)
                    flood.take_refusal(item)
            flood.check()
            await flood.sender.round_trip()


@pytest.mark.parametrize("reads", ["nothing", "a little now and then"])
@run_async
async def test_oldest_byte_ends_it(start_relay: Callable[..., RelayProcess], reads: str) -> None:
    relay = start_relay(limits={**QUEUE, "queue_age": 2})
    async with Clients(relay) as clients:
        victim = await stalled(clients)
        flood = Flood(await watching(clients, victim), victim.id)
        await flood.send(200)
        await await_handled(flood)
        refused_at_once = len(flood.refused)
        trickle = asyncio.create_task(_trickle(victim)) if reads != "nothing" else None
        while not isinstance(item := await flood.sender.next(), c.PeerOffline):
            assert isinstance(item, c.RecipientOffline)
            flood.take_refusal(item)
        if trickle is not None:
            trickle.cancel()
        # To a queue that is gone nothing is delivered: what it held is answered, and whatever comes now.
        late = Flood(flood.sender, victim.id)
        await late.send(3)
        while not late.settled:
            refusal = await flood.sender.expect(c.RecipientOffline)
            try:
                late.take_refusal(refusal)
            except AssertionError:
                flood.take_refusal(refusal)
        assert len(flood.refused) > refused_at_once
        assert len(set(flood.refused)) == len(flood.refused)
        victim.abort()
        again = await clients.open(victim.identity)
        assert await flood.sender.expect(c.PeerOnline) == c.PeerOnline.of([victim.public.x_pub])
        await again.round_trip()
        await eventually(lambda: relay.connections() == 2, "the stalled socket stays")


async def _trickle(victim: Client) -> None:
    """Take a few bytes from the socket, past the client, again and again."""
    transport = victim.raw.writer.transport
    transport.pause_reading()  # type: ignore[attr-defined]
    taken: Any = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(taken.fileno())) as sock:
        while True:
            with contextlib.suppress(BlockingIOError):
                if not sock.recv(2048):
                    return
            await asyncio.sleep(0.02)
