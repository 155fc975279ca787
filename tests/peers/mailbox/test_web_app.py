"""The web app's mailbox codes by a client that knows the wire and none of our code: bytes, and other libraries' crypto.

A session with a real relay: handshake, introduction, STORE, FETCH_NEXT, DELETE, as the clients in the field send them.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from websockets.asyncio.client import ClientConnection, connect

from tests.peers.mailbox.test_process import UNLIMITED, started
from tests.support.clients import WAIT, run_async
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from pathlib import Path

SERVER = bytes(8)


def masked(key: bytes, nonce: bytes, eight: bytes) -> bytes:
    """XOR with ChaCha20 (IETF), block counter 0."""
    stream = Cipher(algorithms.ChaCha20(key, bytes(4) + nonce[:12]), None).encryptor().update(bytes(8))
    return bytes(a ^ b for a, b in zip(eight, stream, strict=True))


class App:
    """A session of the web app."""

    def __init__(self) -> None:
        self.x = X25519PrivateKey.generate()
        self.ed = Ed25519PrivateKey.generate()
        self.x_pub = self.x.public_key().public_bytes_raw()
        self.ed_pub = self.ed.public_key().public_bytes_raw()
        self.socket: ClientConnection
        self.came: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()

    def shared(self, x_pub: bytes) -> bytes:
        return self.x.exchange(X25519PublicKey.from_public_bytes(x_pub))

    def packet(self, x_pub: bytes, command: int, body: bytes) -> bytes:
        nonce = os.urandom(24)
        plain = b"\x01\x00" + bytes((command,)) + body
        sealed = nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(plain, b"", nonce, self.shared(x_pub))
        return sealed + self.ed.sign(sealed)

    def opened(self, packet: bytes, x_pub: bytes, ed_pub: bytes) -> tuple[int, bytes]:
        Ed25519PublicKey.from_public_bytes(ed_pub).verify(packet[-64:], packet[:-64])
        plain = crypto_aead_xchacha20poly1305_ietf_decrypt(packet[24:-64], b"", packet[:24], self.shared(x_pub))
        return plain[2], plain[3:]

    async def connect(self, relay: RelayProcess) -> None:
        self.relay = relay.public
        shared = self.shared(self.relay.x_pub)
        self.to_server = blake3(shared, derive_key_context="ws.lleo.me v2 route c2s").digest()
        self.from_server = blake3(shared, derive_key_context="ws.lleo.me v2 route s2c").digest()
        self.socket = await connect(relay.url, compression=None)
        await self.socket.send(self.x_pub + self.packet(self.relay.x_pub, 0x01, self.ed_pub + b"\x02"))
        assert (await self.server_says())[0] == 0x02

    async def frame(self) -> tuple[bytes, bytes]:
        """Sender id and packet of the next binary message."""
        async with asyncio.timeout(WAIT):
            while True:
                message = await self.socket.recv()
                if isinstance(message, bytes):
                    return masked(self.from_server, message[8:32], message[:8]), message[8:]

    async def server_says(self) -> tuple[int, bytes]:
        sender, packet = await self.frame()
        assert sender == SERVER
        return self.opened(packet, self.relay.x_pub, self.relay.ed_pub)

    async def send(self, to: bytes, packet: bytes) -> None:
        await self.socket.send(masked(self.to_server, packet[:24], to) + packet)

    async def learn(self, mailbox_x_pub: bytes) -> None:
        """Introduce ourselves to the mailbox whose X25519 key the user set, and learn its other key."""
        self.mailbox = mailbox_x_pub
        introduce = self.packet(self.relay.x_pub, 0x46, mailbox_x_pub[:8] + b"somebody")
        await self.send(SERVER, introduce)
        while True:
            code, body = await self.server_says()
            if code == 0x47:
                assert body[:32] == mailbox_x_pub
                self.mailbox_ed = body[32:64]
                return

    async def asks(self, command: int, body: bytes = b"") -> tuple[int, bytes]:
        await self.send(self.mailbox[:8], self.packet(self.mailbox, command, body))
        while True:
            sender, packet = await self.frame()
            if sender == self.mailbox[:8]:
                return self.opened(packet, self.mailbox, self.mailbox_ed)
            assert sender == SERVER


@run_async
async def test_store_fetch_and_delete_as_the_app_does(tmp_path: Path) -> None:
    directory = tmp_path / "relay"
    directory.mkdir()
    relay = RelayProcess(directory, limits=UNLIMITED)
    apps: list[App] = []

    async def app(who: App | None = None) -> App:
        session: Any = who or App()
        await session.connect(relay)
        await session.learn(box.identity.public.x_pub)
        apps.append(session)
        return session  # type: ignore[no-any-return]

    try:
        async with started(tmp_path / "box", relay, http=False) as box:
            alice, bob = await app(), await app()
            texts = [alice.packet(bob.x_pub, 0x20, os.urandom(16) + b"text %d" % number) for number in range(3)]
            for packet in texts:
                assert await alice.asks(0x01, bob.x_pub + alice.x_pub + packet) == (0x14, b"")  # STORED
            # In another's name, or too big: refused.
            forged = bob.x_pub + bob.x_pub + texts[0]
            assert (await alice.asks(0x01, forged))[0] == 0x13  # FULL
            assert (await alice.asks(0x01, bob.x_pub + alice.x_pub + bytes(300_000)))[0] == 0x12  # TOO_BIG
            assert await bob.asks(0x02) == (0x10, alice.x_pub + texts[0])  # DELIVERY
            # Gone before its next request: that one is handed out again.
            await bob.socket.close()
            bob = await app(bob)
            got = []
            while True:
                code, env = await bob.asks(0x02)
                if code == 0x11:  # EMPTY
                    break
                assert code == 0x10
                assert bob.opened(env[32:], alice.x_pub, alice.ed_pub)[0] == 0x20
                got.append(env[32:])
            assert got == texts
            # DELETE of what it stored is a packet that it seals anew.
            again = alice.packet(bob.x_pub, 0x20, bytes(16) + b"text")
            assert await alice.asks(0x03, bob.x_pub + alice.x_pub + again) == (0x16, b"")  # NOT_FOUND
            for each in apps:
                await each.socket.close()
            await box.stop()
        relay.check()
    finally:
        relay.process.kill()
        relay.process.wait()
