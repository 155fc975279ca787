"""A network that fails: a TCP forwarder between clients and a server, which can be cut, shut and frozen."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from keys.identity import PublicIdentity

_READ = 65536


class Forwarder:
    """Forwards 127.0.0.1:`port` to a port of 127.0.0.1.

    Attributes:
        target: where to.
        connections: how many were forwarded so far.
        carried: bytes that went through, both ways.
    """

    port: int

    def __init__(self, target: int) -> None:
        self.target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._shut = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._budget: int | None = None
        self.connections = 0
        self.carried = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        self._flowing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset all connections that there are; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def cut_after(self, size: int) -> None:
        """Reset all connections as soon as so many more bytes went through."""
        self._budget = size

    def shut(self) -> None:
        """Reset all connections, and every new one, until :meth:`open`."""
        self._shut = True
        self.cut()

    def open(self) -> None:
        """Take connections again."""
        self._shut = False

    def freeze(self) -> None:
        """Pass nothing on any more, and say nothing about it, as a cable does that was pulled, until :meth:`thaw`.

        That one end hung up is something to pass on, too. New connections are taken, and that is all.
        """
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on what waits, and what comes."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._shut:
            writer.transport.abort()
            return
        self.connections += 1
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers |= {writer, to_server}
        await asyncio.gather(self._pass(reader, to_server), self._pass(from_server, writer))
        self._writers -= {writer, to_server}
        writer.close()
        to_server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_READ):
                await self._flowing.wait()
                self.carried += len(data)
                if self._budget is not None:
                    self._budget -= len(data)
                    if self._budget <= 0:
                        self._budget = None
                        self.cut()
                        return
                writer.write(data)
                await writer.drain()
        await self._flowing.wait()
        with suppress(OSError):
            if writer.can_write_eof():
                writer.write_eof()


class CuttingProxy(Forwarder):
    """A forwarder to a relay.

    Attributes:
        public: the keys of the relay, for those who make a card.
    """

    def __init__(self, target: int, public: PublicIdentity) -> None:
        super().__init__(target)
        self.public = public

    @property
    def url(self) -> str:
        """The address of the relay behind it, as those have it who come through here."""
        return f"ws://127.0.0.1:{self.port}/ws"
