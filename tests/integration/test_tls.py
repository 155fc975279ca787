"""TLS of the relay's own: conversations, stalled readers, endings, and what is no TLS."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import TYPE_CHECKING

import pytest

from keys.files import ServerKeys
from keys.identity import Identity
from relay.app import Relay
from relay.settings import Settings
from relay.tls import BadCertificate
from tests.support.certificates import Files, make_certificate, trusting
from tests.support.clients import (
    CLOSE,
    PING,
    WAIT,
    Client,
    Clients,
    Door,
    RawSocket,
    eventually,
    opening_status,
    run_async,
    tcp_connect,
    ws_frame,
)
from tests.support.flood import Flood, Growth, await_handled, check_resumed, echo
from wire import commands as c
from wire.limits import MAX_FRAME
from wire.session import PeerFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

MIB = 1024 * 1024


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_certificate(tmp_path)


@pytest.fixture
def start(start_relay: Callable[..., RelayProcess], files: Files) -> Callable[..., RelayProcess]:
    def start(*arguments: str, **how: object) -> RelayProcess:
        relay = start_relay(arguments=["--tls-cert", str(files.chain), "--tls-key", str(files.key), *arguments], **how)
        assert relay.url == f"wss://127.0.0.1:{relay.port}/ws"
        return relay

    return start


def door(relay: RelayProcess, files: Files, before: bytes = b"") -> Door:
    return Door(relay.port, tls=trusting(files), before=before)


def tls_of(client: Client) -> ssl.SSLObject:
    found = client.raw.writer.get_extra_info("ssl_object")
    assert isinstance(found, ssl.SSLObject)
    return found


# --- Conversations ---------------------------------------------------------------------------------------------------


@run_async
async def test_a_conversation(start: Callable[..., RelayProcess], files: Files) -> None:
    relay = start()
    async with Clients(relay, door(relay, files)) as clients:
        alice, bob = await clients.open(), await clients.open()
        assert tls_of(alice).version() == "TLSv1.3"
        assert tls_of(alice).selected_alpn_protocol() == "http/1.1"
        for text in (b"hello", os.urandom(300_000)):
            await alice.send(bob.public, text)
            assert await bob.text_from(alice.public) == text
        packet = os.urandom(MAX_FRAME - 8)
        await alice.send_packet(bob.id, packet)
        assert (await bob.expect(PeerFrame)).packet == packet
        await bob.raw.send(b"still there?", PING)
        await echo(alice, bob, 50)
        await alice.close()
        await bob.round_trip()
    relay.check()
    assert relay.stopped["endings"]["client"] >= 1


@run_async
async def test_one_byte_at_a_time(start: Callable[..., RelayProcess], files: Files) -> None:
    relay = start()
    async with Clients(relay, door(relay, files)) as clients:
        client = await clients.connect()
        for byte in ws_frame(client.session.hello()):
            await client.raw.write(bytes((byte,)))
        await client.welcomed()
        await client.round_trip()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize(("version", "taken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
@run_async
async def test_versions(start: Callable[..., RelayProcess], files: Files, version: str, taken: bool) -> None:
    relay = start()
    context = trusting(files)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    async with Clients(relay, Door(relay.port, tls=context)) as clients:
        if taken:
            await (await clients.open()).round_trip()
        else:
            with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
                await clients.open()
    relay.check()
    assert relay.stopped["endings"].get("bad_tls", 0) == (0 if taken else 1)


# --- Stalled readers -------------------------------------------------------------------------------------------------


@run_async
async def test_a_stalled_reader_is_bounded_and_drains(start: Callable[..., RelayProcess], files: Files) -> None:
    relay = start(limits={"queue_size": MIB, "refusals_per_second": 0, "queue_age": 600})
    async with Clients(relay, door(relay, files)) as clients:
        victim = await clients.open(receive_buffer=4096)
        await victim.round_trip()
        victim.stop_reading()
        senders = [await clients.open() for _ in range(2)]
        for sender in senders:
            await sender.subscribe(victim.public)
            await sender.expect(c.PeerOnline)
        floods = [Flood(sender, victim.id) for sender in senders]
        pair = await clients.open(), await clients.open()
        async with Growth(relay) as growth:
            await asyncio.gather(*(flood.send(400) for flood in floods), echo(*pair, 100))
            for flood in floods:
                await await_handled(flood)
        assert sum(flood.sent for flood in floods) * 64 * 1024 == 50 * MIB
        assert growth.most < 32 * MIB, f"grew by {growth.most >> 10} KiB"
        assert all(len(flood.refused) > 100 for flood in floods)
        victim.read_on()
        await check_resumed(victim, floods)


@run_async
async def test_the_oldest_byte_ends_a_stalled_reader(start: Callable[..., RelayProcess], files: Files) -> None:
    relay = start(limits={"queue_size": MIB, "refusals_per_second": 0, "queue_age": 2})
    async with Clients(relay, door(relay, files)) as clients:
        victim, sender = await clients.open(receive_buffer=4096), await clients.open()
        await victim.round_trip()
        victim.stop_reading()
        await sender.subscribe(victim.public)
        await sender.expect(c.PeerOnline)
        flood = Flood(sender, victim.id)
        await flood.send(400)
        while not isinstance(item := await sender.next(), c.PeerOffline):
            assert isinstance(item, c.RecipientOffline)
            flood.take_refusal(item)
        victim.abort()
        await eventually(lambda: relay.connections() == 1, "the stalled socket stays")
    relay.check()
    assert relay.stopped["endings"]["stalled"] == 1


@run_async
async def test_a_sender_is_held_by_what_it_may_spend(start: Callable[..., RelayProcess], files: Files) -> None:
    relay = start(limits={"bytes_per_second": MIB, "bytes_burst": 2 * MIB})
    async with Clients(relay, door(relay, files)) as clients:
        alice, bob = await clients.open(), await clients.open()
        packets = [os.urandom(MAX_FRAME - 8) for _ in range(4)]
        for packet in packets:
            await alice.send_packet(bob.id, packet)
        assert [(await bob.expect(PeerFrame)).packet for _ in packets] == packets


# --- Endings ---------------------------------------------------------------------------------------------------------


@run_async
async def test_the_relay_ends_with_close_frame_and_close_notify(
    start: Callable[..., RelayProcess], files: Files
) -> None:
    relay = start()
    async with Clients(relay, door(relay, files)) as clients:
        client = await clients.connect()
        await client.raw.send(b"no handshake")
        ended = await client.closed()
        assert (ended.code, ended.reason) == (1008, "no valid handshake")
        # An end without close_notify would be SSLEOFError, or a reset.
        assert await client.raw.reader.read() == b""
        await eventually(lambda: relay.connections() == 0, "the socket stays")


@run_async
async def test_the_relay_goes_away(start: Callable[..., RelayProcess], files: Files) -> None:
    relay = start()
    async with Clients(relay, door(relay, files)) as clients:
        alice = await clients.open()
        relay.check()
        await alice.expect(c.Restarting)
        assert (await alice.closed()).code == 1001


@run_async
async def test_a_client_that_closes(start: Callable[..., RelayProcess], files: Files) -> None:
    relay = start()
    async with Clients(relay, door(relay, files)) as clients:
        alice = await clients.open()
        await alice.raw.send((1000).to_bytes(2, "big"), CLOSE)
        assert (await alice.closed()).code == 1000
        await eventually(lambda: relay.connections() == 0, "the socket stays")


@pytest.mark.parametrize("how", ["close_notify", "end of stream", "reset"])
@run_async
async def test_a_client_that_goes_without_a_word(start: Callable[..., RelayProcess], files: Files, how: str) -> None:
    relay = start()
    async with Clients(relay, door(relay, files)) as clients:
        watcher, gone = await clients.open(), await clients.open()
        await watcher.subscribe(gone.public)
        await watcher.expect(c.PeerOnline)
        if how == "close_notify":
            gone.raw.writer.close()
        elif how == "end of stream":
            sock = gone.raw.writer.get_extra_info("socket")
            os.close(os.dup(sock.fileno()))
            sock.shutdown(1)
        else:
            gone.abort()
        await watcher.expect(c.PeerOffline)
        await eventually(lambda: relay.connections() == 1, "the socket stays")
    relay.check()
    assert set(relay.stopped["endings"]) == {"client"} | ({"shutdown"} & set(relay.stopped["endings"]))


# --- What is no TLS, and what takes too long -------------------------------------------------------------------------


@run_async
async def test_plain_http_is_told_so(start: Callable[..., RelayProcess]) -> None:
    relay = start()
    reader, writer = await tcp_connect(relay.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n")
    async with asyncio.timeout(WAIT):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"wss://" in answer


@pytest.mark.parametrize("data", [os.urandom(400), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(507)])
@run_async
async def test_junk_is_no_session(start: Callable[..., RelayProcess], data: bytes) -> None:
    relay = start()
    reader, writer = await tcp_connect(relay.port)
    writer.write(data)
    async with asyncio.timeout(WAIT):
        await reader.read()
    writer.close()
    await eventually(lambda: relay.connections() == 0, "the socket stays")
    relay.check()
    assert relay.stopped["endings"] == {"bad_tls": 1}


@run_async
async def test_a_record_that_was_changed_ends_the_session(start: Callable[..., RelayProcess], files: Files) -> None:
    relay = start()
    async with Clients(relay, door(relay, files)) as clients:
        alice = await clients.open()
        sock = alice.raw.writer.get_extra_info("socket")
        with open(os.dup(sock.fileno()), "wb", buffering=0) as raw:  # noqa: ASYNC230, PTH123 - past TLS
            raw.write(b"\x17\x03\x03\x00\x20" + os.urandom(32))
        assert (await alice.closed_at_last()).code is None
    relay.check()
    assert relay.stopped["endings"] == {"bad_tls": 1}


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
@run_async
async def test_the_handshake_is_within_the_opening_deadline(start: Callable[..., RelayProcess], said: bytes) -> None:
    relay = start(limits={"opening_deadline": 1})
    reader, writer = await tcp_connect(relay.port)
    writer.write(said)
    async with asyncio.timeout(WAIT):
        assert await reader.read() == b""
    writer.close()
    relay.check()
    assert relay.stopped["endings"] == {"slow_opening": 1}


# --- With a PROXY header before it -----------------------------------------------------------------------------------


def line(address: str) -> bytes:
    return f"PROXY TCP4 {address} 198.51.100.1 51234 443\r\n".encode()


@run_async
async def test_a_proxy_header_comes_before_tls(start: Callable[..., RelayProcess], files: Files) -> None:
    relay = start("--proxy-protocol", limits={"handshakes_per_second": 0.001, "handshakes_burst": 1})
    async with Clients(relay) as clients:
        for address in ("203.0.113.9", "203.0.113.10"):
            client = await clients.open(door=door(relay, files, line(address)))
            await client.round_trip()
        assert await opening_status(door(relay, files, line("203.0.113.9"))) == 429
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await clients.connect(door=door(relay, files))
    relay.check()
    assert relay.stopped["endings"]["bad_proxy"] == 1


@run_async
async def test_tls_handshakes_are_counted_by_address(start: Callable[..., RelayProcess], files: Files) -> None:
    """They cost a signature of the certificate's key, before anything that tells one client from another."""
    limits = {"tls_handshakes_per_second": 0.001, "tls_handshakes_burst": 2}
    relay = start("--proxy-protocol", limits=limits)
    async with Clients(relay) as clients:
        for _ in range(2):
            await clients.open(door=door(relay, files, line("203.0.113.9")))
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await clients.connect(door=door(relay, files, line("203.0.113.9")))
        await clients.open(door=door(relay, files, line("203.0.113.10")))
    relay.check()
    assert relay.stopped["endings"]["handshake_rate"] == 1


