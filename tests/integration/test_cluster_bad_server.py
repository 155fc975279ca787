"""What a NATS server, or who stands before it, may do to a node: it says so or tries again, and never stays alone."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from relay.backplane import ClusterError, ClusterOptions, nats_bus, nats_client
from relay.backplane.nats_bus import NatsBus
from tests.support.certificates import make_certificate
from tests.support.clients import eventually, run_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

INFO = {"server_id": "x", "version": "2.10.0", "headers": True, "max_payload": 1 << 20}


def info(**more: Any) -> bytes:
    return b"INFO " + json.dumps(INFO | more).encode() + b"\r\n"


class Script:
    """A server that treats each connection as the test says, the last way for all that come later."""

    def __init__(self) -> None:
        self.talks: list[Talk] = [self.good]
        self.open: list[asyncio.StreamWriter] = []
        self.count = 0
        self.heard: list[bytes] = []
        self.port = 0
        self.go = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        self.open.append(writer)
        talk = self.talks.pop(0) if len(self.talks) > 1 else self.talks[0]
        try:
            await talk(reader, writer)
        except OSError:
            pass
        finally:
            self.open.remove(writer)
            writer.close()

    async def good(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer as a server does, until the other hangs up."""
        writer.write(info())
        await self.answer(reader, writer)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self.heard.append(line)
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")

    async def brief(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let the other in, and hang up when the test says so."""
        writer.write(info() + b"PONG\r\n")
        await self.go.wait()

    async def mute(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(info())
        await reader.read()

    async def stuck(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read nothing, and at a word of the test refuse the other without hanging up."""
        writer.write(info() + b"PONG\r\n")
        await self.go.wait()
        writer.write(b"-ERR 'Authorization Violation'\r\n")
        await writer.wait_closed()

    @property
    def options(self) -> ClusterOptions:
        return ClusterOptions((f"nats://127.0.0.1:{self.port}",), bytes(32))


@asynccontextmanager
async def serving() -> AsyncIterator[Script]:
    script = Script()
    server = await asyncio.start_server(script.take, "127.0.0.1", 0)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()
        for writer in list(script.open):
            writer.transport.abort()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bus, "_AGAIN", 0.01)
    monkeypatch.setattr(nats_bus, "_TRY_FOR", 0.1)
    monkeypatch.setattr(nats_client, "_GIVE_UP_WITHIN", 0.2)


async def back(bus: NatsBus, script: Script, count: int) -> None:
    async with asyncio.timeout(20):
        await eventually(lambda: bus.connected and script.count >= count, "the node is back")


@pytest.mark.parametrize("said", [b"INFO []\r\n", b'INFO {"connect_urls": 5}\r\n', b"INFO \xff\r\n", b"\r\n"])
@run_async
async def test_a_server_that_says_nonsense_is_tried_again(said: bytes) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()

    async with serving() as script:
        script.talks = [script.brief, nonsense, script.good]
        bus = NatsBus(script.options)
        await bus.connect()
        script.go.set()
        await back(bus, script, 3)
        await bus.close()


@run_async
async def test_connections_that_failed_are_closed() -> None:
    """Else each try leaves one behind, and what its server says is heard beside that of the next."""
    async with serving() as script:
        script.talks = [script.brief, script.mute, script.mute, script.mute, script.good]
        bus = NatsBus(script.options)
        await bus.connect()
        script.go.set()
        await back(bus, script, 5)
        await eventually(lambda: len(script.open) == 1, "the others are closed")
        await bus.close()


def fill(bus: NatsBus) -> None:
    for _ in range(64):
        bus.publish("blindrelay.node.x", bytes(1 << 19))


@run_async
async def test_a_server_that_refuses_us_while_it_reads_nothing() -> None:
    """nats-py would first write what it has, for ever, and tell nobody that it gave up."""
    async with serving() as script:
        script.talks = [script.stuck, script.good]
        bus = NatsBus(script.options)
        await bus.connect()
        client = bus._client
        assert client is not None
        fill(bus)
        # nats-py's own flushing waits for the first, and the second waits behind it.
        for _ in range(2):
            await client._send_ping()
            await asyncio.sleep(0.01)
        script.go.set()
        await back(bus, script, 2)
        await bus.close()


@run_async
async def test_what_waits_to_leave_is_told() -> None:
    async with serving() as script:
        script.talks = [script.stuck]
        bus = NatsBus(script.options)
        await bus.connect()
        assert bus.backlog == 0
        fill(bus)
        assert bus.backlog > 1 << 20
        await bus.close()


# --- TLS -------------------------------------------------------------------------------------------------------------


def with_tls(script: Script, ca: Path) -> ClusterOptions:
    return ClusterOptions((f"tls://127.0.0.1:{script.port}",), bytes(32), ca=ca, user="us", password="secret")


def encrypted(tmp_path: Path, script: Script, before: bytes) -> Talk:
    """Return how a server talks before which somebody says something of their own."""
    files = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(info(tls_required=True) + before)
        await writer.start_tls(context)
        await script.answer(reader, writer)

    return talk


@run_async
async def test_credentials_do_not_go_out_in_the_clear_where_tls_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands between takes `tls_required` out of the greeting."""
    monkeypatch.setattr(nats_bus, "CONNECT_WITHIN", 0.3)
    async with serving() as script:
        with pytest.raises(ClusterError, match="TLS"):
            await NatsBus(with_tls(script, make_certificate(tmp_path).chain)).connect()
        assert script.count
        assert script.heard == []


@run_async
async def test_what_was_said_before_tls_does_not_count_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_bus, "CONNECT_WITHIN", 0.4)
    async with serving() as script:
        script.talks = [encrypted(tmp_path, script, b"PONG\r\n")]
        with pytest.raises(ClusterError, match="before TLS"):
            await NatsBus(with_tls(script, tmp_path / "tls.pem")).connect()
        assert script.heard == []


@run_async
async def test_a_certificate_that_is_not_good_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_bus, "CONNECT_WITHIN", 0.6)
    other = make_certificate(tmp_path, "other")
    async with serving() as script, asyncio.timeout(20):
        script.talks = [encrypted(tmp_path, script, b"")]
        with pytest.raises(ClusterError, match="certificate"):
            await NatsBus(with_tls(script, other.chain)).connect()
        assert script.count > 1
        await eventually(lambda: not script.open, "all are closed")
