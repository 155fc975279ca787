"""Introducing the mailbox to clients of the web app, who know its X25519 key and have to learn the other.

Whoever has our card needs no introduction, and cannot be told apart by theirs: so each newcomer has a moment to show by
a request of ours that it knows us. A relay passes few introductions of one sender on (PROTOCOL.md §7.7), silently, so
they are made as slowly as that; of those that wait too many are forgotten, and introduce themselves again.
"""

import asyncio
from typing import Final

from peers.client import NotConnected, RelayClient
from peers.mailbox.keyfile import NICKNAME
from peers.mailbox.strangers import Client, Strangers

_MOMENT: Final = 0.3
"""Seconds: a client that has our card sends its request in the same breath."""
_WAITING: Final = 64
_BURST: Final = 15
_EVERY: Final = 6.0
"""A little below the default rates of a relay: 20 at once, then one each 5 s."""


class Introducer:
    """Introduces us to newcomers, one after another."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[bytes, float]] = asyncio.Queue(_WAITING)
        self._left = float(_BURST)
        self._at = 0.0

    def met(self, client: Client) -> None:
        """Note that a client introduced itself."""
        if not client.speaks_ours and not self._waiting.full():
            self._waiting.put_nowait((client.contact.id, asyncio.get_running_loop().time() + _MOMENT))

    async def run(self, relay: RelayClient, clients: Strangers) -> None:
        """Introduce until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            client_id, due = await self._waiting.get()
            await asyncio.sleep(due - loop.time())
            client = clients.find(client_id)
            if client is None or client.speaks_ours:
                continue
            now = loop.time()
            self._left = min(_BURST, self._left + (now - self._at) / _EVERY)
            self._at = now
            if self._left < 1:
                await asyncio.sleep((1 - self._left) * _EVERY)
                self._left, self._at = 1.0, loop.time()
            self._left -= 1
            try:
                await relay.introduce(client_id, NICKNAME)
            except NotConnected:
                continue  # nobody is there to hear it; they introduce themselves again
