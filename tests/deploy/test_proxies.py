"""Conversations through the proxies of deploy/, and the client's address behind them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.deploy import proxies
from tests.support.certificates import make_certificate, trusting
from tests.support.clients import PING, WAIT, Clients, Door, eventually, opening_status, run_async, tcp_connect
from tests.support.flood import echo
from tests.support.relay_process import RelayProcess
from wire import commands as c
from wire.limits import MAX_FRAME
from wire.session import PeerFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROXIES: Final = [
    pytest.param((name, way), marks=pytest.mark.needs(name), id=f"{name}-{way}")
    for name in proxies.NAMES
    for way in ("port", "unix")
]
BURST: Final = 8
LIMITS: Final[dict[str, float]] = {
    "handshakes_per_second": 0.0001,
    "handshakes_burst": BURST,
    "ping_after": 1,
    "silent_after": 4,
}


class Site:
    """A relay and a proxy before it."""

    def __init__(self, directory: Path, name: str, way: str) -> None:
        arguments = ["--trusted-proxies", "127.0.0.1, unix"]
        if name == "haproxy":
            arguments += ["--proxy-protocol"]
        if way == "unix":
            arguments += ["--unix-socket", str(directory / "relay.sock"), "--url", "wss://relay.example/ws"]
        self.relay = RelayProcess(directory, limits=LIMITS, arguments=arguments)
        upstream = f"unix:{directory}/relay.sock" if way == "unix" else f"127.0.0.1:{self.relay.port}"
        try:
            self.files = make_certificate(directory)
            start: Callable[..., proxies.Proxy] = getattr(proxies, name)
            self.proxy = start(directory, self.files, upstream)
        except BaseException:
            self.relay.process.kill()
            raise
        self.name = name

    def door(self, source: str) -> Door:
        return Door(self.proxy.port, tls=trusting(self.files), source=source)

    def stop(self) -> None:
        self.proxy.stop()
        try:
            self.relay.check()
        finally:
            self.relay.process.kill()
            self.relay.process.wait()


@pytest.fixture(scope="module", params=PROXIES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    name, way = request.param
    running = Site(tmp_path_factory.mktemp(name), name, way)
    yield running
    running.stop()
    # HAProxy's own checks, which come with a header that says LOCAL.
    assert "is DOWN" not in running.proxy.output, running.proxy.output


@run_async
async def test_a_conversation(site: Site) -> None:
    async with Clients(site.relay, site.door("127.0.0.2")) as clients:
        alice, bob = await clients.open(), await clients.open()
        await echo(alice, bob, 20)
        for sender, recipient in ((alice, bob), (bob, alice)):
            packet = os.urandom(MAX_FRAME - 8)
            await sender.send_packet(recipient.id, packet)
            assert (await recipient.expect(PeerFrame)).packet == packet
        await alice.raw.send(b"still there?", PING)
        await alice.subscribe(bob.public)
        await alice.expect(c.PeerOnline)
        await bob.close()
        await alice.expect(c.PeerOffline)


@run_async
async def test_the_older_path_with_a_query(site: Site) -> None:
    async with Clients(site.relay, site.door("127.0.0.3")) as clients:
        await (await clients.open(path="/api0?token=irrelevant")).round_trip()


@run_async
async def test_silent_clients_stay(site: Site) -> None:
    async with Clients(site.relay, site.door("127.0.0.4")) as clients:
        alice, deaf = await clients.open(), await clients.open(pongs=False)
        await alice.subscribe(deaf.public)
        await alice.expect(c.PeerOnline)
        await eventually(lambda: len(alice.pings) >= 3, "the relay does not ask")
        # It is the relay that decides who is gone.
        assert (await deaf.closed()).code == 1008
        await alice.expect(c.PeerOffline)
        await alice.round_trip()


@run_async
async def test_the_end_of_a_connection_comes_through(site: Site) -> None:
    async with Clients(site.relay, site.door("127.0.0.5")) as clients:
        client = await clients.connect()
        await client.raw.send(b"no handshake")
        ended = await client.closed()
        assert (ended.code, ended.reason) == (1008, "no valid handshake")


@run_async
async def test_the_health_page(site: Site) -> None:
    reader, writer = await tcp_connect(site.door("127.0.0.6"))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: relay.example\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(WAIT):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"ok" in answer


# --- The client's address --------------------------------------------------------------------------------------------

FORGED: Final = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Real-IP": "203.0.113.7",
    "Forwarded": "for=203.0.113.7",
    "X-Client-IP": "203.0.113.7",
}


@run_async
async def test_clients_are_told_apart_by_their_addresses(site: Site) -> None:
    async with Clients(site.relay) as clients:
        here, there = site.door("127.0.0.10"), site.door("127.0.0.11")
        for _ in range(BURST):
            await clients.open(door=here)
        for headers in ({}, FORGED, {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-For": "unknown"}):
            assert await opening_status(here, headers) == 429
        for _ in range(BURST):
            # To claim another's address does not use up what that one has.
            await clients.open(door=there, headers={"X-Forwarded-For": "127.0.0.12"})
        await clients.open(door=site.door("127.0.0.12"))


# --- What a proxy writes down ----------------------------------------------------------------------------------------

TOKEN: Final = "t0ken-of-an-older-client"


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(name)) for name in proxies.NAMES])
@run_async
async def test_no_log_has_a_query_or_an_address(name: str, tmp_path: Path) -> None:
    site = Site(tmp_path, name, "port")
    try:
        door = site.door("127.0.0.77")
        path = f"/ws?token={TOKEN}"
        async with Clients(site.relay, door) as clients:
            for _ in range(2):
                await clients.open(path=path)
            (await clients.open(path=path)).abort()
            # The relay dies under those that are open, and is not there for those who come.
            site.relay.kill()
            for _ in range(2):
                with pytest.raises((AssertionError, OSError, EOFError)):
                    await clients.connect(path=path)
    finally:
        site.stop()
    check_written(tmp_path)


def check_written(directory: Path) -> None:
    written = [file for file in directory.rglob("*") if file.is_file()]
    assert directory / "proxy.log" in written
    for file in written:
        content = file.read_bytes()
        assert TOKEN.encode() not in content, file
        assert b"127.0.0.77" not in content, file
