"""The base: a plain relay of protocol v2 on the high-level `websockets` API, written as its documentation advises.

``serve()`` with a handler per connection, ``async for`` over what comes in, ``await send()`` for what goes out, uvloop,
and no compression, since ciphertext does not compress. It does the handshake, routes by the unmasked id, answers 0x03
for who is not here, and tells subscribers who comes. It has none of the other relay's limits, memories and queues:
whatever is spared there makes the base faster, and the ratios to it smaller.

The same codec (:mod:`wire`) does its cryptography, so what is compared is how bytes are moved.

    python -m bench.baseline --keys FILE [--port N] [--ping-after SECONDS]
"""

import argparse
import asyncio
import resource
from pathlib import Path

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from keys.files import read_server_keys
from keys.identity import ID_SIZE, SERVER_ID, Identity
from keys.primitives import NONCE_SIZE
from wire import commands as c
from wire import frames
from wire.errors import WireError
from wire.limits import MAX_FRAME
from wire.session import ServerSession

_BACKLOG = 4096
_NONCE_END = ID_SIZE + NONCE_SIZE


class Peer:
    """A client that is connected."""

    __slots__ = ("session", "socket", "watching")

    def __init__(self, socket: ServerConnection, session: ServerSession) -> None:
        self.socket = socket
        self.session = session
        self.watching: tuple[bytes, ...] = ()


class PlainRelay:
    """Routes frames between whoever is connected."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._peers: dict[bytes, Peer] = {}
        self._watchers: dict[bytes, dict[Peer, None]] = {}

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one connection."""
        session = ServerSession(self._identity)
        try:
            first = await socket.recv(decode=False)
            hello = session.receive_hello(bytes(first))
        except (WireError, ConnectionClosed):
            return
        own_id = hello.public.id
        if own_id in self._peers:
            await socket.send(session.refuse(c.IdInUse()))
            return
        peer = self._peers[own_id] = Peer(socket, session)
        try:
            await socket.send(session.accept())
            await self._announce(hello.public.x_pub)
            async for message in socket:
                if isinstance(message, bytes):
                    await self._route(own_id, peer, message)
        except ConnectionClosed:
            pass
        finally:
            del self._peers[own_id]
            self._watch(peer, ())
            session.close()

    async def _route(self, own_id: bytes, peer: Peer, message: bytes) -> None:
        try:
            target_id, packet = frames.parse_frame(peer.session.mask_in, message)
        except WireError:
            return
        if target_id == SERVER_ID:
            await self._obey(peer, packet)
            return
        target = self._peers.get(target_id)
        if target is not None:
            try:
                await target.socket.send(frames.build_frame(target.session.mask_out, own_id, packet))
            except ConnectionClosed:
                pass
            else:
                return
        nonce = message[ID_SIZE:_NONCE_END]
        await peer.socket.send(peer.session.seal(c.RecipientOffline(target_id, nonce)))

    async def _obey(self, peer: Peer, packet: bytes) -> None:
        try:
            body = peer.session.open_command(packet)
        except WireError:
            return
        if isinstance(body, c.Subscribe):
            self._watch(peer, body.x_pubs)

    def _watch(self, peer: Peer, x_pubs: tuple[bytes, ...]) -> None:
        for x_pub in peer.watching:
            self._watchers[x_pub].pop(peer, None)
        peer.watching = x_pubs
        for x_pub in x_pubs:
            self._watchers.setdefault(x_pub, {})[peer] = None

    async def _announce(self, x_pub: bytes) -> None:
        for watcher in list(self._watchers.get(x_pub, ())):
            try:
                await watcher.socket.send(watcher.session.seal(c.PeerOnline((x_pub,))))
            except ConnectionClosed:
                continue


async def run(identity: Identity, port: int, ping_after: float | None) -> None:
    """Serve until the process is ended."""
    relay = PlainRelay(identity)
    async with serve(
        relay.handle,
        "127.0.0.1",
        port,
        compression=None,
        max_size=MAX_FRAME,
        ping_interval=ping_after,
        # Whoever does not answer stays: what a ping costs is measured without answers too.
        ping_timeout=None,
        # A storm of 5,000 takes longer than the default of 10 seconds, and is not to be measured in retries.
        open_timeout=120,
        backlog=_BACKLOG,
    ) as server:
        listening = next(iter(server.sockets)).getsockname()[1]
        public = identity.public
        print(
            f"baseline listens on ws://127.0.0.1:{listening}/ws"
            f' x25519_public="{public.x_pub.hex()}" ed25519_public="{public.ed_pub.hex()}"',
            flush=True,
        )
        await server.serve_forever()


def main() -> None:
    """Run the base."""
    parser = argparse.ArgumentParser(prog="python -m bench.baseline", description="A plain relay, to compare with.")
    parser.add_argument("--keys", type=Path, required=True, help="key file of blindrelay-keygen")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ping-after", type=float, help="seconds between keepalive pings; none without it")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(read_server_keys(arguments.keys).identity, arguments.port, arguments.ping_after))


if __name__ == "__main__":
    main()
