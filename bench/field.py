"""A relay in the field, ours or not: a load that nobody has to mind, over its own address, TLS included.

Nothing is raised there and nothing is to be provoked: 16 clients, two handshakes a second, 8 pairs with at most 8
frames in flight and 400 frames a second between them all, a few seconds each. What comes out is what a handful of
people would see: no ceiling, and no ratio, since the base is not there.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from bench.load.framing import BINARY, CLOSE, PING, PONG, BadStream, Message, masked, take_messages, upgrade_request
from bench.load.packets import seal_ring
from bench.stats import OURS, Figure, percentile
from keys.identity import Identity, PublicIdentity
from keys.invite import RelayCard
from wire import commands as c
from wire.session import ClientSession, PeerFrame

_PAIRS: Final = 8
_BETWEEN_HANDSHAKES: Final = 0.5
_RATE: Final = 400.0
_SECONDS: Final = 5.0
_DEADLINE: Final = 20.0
_SIZES: Final = {"256 B": 256, "4 KiB": 4096}
_WINDOWS: Final = (1, 8)


class FieldClient:
    """One client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: ClientSession) -> None:
        self._reader = reader
        self._writer = writer
        self._session = session
        self._buffer = bytearray()

    @classmethod
    async def connect(cls, url: str, server: PublicIdentity, identity: Identity) -> "FieldClient":
        """Connect, and get in.

        Raises:
            BadStream: the relay does not let us in.
            OSError: it cannot be reached.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or parts.hostname is None:
            raise BadStream(f"{url} is no address of a WebSocket")
        secure = ssl.create_default_context() if parts.scheme == "wss" else None
        port = parts.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
        session = ClientSession(identity, server)
        client = cls(reader, writer, session)
        writer.write(upgrade_request(parts.netloc.rpartition("@")[2], parts.path or "/"))
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in answer[:16]:
            raise BadStream(f"it does not upgrade: {answer[:80]!r}")
        writer.write(masked(session.hello()))
        first = await client._next()
        body = session.receive(first.payload)
        if not isinstance(body, c.HandshakeOk):
            raise BadStream(f"it answered the handshake with {type(body).__name__}")
        return client

    async def _next(self) -> Message:
        while True:
            for message in take_messages(self._buffer):
                if message.opcode == PING:
                    self._writer.write(masked(message.payload, PONG))
                elif message.opcode == BINARY:
                    return message
                elif message.opcode == CLOSE:
                    raise BadStream(f"it closed with code {int.from_bytes(message.payload[:2], 'big')}")
            data = await self._reader.read(65536)
            if not data:
                raise BadStream("it hung up")
            self._buffer += data

    async def packet(self) -> bytes:
        """Return the next packet from the friend.

        Raises:
            BadStream: the relay refused one, or hung up.
        """
        while True:
            body = self._session.receive((await self._next()).payload)
            if isinstance(body, PeerFrame):
                return body.packet
            if isinstance(body, c.RecipientOffline):
                raise BadStream("it refused a frame")
            if isinstance(body, c.Challenge):
                self._writer.write(masked(self._session.command(c.Proof(body.random))))

    def send(self, recipient_id: bytes, packet: bytes) -> None:
        """Send a packet."""
        self._writer.write(masked(self._session.send(recipient_id, packet)))

    def close(self) -> None:
        """Hang up."""
        self._writer.write(masked((1000).to_bytes(2, "big"), CLOSE))
        self._writer.close()


class _Pair:
    def __init__(self, here: Identity, there: Identity) -> None:
        self.here, self.there = here, there
        self.sender: FieldClient | None = None
        self.recipient: FieldClient | None = None

    async def run(self, packets: list[bytes], window: int, rate: float, until: float) -> list[float]:
        """Keep up to `window` frames in flight, at `rate` frames per second at most; return the times under way."""
        sender, recipient = self.sender, self.recipient
        if sender is None or recipient is None:
            raise AssertionError("not connected")
        sent: list[float] = []
        times: list[float] = []
        due = time.perf_counter()
        while time.perf_counter() < until or len(times) < len(sent):
            while len(sent) - len(times) < window and (now := time.perf_counter()) < until:
                if now < due:
                    break
                sender.send(self.there.id, packets[len(sent) % len(packets)])
                sent.append(now)
                due = max(due + 1 / rate, now - 0.1)
            if len(sent) == len(times):
                await asyncio.sleep(max(due - time.perf_counter(), 0.001))
                continue
            async with asyncio.timeout(_DEADLINE):
                packet = await recipient.packet()
            if packet != packets[len(times) % len(packets)]:
                raise BadStream("a frame was lost, doubled or overtaken")
            times.append(time.perf_counter() - sent[len(times)])
        return times


async def _run(card: RelayCard, url: str, tell: Callable[[str], None]) -> list[Figure]:
    pairs = [_Pair(Identity.generate(), Identity.generate()) for _ in range(_PAIRS)]
    opening = Figure("field/opening", "ms", more_is_better=False)
    opening.values[OURS] = []
    figures = [opening]
    clients: list[FieldClient] = []
    tell(f"{2 * _PAIRS} clients, {1 / _BETWEEN_HANDSHAKES:g} a second")

    async def connect(identity: Identity) -> FieldClient:
        begun = time.perf_counter()
        async with asyncio.timeout(_DEADLINE):
            client = await FieldClient.connect(url, card.public, identity)
        opening.values[OURS].append((time.perf_counter() - begun) * 1e3)
        clients.append(client)
        await asyncio.sleep(_BETWEEN_HANDSHAKES)
        return client

    try:
        for pair in pairs:
            pair.sender = await connect(pair.here)
            pair.recipient = await connect(pair.there)
        for size, bytes_ in _SIZES.items():
            rings = [seal_ring(pair.here, pair.there, bytes_, 32) for pair in pairs]
            for window in _WINDOWS:
                tell(f"{size}, {window} in flight, {_PAIRS} pairs, {_RATE:.0f} frames/s at most")
                begun = time.perf_counter()
                results = await asyncio.gather(
                    *(
                        pair.run(ring, window, _RATE / _PAIRS, begun + _SECONDS)
                        for pair, ring in zip(pairs, rings, strict=True)
                    )
                )
                times = [one for result in results for one in result]
                name = f"{size}, {window} in flight"
                rate = Figure(f"field/{name}", "frames/s", more_is_better=True)
                rate.values[OURS] = [len(times) / (time.perf_counter() - begun)]
                figures.append(rate)
                for share, text in ((0.5, "p50"), (0.99, "p99")):
                    figure = Figure(f"field/under way {text}, {name}", "ms", more_is_better=False)
                    figure.values[OURS] = [percentile(times, share) * 1e3]
                    figures.append(figure)
    finally:
        for client in clients:
            client.close()
    return figures


def measure(card: RelayCard, url: str | None, tell: Callable[[str], None]) -> list[Figure]:
    """Measure the relay of a card, with a fair load.

    Raises:
        ValueError: it does not do as protocol v2 has it; the text says what.
        OSError: it cannot be reached.
    """
    try:
        return asyncio.run(_run(card, url or card.url, tell))
    except (BadStream, asyncio.IncompleteReadError) as error:
        raise ValueError(f"the relay in the field: {error}") from error
