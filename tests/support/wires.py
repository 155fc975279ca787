"""Wires between processes that outlive the event loop of one test: forwarders in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from tests.support.cutting import Forwarder

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
WAIT = 60.0


class Wire:
    """A way from one process to a port of another, which can be broken in two ways, and mended.

    Attributes:
        port: where whoever wants to go this way connects.
    """

    def __init__(self, wires: Wires, forwarder: Forwarder) -> None:
        self._wires = wires
        self._forwarder = forwarder
        self.port = forwarder.port

    def cut(self, *, silent: bool) -> None:
        """Break it: silently, as a cable that was pulled; else as one whose end says that nobody is there."""
        self._wires.call(self._forwarder.freeze if silent else self._forwarder.shut)

    def heal(self) -> None:
        """Mend it. What waited in it arrives late; whoever hung up meanwhile is gone."""
        self._wires.call(self._forwarder.open)
        self._wires.call(self._forwarder.thaw)

    @property
    def carried(self) -> int:
        """Bytes that went through, both ways."""
        return self._forwarder.carried


class Wires:
    """All wires of a test, and the thread that serves them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._forwarders: list[Forwarder] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._thread.start()

    def lay(self, target: int) -> Wire:
        """Lay a wire to a port of 127.0.0.1; nobody has to listen there yet."""
        forwarder = Forwarder(target)
        self._run(forwarder.__aenter__())
        self._forwarders.append(forwarder)
        return Wire(self, forwarder)

    def call(self, what: Callable[[], None]) -> None:
        """Call something where the wires are; return when it is done."""

        async def called() -> None:
            what()

        self._run(called())

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(WAIT)

    def close(self) -> None:
        """Cut all for good; they may be that already."""
        if self._loop.is_closed():
            return
        for forwarder in self._forwarders:
            self._run(forwarder.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()
