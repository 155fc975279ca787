"""Room for connections, over real sockets: refused with a status, kept below the open files, and given back."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.clients import WAIT, Client, Clients, eventually, run_async, tcp_connect, upgrade_request, ws_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.relay_process import RelayProcess

    Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def reply(port: int, address: str | None = None, path: str = "/ws") -> tuple[int, dict[str, str]]:
    """Return status and header lines of an opening, whose connection is given up at once."""
    reader, writer = await tcp_connect(port)
    writer.write(upgrade_request(path, {} if address is None else {"X-Forwarded-For": address}))
    try:
        async with asyncio.timeout(WAIT):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    finally:
        writer.transport.abort()
    return int(head[0].split()[1]), dict(line.split(": ", 1) for line in head[1:] if line)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Tell whether a connection is over, after what was sent is read."""
    try:
        async with asyncio.timeout(WAIT):
            return await reader.read() == b""
    except ConnectionError:
        return True


async def opened_at_last(clients: Clients) -> Client:
    """Open a session, trying again while the connection is cut."""
    async with asyncio.timeout(WAIT):
        while True:
            try:
                return await clients.open()
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.02)


# --- Refused with a status -------------------------------------------------------------------------------------------


@run_async
async def test_too_many_connections_are_told_so_and_places_are_given_back(
    start_relay: Callable[..., RelayProcess],
) -> None:
    relay = start_relay(limits={"connections": 3}, warned=["full"])
    async with Clients(relay) as clients:
        alice, _, third = [await clients.open() for _ in range(3)]
        status, lines = await reply(relay.port)
        assert (status, lines["Retry-After"]) == (503, "60")
        assert (await reply(relay.port, path="/healthz"))[0] == 200
        third.abort()
        await eventually(lambda: relay.connections() == 2, "the connection is not given back")
        bob = await clients.open()
        await alice.send(bob.public, b"still here")
        assert await bob.text_from(alice.public) == b"still here"
    await asyncio.to_thread(relay.check)
    assert relay.stopped["endings"]["full"] == 1


@run_async
async def test_too_many_connections_of_one_address(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits={"connections_per_address": 2})
    async with Clients(relay) as clients:
        first = await clients.open(headers={"X-Forwarded-For": "203.0.113.7"})
        await clients.socket(headers={"X-Forwarded-For": "203.0.113.7"})
        status, lines = await reply(relay.port, "203.0.113.7")
        assert (status, lines["Retry-After"]) == (429, "60")
        assert (await reply(relay.port, "203.0.113.8"))[0] == 101
        first.abort()
        await eventually(lambda: relay.connections() == 1, "the connection is not given back")
        await clients.open(headers={"X-Forwarded-For": "203.0.113.7"})
    await asyncio.to_thread(relay.check)
    assert relay.stopped["endings"]["address_full"] == 1
    assert "203.0.113" not in relay.output


# --- Open files ------------------------------------------------------------------------------------------------------


@run_async
async def test_sockets_that_say_nothing_do_not_use_up_the_open_files(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(
        files=160,
        limits={"connections": 40, "connections_spare": 20, "opening_grace": 0.05, "opening_deadline": 600},
        warned=["full"],
    )
    silent: list[Connection] = []
    async with Clients(relay) as clients:
        alice = await clients.open()
        try:
            silent += [await tcp_connect(relay.port) for _ in range(200)]
            assert psutil.Process(relay.process.pid).num_fds() < 120
            # Whoever has something to say gets in between them, although none of them leaves by itself: at once, or
            # at the next try while all are as young as it is.
            bob = await opened_at_last(clients)
            await alice.send(bob.public, b"through the crowd")
            assert await bob.text_from(alice.public) == b"through the crowd"
        finally:
            for _, writer in silent:
                writer.transport.abort()
    await asyncio.to_thread(relay.check)
    assert relay.stopped["endings"]["full"] >= 140


@run_async
async def test_without_a_file_left_nothing_spins_and_it_goes_on_afterwards(
    start_relay: Callable[..., RelayProcess],
) -> None:
    """Lower than the relay could know: as when something else in the process uses the files up."""
    relay = start_relay()
    process = psutil.Process(relay.process.pid)
    async with Clients(relay) as clients:
        alice, bob = await clients.open(), await clients.open()
        files, hard = process.num_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (files + 5, hard))
        crowd = [await tcp_connect(relay.port) for _ in range(30)]
        over = [asyncio.create_task(ended(reader)) for reader, _ in crowd]
        # As many as there are files get in; the others are hung up on, and do not wait in the kernel.
        done = 0
        async with asyncio.timeout(WAIT):
            for finished in asyncio.as_completed(over):
                assert await finished
                done += 1
                if done == 25:
                    break
        before = relay.processor()
        for _ in range(50):
            await alice.send(bob.public, b"as ever")
            assert await bob.text_from(alice.public) == b"as ever"
        assert relay.processor() - before < 1.0
        for task, (_, writer) in zip(over, crowd, strict=True):
            task.cancel()
            writer.transport.abort()
        await eventually(lambda: relay.connections() == 2, "the crowd is not gone")
        carol = await clients.open()
        await carol.round_trip()


def test_more_connections_than_files_is_an_error_at_the_start(start_relay: Callable[..., RelayProcess]) -> None:
    with pytest.raises(AssertionError) as caught:
        start_relay(files=200, limits={"connections": 100})
    assert "may open 200 files and needs 64 itself" in str(caught.value)
    assert "LimitNOFILE" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@run_async
async def test_a_small_number_of_files_gives_a_small_number_of_connections(
    start_relay: Callable[..., RelayProcess],
) -> None:
    relay = start_relay(files=64 + 128 + 20, warned=["full"])
    async with Clients(relay) as clients:
        for _ in range(20):
            await clients.socket()
        assert (await reply(relay.port))[0] == 503


# --- Slow-loris ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["the head of the request", "the first frame"])
@run_async
async def test_a_byte_now_and_then_gains_no_time(start_relay: Callable[..., RelayProcess], where: str) -> None:
    relay = start_relay(limits={"opening_deadline": 1.0})
    reader, writer = await tcp_connect(relay.port)
    if where == "the first frame":
        writer.write(upgrade_request())
        async with asyncio.timeout(WAIT):
            await reader.readuntil(b"\r\n\r\n")
        drops = ws_frame(bytes(4000))
    else:
        drops = upgrade_request(headers={"X-Filler": "x" * 4000})
    sent = 0
    over = asyncio.create_task(reader.read())
    for at in range(len(drops)):
        # No sleep: a byte each time that nothing came for a while.
        await asyncio.wait([over], timeout=0.05)
        if over.done():
            break
        writer.write(drops[at : at + 1])
        sent += 1
    assert over.done(), "all of it was taken"
    if where != "the first frame":
        assert isinstance(over.exception(), ConnectionResetError) or over.result() == b""
    assert 2 <= sent < len(drops) - 1
    if where == "the first frame":
        assert over.result()[2:4] == (1008).to_bytes(2, "big")
    writer.transport.abort()
    await asyncio.to_thread(relay.check)
    assert relay.stopped["endings"] == {"slow_opening": 1}
