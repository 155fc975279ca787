"""A telefon v2 client, as far as messages go: in bytes, from the facts of its protocol, with none of our codec."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from keys.contact import Contact
from keys.identity import Identity, PublicIdentity
from wire import commands as c
from wire.session import PeerFrame

if TYPE_CHECKING:
    from tests.support.clients import Client, Clients


class Telefon:
    """One run of the app: it shows nothing, sends what it is told to, and acknowledges nothing unless told to."""

    def __init__(self, clients: Clients, client: Client) -> None:
        self._clients = clients
        self.client = client
        self._contacts: dict[bytes, Contact] = {}
        self._message_id = 0
        self.introduced: list[PublicIdentity] = []

    @classmethod
    async def open(cls, clients: Clients, identity: Identity, other: PublicIdentity) -> Self:
        """Start it, and wait until the other is there too."""
        app = cls(clients, await clients.open(identity))
        await app.client.subscribe(other)
        while True:
            item = await app.client.next()
            app._take(item)
            if isinstance(item, c.PeerOnline):
                return app

    def _take(self, item: object) -> None:
        if isinstance(item, c.IntroFrom):
            public = PublicIdentity(item.x_pub, item.ed_pub)
            self.introduced.append(public)
            self.knows(public)

    def knows(self, public: PublicIdentity) -> None:
        self._contacts[public.id] = Contact(self.client.identity, public)

    async def send(self, to: PublicIdentity, command: int, body: bytes = b"") -> bytes:
        """Seal and send; returns the packet, so that it can be replayed."""
        packet = Contact(self.client.identity, to).seal(
            self._message_id.to_bytes(2, "little") + bytes((command,)) + body
        )
        self._message_id += 1
        await self.client.send_packet(to.id, packet)
        return packet

    async def replay(self, to: PublicIdentity, packet: bytes) -> None:
        await self.client.send_packet(to.id, packet)

    async def introduce(self, to: PublicIdentity, nickname: str) -> None:
        await self.client.command(c.Introduce(to.id, nickname))

    async def next(self) -> tuple[int, bytes]:
        """Command and body of the next packet of a peer who is known; introductions are taken on the way."""
        while True:
            item = await self.client.next()
            self._take(item)
            if isinstance(item, PeerFrame):
                contact = self._contacts.get(item.sender_id)
                if contact is not None:
                    plaintext = contact.open(item.packet)
                    return plaintext[2], plaintext[3:]

    async def close(self) -> None:
        await self.client.close()


def uuid() -> bytes:
    return os.urandom(16)
