"""Clients for the tests over real sockets: our codec on a WebSocket that also does what no library would.

A test is a coroutine under `run_async`; everything it opens through :class:`Clients` is closed at its end.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar, cast

from websockets.speedups import apply_mask

from keys.contact import Contact
from keys.identity import Identity, PublicIdentity
from wire import commands as c
from wire.frames import frame_nonce
from wire.session import ClientSession, PeerFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

WAIT: Final = 60.0
"""Seconds for anything that is bound to happen: only a failing test waits so long."""

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN: Final = 0x80

P = ParamSpec("P")
T = TypeVar("T")


def run_async(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine function as a test."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Closed(Exception):
    """The connection is over: with the code of a Close frame, or None where the socket just ended."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def ws_frame(payload: bytes, opcode: int = BINARY, *, fin: bool = True) -> bytes:
    """Return a masked WebSocket frame (RFC 6455 §5.2)."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    mask = os.urandom(4)
    return bytes((opcode | FIN * fin,)) + length + mask + apply_mask(payload, mask)


def upgrade_request(path: str = "/ws", headers: Mapping[str, str] | None = None) -> bytes:
    """Return the HTTP request that opens a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: relay.example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True)
class Door:
    """A way to the relay: a port of this machine or a Unix socket, with TLS or without.

    `source` is the address to come from, of 127.0.0.0/8; `before` is what is sent before all else, TLS included.
    """

    port: int = 0
    path: Path | None = None
    tls: ssl.SSLContext | None = None
    source: str = ""
    before: bytes = b""


async def opening_status(door: int | Door, headers: Mapping[str, str] | None = None) -> int:
    """Return the HTTP status that an opening is answered, and hang up."""
    reader, writer = await tcp_connect(door)
    try:
        writer.write(upgrade_request(headers=headers))
        return int((await reader.readuntil(b"\r\n")).split()[1])
    finally:
        writer.close()


