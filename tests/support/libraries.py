"""WebSocket libraries that are not ours, each behind the same few methods: bytes in, bytes out."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import aiohttp
import websocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.clients import WAIT, Closed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OFFER: Final = "permessage-deflate; client_max_window_bits"


class Library(ABC):
    """One connection made by a library. All offer permessage-deflate."""

    fragments: ClassVar[bool] = True
    """Whether the library can send a message in fragments."""
    extensions: str = ""
    """What the relay agreed to."""

    @classmethod
    @abstractmethod
    async def open(cls, url: str, node: Path | None) -> Self:
        """Connect; `node` is the directory of the Node.js client."""

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Send a binary message."""

    async def send_fragments(self, parts: Sequence[bytes]) -> None:
        """Send a binary message in fragments."""
        raise AssertionError("this library sends no fragments")

    @abstractmethod
    async def send_text(self, text: str) -> None:
        """Send a text message."""

    @abstractmethod
    async def ping(self, payload: bytes) -> None:
        """Send a ping and wait for its pong."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Return the next binary message.

        Raises:
            Closed: the connection is over.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close with 1000 and wait until it is done."""


class Websockets(Library):
    """`websockets`, high-level and asynchronous, with its defaults."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.extensions = connection.response.headers.get("Sec-WebSocket-Extensions", "") if connection.response else ""

    @classmethod
    async def open(cls, url: str, node: Path | None) -> Self:  # noqa: ARG003 - one signature for all
        return cls(await connect(url))

    async def send(self, message: bytes) -> None:
        await self._connection.send(message)

    async def send_fragments(self, parts: Sequence[bytes]) -> None:
        await self._connection.send(parts)

    async def send_text(self, text: str) -> None:
        await self._connection.send(text)

    async def ping(self, payload: bytes) -> None:
        await (await self._connection.ping(payload))

    async def receive(self) -> bytes:
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise Closed(error.rcvd.code if error.rcvd else None) from None

    async def close(self) -> None:
        await self._connection.close()


class Aiohttp(Library):
    """`aiohttp`, whose public interface sends no fragments."""

    fragments = False

    def __init__(self, session: aiohttp.ClientSession, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._connection = connection
        self._messages: asyncio.Queue[bytes | Closed] = asyncio.Queue()
        self._pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self._pump = asyncio.create_task(self._read())
        self.extensions = "permessage-deflate" if connection.compress else ""

    @classmethod
    async def open(cls, url: str, node: Path | None) -> Self:  # noqa: ARG003 - one signature for all
        session = aiohttp.ClientSession()
        try:
            return cls(session, await session.ws_connect(url, compress=15, autoping=False))
        except BaseException:
            await session.close()
            raise

    async def _read(self) -> None:
        while True:
            message = await self._connection.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                self._messages.put_nowait(message.data)
            elif message.type is aiohttp.WSMsgType.PING:
                await self._connection.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                self._pongs.put_nowait(message.data)
            else:
                self._messages.put_nowait(Closed(self._connection.close_code))
                return

    async def send(self, message: bytes) -> None:
        await self._connection.send_bytes(message)

    async def send_text(self, text: str) -> None:
        await self._connection.send_str(text)

    async def ping(self, payload: bytes) -> None:
        await self._connection.ping(payload)
        assert await self._pongs.get() == payload

    async def receive(self) -> bytes:
        item = await self._messages.get()
        if isinstance(item, Closed):
            raise item
        return item

    async def close(self) -> None:
        self._pump.cancel()
        await asyncio.wait([self._pump])
        await self._connection.close()
        await self._session.close()


class WebsocketClient(Library):
    """`websocket-client`: blocking, each call in a thread."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._messages: asyncio.Queue[bytes | Closed] = asyncio.Queue()
        self._pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._reader = self._loop.run_in_executor(None, self._read)
        self.extensions = connection.getheaders().get("sec-websocket-extensions", "")

    @classmethod
    async def open(cls, url: str, node: Path | None) -> Self:  # noqa: ARG003 - one signature for all
        header = [f"Sec-WebSocket-Extensions: {OFFER}"]  # it knows none itself
        return cls(await asyncio.to_thread(websocket.create_connection, url, timeout=WAIT, header=header))

    def _read(self) -> None:
        queue: asyncio.Queue[Any]
        while True:
            try:
                opcode, frame = self._connection.recv_data_frame(control_frame=True)
            except (websocket.WebSocketException, OSError):
                opcode, frame = websocket.ABNF.OPCODE_CLOSE, None
            item: Any = None if frame is None else bytes(frame.data)
            if opcode == websocket.ABNF.OPCODE_BINARY:
                queue = self._messages
            elif opcode == websocket.ABNF.OPCODE_PONG:
                queue = self._pongs
            elif opcode == websocket.ABNF.OPCODE_CLOSE:
                queue, item = self._messages, Closed(int.from_bytes(item[:2], "big") if item else None)
            else:
                continue  # a ping, which it has answered
            try:
                self._loop.call_soon_threadsafe(queue.put_nowait, item)
            except RuntimeError:
                return  # the test is over
            if isinstance(item, Closed):
                return

    async def send(self, message: bytes) -> None:
        await asyncio.to_thread(self._connection.send_binary, message)

    async def send_fragments(self, parts: Sequence[bytes]) -> None:
        for number, part in enumerate(parts):
            opcode = websocket.ABNF.OPCODE_CONT if number else websocket.ABNF.OPCODE_BINARY
            frame = websocket.ABNF.create_frame(part, opcode, int(number == len(parts) - 1))
            await asyncio.to_thread(self._connection.send_frame, frame)

    async def send_text(self, text: str) -> None:
        await asyncio.to_thread(self._connection.send, text)

    async def ping(self, payload: bytes) -> None:
        await asyncio.to_thread(self._connection.ping, payload)
        assert await self._pongs.get() == payload

    async def receive(self) -> bytes:
        item = await self._messages.get()
        if isinstance(item, Closed):
            raise item
        return item

    async def close(self) -> None:
        if not self._reader.done():
            # Its own close() would read too, and two threads that read take each other's bytes.
            await asyncio.to_thread(self._connection.send_close)
        await self._reader
        self._connection.shutdown()


