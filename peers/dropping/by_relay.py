"""The way to a mailbox that is a peer of a relay, over a connection of its own."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from keys.errors import KeysError
from keys.identity import Identity, PublicIdentity
from keys.invite import MailboxCard, RelayCard
from peers.client import (
    ClientOptions,
    Connected,
    Disconnected,
    PeerPacket,
    RelayClient,
    RelayRefused,
    Undelivered,
)
from peers.dropping.by_packets import PacketWay
from peers.dropping.client import Request
from peers.dropping.errors import NotAMailbox, Unreachable
from peers.dropping.options import DroppingOptions
from peers.dropping.web import Web
from wire.mailbox_answers import FromMailbox

_INFO_MAX: Final = 65536


class RelayWay:
    """Requests by packets over a connection that is opened for the first of them, and lasts until :meth:`rest`.

    Args:
        card: the mailbox's.
        identity: gives the identity for each connection: a depositor's is made for it, and nobody knows it.
        relay: the card of the mailbox's relay, where it is known. A mailbox's card has only its address: what keys the
            relay there has, its page tells. So whoever sits between can pose as it, and would see what a relay sees:
            that somebody deposits there. The mailbox itself is known by its keys.
        client: for the connection.
    """

    def __init__(
        self,
        card: MailboxCard,
        options: DroppingOptions,
        identity: Callable[[], Identity] = Identity.generate,
        relay: RelayCard | None = None,
        client: ClientOptions | None = None,
    ) -> None:
        self._card = card
        self._options = options
        self._identity = identity
        self._relay = relay
        self._client = client or ClientOptions(ssl=options.ssl)
        self._running: asyncio.Task[None] | None = None
        self._way: PacketWay | None = None
        self._ready = asyncio.Event()
        self._failed: Exception | None = None
        self._opening = asyncio.Lock()

    async def ask(self, request: Request) -> FromMailbox:
        """See :class:`peers.dropping.client.Way`."""
        way = await self._opened()
        return await way.ask(request)

    async def rest(self) -> None:
        """See :class:`peers.dropping.client.Way`."""
        running, self._running, self._way = self._running, None, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _opened(self) -> PacketWay:
        async with self._opening:
            if self._running is None or self._running.done():
                await self.rest()
                if self._relay is None:
                    self._relay = await relay_at(self._card.url, self._options)
                self._ready.clear()
                self._failed = None
                self._running = asyncio.create_task(self._run(self._relay), name="mailbox-relay")
        try:
            async with asyncio.timeout(self._options.timeout):
                await self._ready.wait()
        except TimeoutError:
            raise Unreachable("there is no session with the mailbox's relay") from None
        if self._way is None:
            raise self._failed or Unreachable("there is no session with the mailbox's relay")
        return self._way

    async def _run(self, card: RelayCard) -> None:
        identity = self._identity()
        try:
            async with RelayClient(identity, card, self._client) as relay:
                way = PacketWay(relay, identity, self._card, self._options)
                async for event in relay:
                    match event:
                        case Connected():
                            self._way = way
                            self._ready.set()
                        case Disconnected():
                            way.reconnected()
                            self._failed = Unreachable("the connection to the mailbox's relay was lost")
                        case PeerPacket(sender_id, packet) if sender_id == way.id:
                            way.take(packet)
                        case Undelivered(_, nonce):
                            way.undelivered(nonce)
                        case _:
                            pass
        except RelayRefused:
            self._failed = Unreachable("the mailbox's relay does not let us in, or has other keys than before")
        finally:
            self._way = None
            self._ready.set()


async def relay_at(url: str, options: DroppingOptions) -> RelayCard:
    """Return the card of the relay at an address, as its page tells.

    Raises:
        Unreachable: it does not answer.
        NotAMailbox: what answers is no relay.
    """
    parts = urlsplit(url)
    scheme = "https" if parts.scheme == "wss" else "http"
    base = urlunsplit((scheme, parts.netloc, parts.path.rpartition("/")[0], "", ""))
    async with Web(base, options.timeout, options.ssl, far=options.far) as web:
        reply = await web.get("/info", _INFO_MAX)
    if reply.status == HTTPStatus.OK:
        with suppress(ValueError, KeyError, TypeError, RecursionError, KeysError):
            facts = json.loads(reply.body)
            keys = bytes.fromhex(facts["x25519_public"]), bytes.fromhex(facts["ed25519_public"])
            return RelayCard(PublicIdentity(*keys), url)
    raise NotAMailbox("what answers at the address of the mailbox's relay is no relay")
