"""Connections that are dead or stuck: nothing hangs, nothing is dropped."""

from __future__ import annotations

import asyncio

import pytest

from keys.identity import Identity
from peers.client import Connected, Disconnected, NotConnected, PeerPacket, Reason, RelayClient
from tests.peers.client.scripted import WAIT, Connection, ScriptedRelay, eventually, expect, next_event, until
from tests.support.clients import run_async
from wire import commands as c

TARGET = b"target_8"
LARGE = bytes(900_000)


async def welcome_and_stay(at: Connection) -> None:
    await (await at.welcome()).stay()


class Deaf:
    """A relay that lets in, says so many things, and then neither reads nor says anything: half of a connection."""

    def __init__(self, says: int = 0) -> None:
        self.over = asyncio.Event()
        self.says = says

    async def __call__(self, at: Connection) -> None:
        await at.welcome()
        for _ in range(self.says):
            await at.deliver(TARGET, bytes(104))
        at.ws.transport.pause_reading()
        await self.over.wait()
        at.ws.transport.abort()


async def fill(client: RelayClient, sent: list[int] | None = None) -> None:
    while True:
        await client.send(TARGET, LARGE)
        if sent is not None:
            sent.append(1)


@run_async
async def test_silence_ends_the_session() -> None:
    async with ScriptedRelay(welcome_and_stay) as relay, relay.client(liveness=0.1) as client:
        for _ in range(2):
            await expect(client, Connected)
            lost = await expect(client, Disconnected)
            assert lost.reason is Reason.SILENT
            assert "0.1 s" in lost.text


@run_async
async def test_parts_of_a_frame_are_life() -> None:
    async def slow(at: Connection) -> None:
        await at.welcome()
        frame = at.session.seal(c.Info("slow"))

        async def parts() -> object:
            for at_byte in range(0, len(frame), 8):
                yield frame[at_byte : at_byte + 8]
                await asyncio.sleep(0.15)  # the pace of the network, far below the liveness

        await at.ws.send(parts())  # type: ignore[arg-type]
        await at.stay()

    async with ScriptedRelay(slow) as relay, relay.client(liveness=2.0) as client:
        await expect(client, Connected)
        event = await next_event(client)
        assert type(event).__name__ == "Notice", event


@run_async
async def test_sends_into_a_dead_connection_end() -> None:
    deaf = Deaf()
    async with ScriptedRelay(deaf, welcome_and_stay) as relay, relay.client(liveness=0.3) as client:
        await client.connected(WAIT)
        filling = [asyncio.create_task(fill(client)) for _ in range(5)]
        for task in filling:
            with pytest.raises(NotConnected):
                await asyncio.wait_for(task, WAIT)
        await expect(client, Connected)
        assert (await expect(client, Disconnected)).reason is Reason.SILENT
        await expect(client, Connected)
        deaf.over.set()


@run_async
async def test_and_also_when_events_are_not_taken() -> None:
    """Nothing is read then, so that silence proves nothing; but nothing goes out either."""
    deaf = Deaf(says=3)
    async with ScriptedRelay(deaf) as relay, relay.client(liveness=0.3, queue=1) as client:
        await client.connected(WAIT)
        link = client._link
        assert link is not None
        await expect(client, Connected)
        await eventually(lambda: len(client._inbox) == 1 and not link._reading, "the queue is not full")
        with pytest.raises(NotConnected):
            await asyncio.wait_for(fill(client), WAIT)
        deaf.over.set()


@run_async
async def test_the_end_does_not_wait_for_a_dead_connection() -> None:
    deaf = Deaf()
    async with ScriptedRelay(deaf) as relay:
        async with asyncio.timeout(WAIT):
            async with relay.client() as client:
                await client.connected(WAIT)
                filling = asyncio.create_task(fill(client))
                await eventually(lambda: unsent(client) > 0, "the socket is not full")
            with pytest.raises(NotConnected):
                await filling
        deaf.over.set()


def looked(client: RelayClient) -> float:
    assert client._link is not None
    return 0.0 if client._link._look is None else client._link._look.when()


def unsent(client: RelayClient) -> int:
    assert client._link is not None
    return client._link._socket.transport.get_write_buffer_size()


