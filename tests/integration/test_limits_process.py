"""Limits on what strangers and clients may do, over real sockets."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from keys.identity import SERVER_ID, Identity
from tests.support.clients import (
    BINARY,
    CLOSE,
    CONT,
    PONG,
    TEXT,
    WAIT,
    Clients,
    run_async,
    tcp_connect,
    upgrade_request,
    ws_frame,
)
from wire import frames, mask
from wire.limits import MAX_FRAME
from wire.session import PeerFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.relay_process import RelayProcess


async def http(relay: RelayProcess, request: bytes) -> bytes:
    """Return all that the relay answers until it hangs up."""
    reader, writer = await tcp_connect(relay.port)
    writer.write(request)
    async with asyncio.timeout(WAIT):
        answer = await reader.read()
    writer.close()
    return answer


# --- Before there is a WebSocket -------------------------------------------------------------------------------------


@run_async
async def test_pages(relay: RelayProcess) -> None:
    for path, status, text in (
        ("/healthz", b"200", b"ok\n"),
        ("/healthz?x=1", b"200", b"ok\n"),
        ("/", b"200", b"<h1>blindrelay</h1>"),
        ("/info", b"200", b'"protocol_versions"'),
        ("/readyz", b"200", b"ready\n"),
        ("/nowhere", b"404", b"/ws"),
        ("/ws/", b"404", b"/ws"),
        ("/metrics/../ws", b"404", b"/ws"),
    ):
        answer = await http(relay, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == status, path
        assert text in body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", b"426"),
        (upgrade_request().replace(b"Version: 13", b"Version: 12"), b"400"),
        (upgrade_request().replace(b"Sec-WebSocket-Key", b"Sec-WebSocket-Lock"), b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"POST /ws HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"405"),
    ],
    ids=["not an upgrade", "another version", "no key", "TLS", "POST"],
)
@run_async
async def test_other_requests(relay: RelayProcess, request_: bytes, status: bytes) -> None:
    assert (await http(relay, request_)).split()[1] == status


@run_async
async def test_request_head_is_bounded(relay: RelayProcess) -> None:
    endless = b"GET /ws HTTP/1.1\r\nHost: x\r\n" + b"X-Filler: abcdefgh\r\n" * 1000
    assert (await http(relay, endless)).split()[1] == b"431"


@pytest.mark.parametrize("begun", [b"", b"GET /ws HT", upgrade_request(), upgrade_request() + b"\x82\xfe\x10"])
@run_async
async def test_slow_opening_is_closed(start_relay: Callable[..., RelayProcess], begun: bytes) -> None:
    relay = start_relay(limits={"opening_deadline": 0.5})
    reader, writer = await tcp_connect(relay.port)
    writer.write(begun)
    async with asyncio.timeout(WAIT):
        answer = await reader.read()
    writer.close()
    if begun.startswith(upgrade_request()):
        close = answer.partition(b"\r\n\r\n")[2]
        assert close[:1] == bytes((0x80 | CLOSE,))
        assert close[2:] == b"\x03\xf0no handshake in time"
    else:
        assert answer == b""
    await asyncio.to_thread(relay.check)
    assert relay.stopped["endings"] == {"slow_opening": 1}


# --- Handshakes of one address ---------------------------------------------------------------------------------------


@run_async
async def test_flood_of_handshakes_from_one_address(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits={"handshakes_burst": 3, "handshakes_per_second": 0.0001})

    async def ends_with(address: str | None) -> int | None:
        headers = {} if address is None else {"X-Forwarded-For": address}
        raw = await clients.socket(headers=headers)
        await raw.send(os.urandom(172))
        return (await raw.receive_close()).code

    async with Clients(relay) as clients:
        # These were opened while there was a token for each of them.
        early = await clients.socket(headers={"X-Forwarded-For": "203.0.113.7"})
        cut = await clients.connect(headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.7"})
        assert [await ends_with("203.0.113.7") for _ in range(3)] == [1008, 1008, 1008]
        await early.send(os.urandom(172))
        assert (await early.receive_close()).code == 1013
        # A valid one too: it is cut before anything is computed.
        await cut.greet()
        assert (await cut.closed()).code == 1013
        # From now on nobody of that address gets as far as a WebSocket.
        refused = await http(relay, upgrade_request(headers={"X-Forwarded-For": "203.0.113.7"}))
        assert refused.split()[1] == b"429"
        assert 9_000 < int(refused.partition(b"Retry-After: ")[2].split(b"\r\n")[0]) <= 10_000
        # Others are not concerned, whatever the client itself wrote in front.
        assert await ends_with("203.0.113.7, 203.0.113.8") == 1008
        assert [await ends_with(f"2001:db8::{count}") for count in range(3)] == [1008, 1008, 1008]
        site = await http(relay, upgrade_request(headers={"X-Forwarded-For": "2001:db8::ffff"}))
        assert site.split()[1] == b"429"
        assert await ends_with("2001:db8:0:1::1") == 1008
        # Without the header nobody in particular is counted, as it is a proxy that connects.
        assert [await ends_with(None) for _ in range(6)] == [1008] * 6
        await clients.open(headers={"X-Forwarded-For": "192.0.2.1"})
    await asyncio.to_thread(relay.check)
    assert relay.stopped["endings"]["handshake_rate"] == 4


# --- Within a session ------------------------------------------------------------------------------------------------


@run_async
async def test_malformed_frames_are_forgiven_up_to_a_number(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice = await clients.open()
        for _ in range(15):
            await alice.raw.send(os.urandom(111))
        await alice.round_trip()
        await alice.raw.send(b"")
        closed = await alice.closed()
        assert (closed.code, closed.reason) == (1008, "too many malformed frames")


@run_async
async def test_commands_that_do_not_open_are_malformed(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice = await clients.open(prove=False)
        header = mask.client_to_server(alice.identity.shared_with(relay.public.x_pub))
        for _ in range(16):
            # For the server, in a packet that nobody sealed.
            await alice.raw.send(frames.build_frame(header, SERVER_ID, os.urandom(200)))
        assert (await alice.closed()).code == 1008


@run_async
async def test_largest_frame_and_one_byte_more(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice, bob = await clients.open(), await clients.open()
        packet = os.urandom(MAX_FRAME - 8)
        await alice.send_packet(bob.id, packet)
        assert await bob.expect(PeerFrame) == PeerFrame(alice.id, packet)
        await alice.raw.write(ws_frame(os.urandom(MAX_FRAME + 1))[:14])  # its head alone says it all
        assert (await alice.closed()).code == 1009


@run_async
async def test_fragments_add_up_to_the_same_limit(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice, bob = await clients.open(), await clients.open()
        frame = alice.session.send(bob.id, os.urandom(MAX_FRAME - 8))
        parts = [frame[at : at + 300_000] for at in range(0, len(frame), 300_000)]
        for number, part in enumerate(parts):
            await alice.raw.write(
                ws_frame(part, CONT if number else BINARY, fin=number == len(parts) - 1) + ws_frame(b"", PONG)
            )
        assert await bob.expect(PeerFrame) == PeerFrame(alice.id, frame[8:])
        await alice.raw.write(ws_frame(bytes(MAX_FRAME), fin=False) + ws_frame(b"x", CONT))
        assert (await alice.closed()).code == 1009


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (b"\x82\x05hello", 1002),
        (ws_frame(b"x" * 200, 0x9), 1002),
        (ws_frame(b"", 0x3), 1002),
        (b"\xc2\x80\x00\x00\x00\x00", 1002),
        (ws_frame(b"x", CONT), 1002),
        (ws_frame(b"\x03", CLOSE), 1002),
        (ws_frame(b"\xff\xff", TEXT), None),
    ],
    ids=[
        "unmasked",
        "long ping",
        "unknown opcode",
        "reserved bit",
        "continuation of nothing",
        "short close",
        "bad text",
    ],
)
@run_async
async def test_violations_of_the_websocket_protocol(relay: RelayProcess, wrong: bytes, code: int | None) -> None:
    async with Clients(relay) as clients:
        alice = await clients.open()
        await alice.raw.write(wrong)
        if code is None:
            # Text is not looked at, and so not decoded either.
            await alice.round_trip()
        else:
            assert (await alice.closed()).code == code


@run_async
async def test_rate_makes_a_sender_wait_and_nothing_else(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits={"frames_per_second": 200, "frames_burst": 50})
    async with Clients(relay) as clients:
        alice, bob, carol = await clients.open_many(Identity.generate() for _ in range(3))
        packets = [os.urandom(150) for _ in range(250)]
        for packet in packets:
            await alice.send_packet(bob.id, packet)
        await carol.send(bob.public, b"not held up")
        arrived = [await bob.expect(PeerFrame) for _ in range(len(packets) + 1)]
        assert [frame.packet for frame in arrived if frame.sender_id == alice.id] == packets
        assert arrived[-1].sender_id == alice.id, "Carol's came before the last of those that had to wait"