class Node(Library):
    """`ws` in Node.js, in a process of its own that is driven by lines (tests/interop/node/client.js)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._in = process.stdin
        self._messages: asyncio.Queue[bytes | Closed] = asyncio.Queue()
        self._pongs: asyncio.Queue[bytes] = asyncio.Queue()

    @classmethod
    async def open(cls, url: str, node: Path | None) -> Self:
        assert node is not None
        pipe = asyncio.subprocess.PIPE
        # A line holds a frame of 1 MiB in hex.
        process = await asyncio.create_subprocess_exec(
            "node", "client.js", url, cwd=node, stdin=pipe, stdout=pipe, limit=4 * 1024 * 1024
        )
        client = cls(process)
        order, client.extensions = await client._line()
        assert order == "open", client.extensions
        client._pump = asyncio.create_task(client._read())
        return client

    _pump: asyncio.Task[None]

    async def _line(self) -> tuple[str, str]:
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().rstrip("\n")
        order, _, rest = line.partition(" ")
        return order, rest

    async def _read(self) -> None:
        while True:
            order, rest = await self._line()
            if order == "b":
                self._messages.put_nowait(bytes.fromhex(rest))
            elif order == "pong":
                self._pongs.put_nowait(bytes.fromhex(rest))
            elif order in ("close", ""):
                self._messages.put_nowait(Closed(int(rest.split()[0]) if rest else None))
                return
            else:
                raise AssertionError(f"{order} {rest[:100]}")

    async def _say(self, *words: str) -> None:
        self._in.write((" ".join(words) + "\n").encode())
        await self._in.drain()

    async def send(self, message: bytes) -> None:
        await self._say("b", message.hex())

    async def send_fragments(self, parts: Sequence[bytes]) -> None:
        await self._say("f", *(part.hex() for part in parts))

    async def send_text(self, text: str) -> None:
        await self._say("t", text)

    async def ping(self, payload: bytes) -> None:
        await self._say("p", payload.hex())
        assert await self._pongs.get() == payload

    async def receive(self) -> bytes:
        item = await self._messages.get()
        if isinstance(item, Closed):
            raise item
        return item

    async def close(self) -> None:
        if not self._pump.done():
            await self._say("c")
        await asyncio.wait([self._pump], timeout=WAIT)
        if self._process.returncode is None:
            self._in.close()
            try:
                async with asyncio.timeout(WAIT):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                raise


LIBRARIES: Final[dict[str, type[Library]]] = {
    "websockets": Websockets,
    "aiohttp": Aiohttp,
    "websocket-client": WebsocketClient,
    "node-ws": Node,
}


def split(message: bytes, parts: int) -> list[bytes]:
    """Return the message in so many parts, one of them empty."""
    step = max(1, len(message) // (parts - 2))
    cut = [message[at : at + step] for at in range(0, len(message), step)]
    return [*cut[:1], b"", *cut[1:]]