@run_async
async def test_what_waited_for_room_when_the_connection_ended_is_not_said_to_be_sent() -> None:
    deaf, sent = Deaf(), list[int]()
    async with ScriptedRelay(deaf) as relay, relay.client() as client:
        await client.connected(WAIT)
        filling = asyncio.create_task(fill(client, sent))
        await eventually(lambda: unsent(client) > 0, "the socket is not full")
        assert client._link is not None
        before = len(sent)
        client._link._socket.transport.abort()
        with pytest.raises(NotConnected):
            await filling
        assert len(sent) == before
        deaf.over.set()


@run_async
async def test_many_senders_wait_in_line() -> None:
    deaf = Deaf()
    async with ScriptedRelay(deaf) as relay, relay.client() as client:
        await client.connected(WAIT)
        filling = [asyncio.create_task(fill(client)) for _ in range(20)]
        await eventually(lambda: unsent(client) > 0, "the socket is not full")
        for _ in range(100):
            await asyncio.sleep(0)
        assert unsent(client) < 2 * len(LARGE), "what waits is one frame, and not one of each"
        # Who is cancelled while waiting has no part in it any more, and the others go on.
        for task in filling[:10]:
            task.cancel()
        await asyncio.wait(filling[:10])
        assert client.is_connected
        deaf.over.set()
        ended = await asyncio.gather(*filling[10:], return_exceptions=True)
        assert all(isinstance(each, NotConnected) for each in ended), ended


@run_async
async def test_a_full_queue_of_events_pauses_the_socket_and_drops_nothing() -> None:
    count = 400
    sent: list[int] = []

    async def pump(at: Connection) -> None:
        await at.welcome()
        for number in range(count):
            await at.deliver((1 + number).to_bytes(8, "big"), bytes(100_000))
            sent.append(number)
        await at.ws.close(1001)

    async with ScriptedRelay(pump) as relay, relay.client(queue=4, liveness=0.2) as client:
        await client.connected(WAIT)
        link = client._link
        assert link is not None
        await eventually(lambda: not link._socket.transport.is_reading(), "the socket is still read")
        before = len(client._inbox)
        assert before == 4
        assert len(sent) < count
        # It was looked at after more than the liveness, and lives: that silence is ours, and not the relay's.
        stopped = asyncio.get_running_loop().time()
        await eventually(lambda: looked(client) > stopped + 0.6, "not looked at any more")
        assert client.is_connected
        await expect(client, Connected)
        for number in range(count):
            packet = await expect(client, PeerPacket)
            assert packet.sender_id == (1 + number).to_bytes(8, "big")
            assert len(client._inbox) <= 4
        await expect(client, Disconnected)


@run_async
async def test_a_relay_that_asks_and_does_not_read_does_not_fill_our_memory() -> None:
    async def ask(at: Connection) -> None:
        await at.welcome()
        at.ws.transport.pause_reading()
        while True:
            await at.ws.send(at.session.challenge())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("peers.client.opening.UNREAD_MOST", 100_000)
        async with ScriptedRelay(ask) as relay, relay.client() as client:
            await expect(client, Connected)
            assert (await until(client, Disconnected)).reason is Reason.LOST


@run_async
async def test_who_leaves_while_connecting_leaves() -> None:
    connected = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()  # no answer to the opening
        writer.close()

    async with ScriptedRelay(welcome_and_stay) as relay:
        card = relay.card
    port = int(card.url.rpartition(":")[2].removesuffix("/ws"))
    server = await asyncio.start_server(silent, "127.0.0.1", port)
    async with server, RelayClient(Identity.generate(), card):
        await asyncio.wait_for(connected.wait(), WAIT)


@run_async
async def test_cancelled_in_the_middle() -> None:
    async def body(client: RelayClient) -> None:
        async with client:
            await client.connected(WAIT)
            async for _ in client:
                inside.set()

    inside = asyncio.Event()
    async with ScriptedRelay(welcome_and_stay) as relay:
        client = relay.client()
        task = asyncio.create_task(body(client))
        await asyncio.wait_for(inside.wait(), WAIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not client.is_connected
        assert client._task is not None
        assert client._task.done()
