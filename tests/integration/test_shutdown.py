"""The way down: signals under load, a client that does not read, and a power cut."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from tests.support.bulk import BulkClient
from tests.support.clients import Clients, eventually, run_async, upgrade_request
from tests.support.flood import Flood, await_handled, take_frames
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.relay_process import RelayProcess

RUNS_ON = 2000
"""Frames delivered before the signal comes."""


class Load:
    """One client that sends to another, or to nobody, as fast as its frames are taken; 64 are under way at most."""

    def __init__(self, sender: BulkClient, recipient: BulkClient | None) -> None:
        self.sender = sender
        self.recipient = recipient
        self.hears = recipient or sender
        self.target_id = Identity.generate().id if recipient is None else recipient.id
        self.sent = 0

    @property
    def answered(self) -> list[int]:
        """What was delivered or refused, in the order in which we heard of it."""
        if self.recipient is None:
            return self.sender.refused
        return self.recipient.delivered.get(self.sender.id, [])

    async def has_run_on(self) -> None:
        await self.hears.until(lambda: len(self.answered) > RUNS_ON)

    async def run(self) -> None:
        while not self.sender.lost:
            if self.sent - len(self.answered) < 64:
                await self.sender.write(self.sender.frames(self.target_id, self.sent, 16))
                self.sent += 16
                await asyncio.sleep(0)
            else:
                self.hears.came.clear()
                await self.hears.came.wait()


@pytest.mark.parametrize(("number", "drain"), [(signal.SIGTERM, 0.0), (signal.SIGINT, 0.0), (signal.SIGTERM, 1.5)])
@run_async
async def test_signal_under_load(
    start_relay: Callable[..., RelayProcess], number: signal.Signals, drain: float
) -> None:
    relay = start_relay(limits={"frames_per_second": 0, "refusals_per_second": 0}, drain=drain)
    clients = [await BulkClient.open(relay.port, Identity.generate(), relay.public) for _ in range(12)]
    loads = [Load(clients[at], clients[at ^ 1]) for at in range(8)]
    loads += [Load(each, None) for each in clients[8:]]
    running = [asyncio.create_task(load.run()) for load in loads]
    for load in loads:
        await load.has_run_on()

    relay.signal(number)
    status = await asyncio.to_thread(relay.wait)
    assert status == 0
    for client in clients:
        await client.gone()
    for task in running:
        # One whose recipient went first waits for nothing any more.
        task.cancel()
    ended = await asyncio.gather(*running, return_exceptions=True)
    assert all(each is None or isinstance(each, asyncio.CancelledError) for each in ended), ended
    for client in clients:
        assert [type(body) for body in client.said] == [c.Restarting]
        (restarting,) = client.said
        assert isinstance(restarting, c.Restarting)
        assert 500 <= restarting.reconnect_in_ms <= 5000
        assert client.over is not None
        assert client.over.code == 1001
        # Who goes first takes nothing more, and those who stay a while longer are told so.
        assert client.refused == [] or client in clients[8:] or drain
    # What was read was delivered or refused, up to one frame and none beyond it ...
    handled = [load.answered if load in loads[8:] else load.answered + load.sender.refused for load in loads]
    for numbers in handled:
        assert numbers == list(range(len(numbers)))
    # ... and the relay counted no other than these and the handshakes.
    assert relay.stopped["frames"] == sum(map(len, handled)) + len(clients)


def _told(client: BulkClient) -> bool:
    return bool(client.said)


@run_async
async def test_sessions_are_closed_one_after_another_and_a_second_signal_hurries(
    start_relay: Callable[..., RelayProcess],
) -> None:
    """With an hour to go, those who are left talk to each other, nobody is let in, and all have been told."""
    relay = start_relay(drain=3600)
    clients = [await BulkClient.open(relay.port, Identity.generate(), relay.public) for _ in range(4)]
    relay.signal(signal.SIGTERM)
    for client in clients:
        await client.until(partial(_told, client))
        assert [type(body) for body in client.said] == [c.Restarting]
    one, other = clients[2:]
    await one.write(one.frames(other.id, 0, 3))
    await other.received(one.id, 3)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(upgrade_request())
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " in answer
    writer.close()
    assert relay.running
    assert [client.lost for client in clients] == [False] * 4

    relay.signal(signal.SIGTERM)
    assert await asyncio.to_thread(relay.wait) == 0
    for client in clients:
        await client.gone()
        assert client.over is not None
        assert client.over.code == 1001
        assert len(client.said) == 1, "RESTARTING came twice"


@run_async
async def test_while_some_are_gone_the_others_are_told_so(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(drain=8)
    clients = [await BulkClient.open(relay.port, Identity.generate(), relay.public) for _ in range(20)]
    relay.signal(signal.SIGTERM)
    first, last = clients[0], clients[-1]
    await first.gone()
    assert first.over is not None
    assert first.over.code == 1001
    assert not last.lost, "all went at once"
    await last.write(last.frames(first.id, 7, 1))
    await last.until(lambda: last.refused == [7])
    assert await asyncio.to_thread(relay.wait) == 0


@pytest.mark.parametrize("drain", [0.0, 1.0])
@run_async
async def test_answers_that_wait_for_their_pace_are_given_before_the_end(
    start_relay: Callable[..., RelayProcess], drain: float
) -> None:
    relay = start_relay(limits={"refusals_burst": 20, "refusals_per_second": 20}, drain=drain)
    client = await BulkClient.open(relay.port, Identity.generate(), relay.public)
    await client.write(client.frames(Identity.generate().id, 0, 200))
    await client.until(lambda: len(client.refused) >= 16)
    relay.signal(signal.SIGTERM)
    assert await asyncio.to_thread(relay.wait) == 0
    await client.gone()
    assert client.refused == list(range(len(client.refused)))
    assert relay.stopped["refusals"]["offline"] == len(client.refused)


@run_async
async def test_an_idle_relay_stops_at_once(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(drain=3600)
    async with Clients(relay) as clients:
        person = await clients.open()
        relay.signal(signal.SIGTERM)
        await person.expect(c.Restarting)
        # The last one goes by itself: there is nothing left to wait for.
        person.abort()
        assert await asyncio.to_thread(relay.wait) == 0


@run_async
async def test_frames_that_a_limit_held_back_are_not_forgotten(start_relay: Callable[..., RelayProcess]) -> None:
    """Reads are held for a rate, so the relay has read more than it has looked at."""
    relay = start_relay(limits={"frames_per_second": 1, "frames_burst": 100})
    one, other = [await BulkClient.open(relay.port, Identity.generate(), relay.public) for _ in range(2)]
    await one.write(one.frames(other.id, 0, 5000))
    await other.received(one.id, 50)
    relay.signal(signal.SIGTERM)
    assert await asyncio.to_thread(relay.wait) == 0
    for client in (one, other):
        await client.gone()
    delivered = other.delivered[one.id]
    assert delivered == list(range(len(delivered)))
    assert one.refused == []
    assert relay.stopped["frames"] == len(delivered) + 2


@run_async
async def test_stalled_client_holds_nothing_up(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits={"queue_age": 600})
    async with Clients(relay) as clients:
        victim = await clients.open(receive_buffer=4096)
        victim.stop_reading()
        sender = await clients.open()
        flood = Flood(sender, victim.id)
        await flood.send(200)
        await await_handled(flood)
        before = len(flood.refused)
        relay.signal(signal.SIGTERM)
        assert await asyncio.to_thread(relay.wait) == 0
        # What waited is answered before the end.
        while isinstance(item := await sender.next(), c.RecipientOffline):
            flood.take_refusal(item)
        assert isinstance(item, c.Restarting)
        assert (await sender.closed()).code == 1001
        assert len(flood.refused) > before
        assert len(set(flood.refused)) == len(flood.refused)
        assert sorted(flood.refused)[-1] == flood.sent - 1


@run_async
async def test_slow_client_gets_what_was_queued(start_relay: Callable[..., RelayProcess]) -> None:
    """One that reads again while the relay stops loses nothing: each frame is delivered, or answered."""
    # Half of this is the time that such queues are given.
    relay = start_relay(limits={"queue_age": 600, "shutdown_deadline": 20})
    async with Clients(relay) as clients:
        victim = await clients.open(receive_buffer=65536)
        victim.stop_reading()
        floods = [Flood(await clients.open(), victim.id) for _ in range(2)]
        for flood in floods:
            await flood.send(60)
            await await_handled(flood)
        relay.signal(signal.SIGTERM)
        victim.read_on()
        await take_frames(victim, floods)
        assert await asyncio.to_thread(relay.wait) == 0
        for flood in floods:
            flood.check()
            await flood.sender.expect(c.Restarting)
            assert (await flood.sender.closed()).code == 1001
        await victim.expect(c.Restarting)
        assert (await victim.closed()).code == 1001


@run_async
async def test_those_without_a_session_are_closed_too(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay()
    async with Clients(relay) as clients:
        fresh = await clients.socket()
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        holder = await clients.open(pongs=False)
        await holder.round_trip()
        waiting = await clients.connect(holder.identity)
        await waiting.greet()
        relay.signal(signal.SIGTERM)
        assert (await fresh.receive_close()).code == 1001
        assert await reader.read() == b""
        assert (await waiting.closed()).code == 1001
        writer.close()
        assert await asyncio.to_thread(relay.wait) == 0


@run_async
async def test_nobody_is_let_in_any_more(start_relay: Callable[..., RelayProcess]) -> None:
    """While queues are given time to drain, a client that is told HANDSHAKE_OK could only be disappointed."""
    relay = start_relay(limits={"queue_age": 600, "shutdown_deadline": 20})
    async with Clients(relay) as clients:
        victim = await clients.open(receive_buffer=4096)
        victim.stop_reading()
        sender, late = await clients.open(), await clients.connect()
        flood = Flood(sender, victim.id)
        await flood.send(200)
        await await_handled(flood)
        relay.signal(signal.SIGTERM)
        await eventually(lambda: any(record["event"] == "stopping" for record in relay.records), "not stopping")
        await late.greet()
        victim.abort()  # which is handled after the handshake, and ends the waiting
        assert (await late.closed()).code == 1001
        assert await asyncio.to_thread(relay.wait) == 0


@run_async
async def test_no_new_connections_once_told_to_stop(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay()
    relay.signal(signal.SIGTERM)
    assert await asyncio.to_thread(relay.wait) == 0
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", relay.port)


@run_async
async def test_power_cut_and_restart(start_relay: Callable[..., RelayProcess]) -> None:
    first = start_relay()
    identities = [Identity.generate() for _ in range(6)]
    async with Clients(first) as clients:
        people = await clients.open_many(identities)
        await people[0].send(identities[1], b"before")
        assert await people[1].text_from(identities[0]) == b"before"
        await asyncio.to_thread(first.kill)
        for client in people:
            assert (await client.closed()).code is None, "the end of the socket, and no Close frame"
    second = start_relay()
    assert second.public == first.public
    async with Clients(second) as clients:
        people = await clients.open_many(identities)
        await people[0].send(identities[1], b"after")
        assert await people[1].text_from(identities[0]) == b"after"
