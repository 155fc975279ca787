"""Many frames fast: frames built beforehand, written in batches, and taken apart in bulk.

No task, future or call per frame here, so that the relay and not the test is what takes the time.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, Self, cast

from tests.support.clients import BINARY, CLOSE, FIN, PING, PONG, WAIT, closed_by, upgrade_request, ws_frame
from wire import commands as c
from wire import mask
from wire.session import ClientSession, PeerFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from keys.identity import Identity, PublicIdentity
    from tests.support.clients import Closed

_ID: Final = 8
_SERVER: Final = bytes(_ID)


class BulkClient(asyncio.Protocol):
    """A session that counts. Numbered packets (`number(8) noise`) are booked by their sender; the rest goes to a list.

    Attributes:
        delivered: by sender id, the numbers of its packets in the order in which they came.
        refused: the numbers of our own packets that were answered 0x03.
        said: what else the relay said, in order.
        came: set at every arrival.
        over: what the relay's Close frame said, once it came; `lost`: whether the socket is gone.
    """

    transport: asyncio.Transport

    def __init__(self, identity: Identity, relay: PublicIdentity) -> None:
        self.id = identity.id
        self.identity = identity
        self.session = ClientSession(identity, relay)
        shared = identity.shared_with(relay.x_pub)
        self._unmask = mask.server_to_client(shared)
        self._mask = mask.client_to_server(shared)
        self._buffer = bytearray()
        self._upgraded = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.came = asyncio.Event()
        self.delivered: dict[bytes, list[int]] = {}
        self.refused: list[int] = []
        self.said: list[c.ServerBody] = []
        self.over: Closed | None = None
        self.lost = False

    @classmethod
    async def open(cls, port: int, identity: Identity, relay: PublicIdentity) -> Self:
        """Open a session; it stays unproven."""
        client = cls(identity, relay)
        await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
        client.transport.write(upgrade_request() + ws_frame(client.session.hello()))
        await client.until(lambda: len(client.said) >= 2 or client.lost)
        if client.lost:
            raise ConnectionResetError("the relay hung up before the session was open")
        assert [type(body) for body in client.said] == [c.HandshakeOk, c.Challenge]
        client.said.clear()
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        if not self._upgraded:
            at = buffer.find(b"\r\n\r\n") + 4
            if at < 4:
                return
            assert buffer.startswith(b"HTTP/1.1 101 ")
            self._upgraded = True
        end = len(buffer)
        while end - at >= 2:
            size = buffer[at + 1]
            start = at + 2
            if size == 126:
                start, size = at + 4, int.from_bytes(buffer[at + 2 : at + 4], "big")
            elif size == 127:
                start, size = at + 10, int.from_bytes(buffer[at + 2 : at + 10], "big")
            if end < start + size or end < start:
                break
            opcode = buffer[at] ^ FIN
            at = start + size
            self._frame(opcode, bytes(buffer[start:at]))
        del buffer[:at]
        self.came.set()

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == BINARY:
            if self.session.state.value == "open":
                sender = self._unmask.xor(payload[:_ID], payload[_ID:20])
                if sender != _SERVER:
                    self.delivered.setdefault(sender, []).append(int.from_bytes(payload[_ID:16], "big"))
                    return
            body = self.session.receive(payload)
            assert not isinstance(body, PeerFrame)
            if isinstance(body, c.RecipientOffline):
                self.refused.append(int.from_bytes(body.nonce[:8], "big"))
            else:
                self.said.append(body)
        elif opcode == PING:
            self.transport.write(ws_frame(payload, PONG))
        elif opcode == CLOSE:
            self.over = closed_by(payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._writable.set()
        self.came.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def frames(self, target_id: bytes, first: int, count: int, size: int = 128) -> bytes:
        """Return numbered frames, ready for the socket."""
        noise = os.urandom(size)
        tag, rest = noise[:16], noise[24:]
        frames = []
        for number in range(first, first + count):
            nonce = number.to_bytes(8, "big") + tag
            frames.append(ws_frame(self._mask.xor(target_id, nonce) + nonce + rest))
        return b"".join(frames)

    async def write(self, data: bytes) -> None:
        """Write once the transport takes it."""
        async with asyncio.timeout(WAIT):
            await self._writable.wait()
        self.transport.write(data)

    async def received(self, sender_id: bytes, count: int) -> None:
        """Wait until so many packets of this sender came."""
        await self.until(lambda: len(self.delivered.get(sender_id, ())) >= count)

    async def told(self) -> None:
        """Wait until the relay said something."""
        await self.until(lambda: bool(self.said))

    async def gone(self) -> None:
        """Wait for the end of the connection."""
        await self.until(lambda: self.lost)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until an arrival makes something true."""
        async with asyncio.timeout(WAIT):
            while not true():
                self.came.clear()
                await self.came.wait()
