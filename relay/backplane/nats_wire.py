"""The connection to a NATS server: a transport for nats-py that hands over messages itself.

nats-py reads through a stream, in steps of 32 KiB, each of which wakes a task, and copies each byte five times until
somebody has it. Messages are what a node receives all day, so they do not take that way: they are taken out of the
bytes where the event loop puts these, and handed over in the same turn. Whatever else a server says (``INFO``,
``PING``, ``PONG``, ``-ERR``) is seldom; nats-py reads and answers it, and connects, authenticates and reconnects.

What goes out does not wait for nats-py's flushing task either: the event loop writes it at the end of the turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from ssl import SSLContext
from typing import Final
from urllib.parse import ParseResult

from nats.aio.transport import Transport
from nats.errors import Error as NatsError
from nats.errors import ProtocolError

Message = Callable[[int, bytes, bytes, bytes, bytes | None], None]
"""Takes the number of a subscription, the subject, the one to answer on, the payload, and headers if there are any."""

_SIZE: Final = 512 * 1024
"""Bytes of a connection's buffer: twice the largest message that a node sends, and it grows for larger ones."""
_ROOM: Final = 64 * 1024
"""Bytes that the kernel is offered at least."""
_MAX_LINE: Final = 1024 * 1024
"""Bytes of a line: an ``INFO`` names all servers of a cluster."""
_MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes of a message; no NATS server allows more."""
_MAX_LINES: Final = 1024
"""Lines that nats-py has not read, beyond which we read no more: a server may say them faster than it takes them."""
_END: Final = b"\r\n"


class Inlet(asyncio.BufferedProtocol):
    """What comes from the server, divided into messages and lines.

    Args:
        message: is called with each message, in order; what it raises ends the connection.
    """

    def __init__(self, message: Message) -> None:
        self._message = message
        self._buffer = bytearray(_SIZE)
        self._start = self._end = 0
        self._need = 1
        """Bytes from `_start` on without which nothing more can be told."""
        self._lines: deque[bytes] = deque()
        self._paused = False
        self._reading: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.get_running_loop().create_future()

    # --- Called by the event loop ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where a broken connection is to be ended."""
        self._transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - what fits is taken
        """Return where the next bytes go."""
        held = self._end - self._start
        if max(self._start + self._need, self._end + _ROOM) > len(self._buffer):
            size = self._need + _ROOM
            kept = self._buffer[self._start : self._end]
            if size > len(self._buffer):
                self._buffer = bytearray(size)
            self._buffer[:held] = kept
            self._start, self._end = 0, held
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came."""
        self._end += nbytes
        if self._end - self._start < self._need or self._error is not None:
            return
        try:
            self._divide()
        except ValueError:
            self._broken(ProtocolError("nats: unknown protocol"))
        if len(self._lines) > _MAX_LINES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > _SIZE:
                self._buffer = bytearray(_SIZE)

    def eof_received(self) -> None:
        """Let the transport close, as it does of itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait."""
        self._error = self._error or exc
        if not self.lost.done():
            self.lost.set_result(None)
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        """The kernel does not take what was written."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """It took most of it."""
        waiting, self._writable = self._writable, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # --- Dividing ----------------------------------------------------------------------------------------------------

    def _divide(self) -> None:
        """Hand over all that is whole.

        Raises:
            ValueError: this is not what a NATS server says.
        """
        buffer, end = self._buffer, self._end
        view = memoryview(buffer)
        while (held := end - self._start) > 0:
            start = self._start
            stop = buffer.find(_END, start, end)
            if stop < 0:
                if held > _MAX_LINE:
                    raise ValueError
                self._need = held + 1
                return
            body = stop + 2
            if not buffer.startswith((b"MSG ", b"HMSG "), start):
                self._start = body
                self._lines.append(bytes(view[start:body]))
                self._wake()
                continue
            words = bytes(view[start:stop]).split()
            headed = len(words[0]) == 4
            _, subject, sid, *reply = words[: -2 if headed else -1]
            size, head = int(words[-1]), int(words[-2]) if headed else 0
            after = body + size
            if not 0 <= head <= size <= _MAX_MESSAGE or len(reply) > 1:
                raise ValueError
            if after + 2 > end:
                self._need = after + 2 - start
                return
            # Before it is handed over: whatever that brings about, it is not handed over twice.
            self._start = after + 2
            self._message(
                int(sid),
                subject,
                reply[0] if reply else b"",
                bytes(view[body + head : after]),
                bytes(view[body : body + head]) if headed else None,
            )
        self._need = 1

    def _broken(self, error: Exception) -> None:
        self._error = error
        self._start = self._end = 0
        self._need = 1
        if self._transport is not None:
            self._transport.abort()

    # --- Called by nats-py -------------------------------------------------------------------------------------------

    @property
    def untouched(self) -> bool:
        """Whether everything that came was read."""
        return not self._lines and self._start == self._end

    @property
    def at_eof(self) -> bool:
        """Whether the server hung up, and everything that it said was read."""
        return self.lost.done() and not self._lines and self._error is None

    def _wake(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)

    async def line(self) -> bytes:
        """Return the next line that is no message, or nothing if the server hung up.

        Raises:
            OSError: the connection broke.
            ProtocolError: what came is not what a NATS server says.
        """
        while not self._lines:
            if self.lost.done():
                if self._error is not None:
                    raise self._error
                return b""
            self._reading = asyncio.get_running_loop().create_future()
            await self._reading
        line = self._lines.popleft()
        if self._paused and not self._lines and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return line

    async def drain(self) -> None:
        """Wait until the kernel has taken most of what was written.

        Raises:
            ConnectionResetError: it never will.
        """
        if self._writable is not None:
            # Several may wait for it, and one that is cancelled must not take it from the others.
            await asyncio.shield(self._writable)
        if self.lost.done():
            raise ConnectionResetError("the connection is lost")


class Wire(Transport):
    """nats-py's transport over TCP and TLS.

    Args:
        message: is called with each message.
    """

    def __init__(self, message: Message) -> None:
        self._message = message
        self._inlet: Inlet | None = None
        self._transport: asyncio.Transport | None = None

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:  # noqa: ARG002
        """Connect over TCP.

        Raises:
            OSError: there is no way, or no answer in time.
        """
        # nats-py leaves the connection of a try that failed to itself; its messages would be heard beside the next's.
        self.abort()
        await self.wait_closed()
        loop, inlet = asyncio.get_running_loop(), Inlet(self._message)
        async with asyncio.timeout(connect_timeout):
            transport, _ = await loop.create_connection(lambda: inlet, uri.hostname or "", uri.port or 0)
        self._inlet, self._transport = inlet, transport

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: SSLContext,
        buffer_size: int,  # noqa: ARG002
        connect_timeout: int,
    ) -> None:
        """Go on under TLS; a string is the server's name.

        Raises:
            OSError: the server's certificate is not good, or there is no answer in time.
            nats.errors.Error: more was said before TLS than the greeting; anybody on the way may have.
        """
        inlet, name = self._connected, uri if isinstance(uri, str) else uri.hostname
        if not inlet.untouched:
            raise NatsError("nats: more was said before TLS than INFO")
        loop, raw = asyncio.get_running_loop(), self._open
        try:
            async with asyncio.timeout(connect_timeout):
                transport = await loop.start_tls(raw, inlet, ssl_context, server_hostname=name)
        except BaseException:
            raw.abort()
            # A protocol is not told of a connection that is lost under the handshake.
            inlet.connection_lost(None)
            raise
        if transport is None:
            inlet.connection_lost(None)
            raise ConnectionResetError("the server hung up")
        self._transport = transport
        inlet.connection_made(transport)

    @property
    def _connected(self) -> Inlet:
        if self._inlet is None:
            raise ConnectionResetError("not connected")
        return self._inlet

    @property
    def _open(self) -> asyncio.Transport:
        if self._transport is None or self._connected.lost.done():
            raise ConnectionResetError("not connected")
        return self._transport

    @property
    def encrypted(self) -> bool:
        """Whether it goes over TLS."""
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is not None

    @property
    def backlog(self) -> int:
        """Bytes that the kernel did not take yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def put(self, parts: tuple[bytes, ...]) -> None:
        """Send, unless the connection is lost: nats-py notices that a moment later."""
        if self._transport is not None and not self._connected.lost.done():
            self._transport.writelines(parts)

    def write(self, payload: bytes) -> None:
        """Send one command."""
        self.put((payload,))

    def writelines(self, payload: list[bytes]) -> None:
        """Send commands."""
        self.put(tuple(payload))

    async def read(self, buffer_size: int) -> bytes:  # noqa: ARG002
        """Return the next line that is no message."""
        return await self._connected.line()

    async def readline(self) -> bytes:
        """Return the next line that is no message."""
        return await self._connected.line()

    async def drain(self) -> None:
        """Wait until the kernel has taken most of what was written."""
        await self._connected.drain()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""
        if self._inlet is not None:
            await asyncio.shield(self._inlet.lost)

    def close(self) -> None:
        """Send what is left, then close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what lies unsent is lost."""
        if self._transport is not None:
            self._transport.abort()

    def at_eof(self) -> bool:
        """Whether there is nothing more to read."""
        return self._inlet is None or self._inlet.at_eof

    def __bool__(self) -> bool:
        # nats-py makes one of its own in place of one that is not.
        return True