# --- Renewal ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(files: Files) -> Iterator[Settings]:
    yield Settings.model_validate({"port": 0, "tls_cert": files.chain, "tls_key": files.key})


@run_async
async def test_a_renewed_certificate_is_for_those_who_come(settings: Settings, files: Files, tmp_path: Path) -> None:
    keys = ServerKeys(Identity.generate(), None)
    relay = Relay(settings, keys)
    await relay.start()
    certificate = relay.listener.certificate
    assert certificate is not None
    old = trusting(files)

    async def connect(context: ssl.SSLContext) -> Client:
        raw = await RawSocket.connect(Door(relay.listener.port, tls=context))
        client = Client(Identity.generate(), keys.identity.public, raw)
        await client.greet()
        await client.welcomed()
        return client

    first = await connect(old)
    fresh = make_certificate(tmp_path, "new")
    new = trusting(fresh)
    # Only one of the two files is new yet: the old pair stays, in whole.
    files.chain.write_bytes(fresh.chain.read_bytes())
    with pytest.raises(BadCertificate, match="is not the key of"):
        certificate.reload()
    second = await connect(old)
    files.key.write_bytes(fresh.key.read_bytes())
    certificate.reload()
    third = await connect(new)
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(old)
    for client in (first, second, third):
        await client.round_trip()
        await client.abandon()
    await relay.stop()