async def tcp_connect(
    door: int | Door, *, receive_buffer: int | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the relay; with a small `receive_buffer` the kernel takes little for whoever does not read."""
    if isinstance(door, int):
        door = Door(door)
    if door.path is None:
        # With the protocol named asyncio sets TCP_NODELAY, and what was sent is at the relay when send() returns.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if door.source:
        sock.bind((door.source, 0))
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT):
        try:
            await loop.sock_connect(sock, ("127.0.0.1", door.port) if door.path is None else os.fspath(door.path))
            await loop.sock_sendall(sock, door.before)
            name = None if door.tls is None else "relay.example"
            return await asyncio.open_connection(sock=sock, ssl=door.tls, server_hostname=name)
        except BaseException:
            sock.close()
            raise


class RawSocket:
    """A WebSocket without manners of its own: it answers nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls,
        door: int | Door,
        path: str = "/ws",
        headers: Mapping[str, str] | None = None,
        *,
        receive_buffer: int | None = None,
    ) -> Self:
        """Open a WebSocket."""
        reader, writer = await tcp_connect(door, receive_buffer=receive_buffer)
        writer.write(upgrade_request(path, headers))
        async with asyncio.timeout(WAIT):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return cls(reader, writer)

    async def send(self, payload: bytes, opcode: int = BINARY) -> None:
        await self.write(ws_frame(payload, opcode))

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame; the relay neither fragments nor masks.

        Raises:
            Closed: the socket ended.
        """
        try:
            first, second = await self.reader.readexactly(2)
            assert first & 0xF0 == FIN, "fragmented, or with reserved bits"
            assert second < 0x80, "masked"
            size = second
            if second == 126:
                (size,) = struct.unpack(">H", await self.reader.readexactly(2))
            elif second == 127:
                (size,) = struct.unpack(">Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            raise Closed(None) from None

    async def receive_close(self) -> Closed:
        """Return how it ends, whatever comes before."""
        async with asyncio.timeout(WAIT):
            try:
                while True:
                    opcode, payload = await self.receive()
                    if opcode == CLOSE:
                        return closed_by(payload)
            except Closed as closed:
                return closed
            finally:
                self.writer.close()

    def abort(self) -> None:
        """Let the socket die without a word."""
        self.writer.transport.abort()


def closed_by(payload: bytes) -> Closed:
    """Read the payload of a Close frame."""
    return Closed(int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else Closed(1005)


class Client:
    """One session with the relay. A task of its own reads, so that pings are answered at once."""

    def __init__(self, identity: Identity, relay: PublicIdentity, raw: RawSocket, *, pongs: bool = True) -> None:
        self.identity = identity
        self.public = identity.public
        self.id = identity.id
        self.session = ClientSession(identity, relay)
        self.raw = raw
        self.pongs = pongs
        self.pings: list[bytes] = []
        self._reads = asyncio.Event()
        self._reads.set()
        self._came: asyncio.Queue[c.ServerBody | PeerFrame | Closed] = asyncio.Queue()
        self._pump = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                await self._reads.wait()
                opcode, payload = await self.raw.receive()
                if opcode == BINARY:
                    self._came.put_nowait(self.session.receive(payload))
                elif opcode == PING:
                    self.pings.append(payload)
                    if self.pongs:
                        await self.raw.send(payload, PONG)
                elif opcode == CLOSE:
                    self._came.put_nowait(closed_by(payload))
                    return
        except (Closed, ConnectionError):
            self._came.put_nowait(Closed(None))
        finally:
            self.raw.writer.close()

    def stop_reading(self) -> None:
        """Take nothing more from the socket (after what is being taken just now)."""
        self._reads.clear()

    def read_on(self) -> None:
        self._reads.set()

    # --- Receiving ---------------------------------------------------------------------------------------------------

    async def next(self) -> c.ServerBody | PeerFrame:
        """Return what comes next, but for keepalives.

        Raises:
            Closed: the connection is over.
        """
        async with asyncio.timeout(WAIT):
            while True:
                item = await self._came.get()
                if isinstance(item, Closed):
                    self._came.put_nowait(item)  # and so at every later call
                    raise item
                if not isinstance(item, c.ServerPing):
                    return item

    async def expect(self, kind: type[T]) -> T:
        """Return what comes next, which must be of this kind."""
        item = await self.next()
        assert isinstance(item, kind), f"{item!r} instead of {kind.__name__}"
        return item

    async def closed(self) -> Closed:
        """Return how the connection ends, which must be what comes next."""
        try:
            item = await self.next()
        except Closed as closed:
            return closed
        raise AssertionError(f"{item!r} instead of the end")

    async def closed_at_last(self) -> Closed:
        """Return how the connection ends, whatever comes before."""
        try:
            while True:
                await self.next()
        except Closed as closed:
            return closed

    async def text_from(self, peer: Identity | PublicIdentity) -> bytes:
        """Return the plaintext of the packet that comes next, which must be from this peer."""
        return self.opened(await self.expect(PeerFrame), peer)

    def opened(self, frame: PeerFrame, peer: Identity | PublicIdentity) -> bytes:
        public = peer.public if isinstance(peer, Identity) else peer
        assert frame.sender_id == public.id
        return Contact(self.identity, public).open(frame.packet)

    # --- Sending -----------------------------------------------------------------------------------------------------

    async def command(self, body: c.ClientBody) -> None:
        await self.raw.send(self.session.command(body))

    async def send(self, peer: Identity | PublicIdentity, plaintext: bytes) -> bytes:
        """Send a sealed packet; returns its nonce."""
        public = peer.public if isinstance(peer, Identity) else peer
        frame = self.session.send(public.id, Contact(self.identity, public).seal(plaintext))
        await self.raw.send(frame)
        return frame_nonce(frame)

    async def send_packet(self, target_id: bytes, packet: bytes) -> None:
        await self.raw.send(self.session.send(target_id, packet))

    async def round_trip(self) -> None:
        """Return once the relay has handled all that was sent so far; nothing else may be on its way to us."""
        target, packet = os.urandom(8), os.urandom(128)
        await self.send_packet(target, packet)
        assert await self.expect(c.RecipientOffline) == c.RecipientOffline(target, packet[:24])

    async def subscribe(self, *publics: PublicIdentity) -> None:
        await self.command(c.Subscribe.of(public.x_pub for public in publics))

    # --- Beginning and end -------------------------------------------------------------------------------------------

    async def greet(self) -> None:
        """Send the handshake request."""
        await self.raw.send(self.session.hello())

    async def welcomed(self, *, prove: bool = True) -> None:
        """Take HANDSHAKE_OK, which must come first, and the CHALLENGE; answer it, or leave the session unproven."""
        await self.expect(c.HandshakeOk)
        challenge = await self.expect(c.Challenge)
        if prove:
            await self.command(c.Proof(challenge.random))

    async def close(self) -> None:
        """Leave as a library does."""
        if not self._pump.done():
            self.read_on()
            with_close = ws_frame((1000).to_bytes(2, "big"), CLOSE)
            self.raw.writer.write(with_close)
            await asyncio.wait([self._pump], timeout=WAIT)
        await self.abandon()

    def abort(self) -> None:
        """Let the socket die without a word."""
        self.raw.abort()

    async def abandon(self) -> None:
        """Give up everything held here."""
        self._pump.cancel()
        await asyncio.wait([self._pump])
        self.raw.abort()


class Clients:
    """The clients of one test; all are given up at its end."""

    def __init__(self, relay: RelayProcess, door: Door | None = None) -> None:
        self.relay = relay
        self._door = door
        self._open: list[Client] = []
        self._sockets: list[RawSocket] = []

    @property
    def door(self) -> Door:
        """The usual way in; of several relays that are one, each time another's."""
        return self._door or Door(self.relay.port)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._open:
            await client.abandon()
        for raw in self._sockets:
            raw.abort()

    async def socket(self, path: str = "/ws", headers: Mapping[str, str] | None = None) -> RawSocket:
        """Open a WebSocket that says nothing yet."""
        raw = await RawSocket.connect(self.door, path, headers)
        self._sockets.append(raw)
        return raw

    async def connect(
        self,
        identity: Identity | None = None,
        *,
        pongs: bool = True,
        path: str = "/ws",
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
        door: Door | None = None,
    ) -> Client:
        """Open a WebSocket for a client that says nothing yet, by this door or the usual one."""
        raw = await RawSocket.connect(door or self.door, path, headers, receive_buffer=receive_buffer)
        client = Client(identity or Identity.generate(), self.relay.public, raw, pongs=pongs)
        self._open.append(client)
        return client

    async def open(self, identity: Identity | None = None, *, prove: bool = True, **how: object) -> Client:
        """Open a session."""
        client = await self.connect(identity, **cast("Any", how))
        await client.greet()
        await client.welcomed(prove=prove)
        return client

    async def open_many(self, identities: Iterable[Identity]) -> list[Client]:
        return [await self.open(identity) for identity in identities]


async def eventually(true: Callable[[], bool], what: str) -> None:
    """Wait until something that only another process can change is so."""
    deadline = asyncio.get_running_loop().time() + WAIT
    while not true():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.02)
