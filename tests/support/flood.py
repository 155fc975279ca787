"""Numbered packets in bulk, and the account of what became of each: delivered, or answered 0x03, once and in order."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from wire import commands as c
from wire.session import PeerFrame

if TYPE_CHECKING:
    from tests.support.clients import Client
    from tests.support.relay_process import RelayProcess

_NONCE: Final = 24
_REST: Final = 104 - _NONCE


class Flood:
    """What one client sends to one other. The relay opens no packet, so noise with a number in its nonce will do."""

    def __init__(self, sender: Client, recipient_id: bytes, size: int = 64 * 1024) -> None:
        self.sender = sender
        self.recipient_id = recipient_id
        self.sent = 0
        self.delivered: list[int] = []
        self.refused: list[int] = []
        self._tag = os.urandom(16)
        self._rest = os.urandom(max(size - _NONCE, _REST))

    async def send(self, count: int = 1) -> None:
        """Send so many more; returns when the last is on its way."""
        for _ in range(count):
            # The header is masked under the first 12 bytes of the nonce, which must differ.
            nonce = self.sent.to_bytes(8, "big") + self._tag
            self.sent += 1
            await self.sender.send_packet(self.recipient_id, nonce + self._rest)
            await asyncio.sleep(0)  # drain() gives nobody else a turn as long as there is room

    def take_refusal(self, refusal: c.RecipientOffline) -> None:
        """Book a 0x03 that the sender got."""
        assert refusal.target_id == self.recipient_id
        self.refused.append(self._number(refusal.nonce))

    def is_of(self, frame: PeerFrame) -> bool:
        """Tell whether the recipient got this from here."""
        return frame.sender_id == self.sender.id and frame.packet[8:_NONCE] == self._tag

    def take_frame(self, frame: PeerFrame) -> None:
        """Book a frame that the recipient got."""
        assert frame.packet[_NONCE:] == self._rest
        self.delivered.append(self._number(frame.packet[:_NONCE]))

    def _number(self, nonce: bytes) -> int:
        assert nonce[8:] == self._tag
        return int.from_bytes(nonce[:8], "big")

    @property
    def settled(self) -> bool:
        """Whether as many were accounted for as were sent."""
        return len(self.delivered) + len(self.refused) >= self.sent

    def check(self) -> None:
        """Nothing lost, nothing twice, delivered in order."""
        assert self.delivered == sorted(self.delivered), "out of order"
        assert sorted(self.delivered + self.refused) == list(range(self.sent)), "lost or doubled"


async def await_handled(flood: Flood) -> None:
    """Take 0x03 answers until the relay has surely handled all that was sent: a last one to nobody is answered too."""
    sender = flood.sender
    nobody, packet = os.urandom(8), os.urandom(128)
    await sender.send_packet(nobody, packet)
    while (refusal := await sender.expect(c.RecipientOffline)).target_id != nobody:
        flood.take_refusal(refusal)


async def await_online(flood: Flood) -> None:
    """Take what its sender is told until it is to send again; in a cluster some of the 0x03 come late."""
    while not isinstance(item := await flood.sender.next(), c.PeerOnline):
        assert isinstance(item, c.RecipientOffline)
        flood.take_refusal(item)


async def take_frames(recipient: Client, floods: list[Flood]) -> None:
    """Book what the recipient of all these floods gets until each is settled."""
    while not all(flood.settled for flood in floods):
        frame = await recipient.expect(PeerFrame)
        next(flood for flood in floods if flood.is_of(frame)).take_frame(frame)


async def echo(one: Client, other: Client, count: int) -> None:
    """Exchange so many packets, each an answer to the one before."""
    packet = os.urandom(256)
    for _ in range(count):
        await one.send_packet(other.id, packet)
        assert (await other.expect(PeerFrame)).packet == packet
        await other.send_packet(one.id, packet)
        assert (await one.expect(PeerFrame)).packet == packet


class Growth:
    """Watches how far a relay's memory grows beyond what it was: `async with Growth(relay) as growth`."""

    def __init__(self, relay: RelayProcess) -> None:
        self._relay = relay
        self.most = 0

    async def __aenter__(self) -> Growth:
        self._before = self._relay.memory()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self._look()

    def _look(self) -> None:
        self.most = max(self.most, self._relay.memory() - self._before)

    async def _watch(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(0.05)


async def check_resumed(victim: Client, floods: list[Flood]) -> None:
    """Let senders that were refused find room again, once a recipient reads on; each frame is accounted for."""
    for flood in floods:
        # Only after its queue has drained: whoever sends again at once finds room.
        await await_online(flood)
        await flood.send()
    await take_frames(victim, floods)
    for flood in floods:
        flood.check()
        assert flood.delivered[-1] == flood.sent - 1
        await flood.sender.round_trip()  # nothing else was on its way
    await victim.round_trip()
