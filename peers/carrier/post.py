"""Sealing and sending for all parts of a carrier, and remembering which packet carried what."""

import asyncio
import time
from collections import OrderedDict

from keys.files import ClientKeys
from keys.primitives import NONCE_SIZE
from peers.carrier.lane import TAGS_MAX, Lane, Tag
from peers.carrier.options import CarrierOptions
from peers.client import RelayClient
from peers.database import Database
from wire.commands import Body
from wire.peer_commands import encode_for_peer


class Post:
    """What the parts of a carrier share.

    Attributes:
        lanes: by row of the contact.
        by_peer_id: the same by client id.
        stirred: set when there may be something to send.
        presence_told: the relay has told who is online: who is not, is offline.
        loopback: our relay is on this very machine, so mailboxes may be too.
    """

    def __init__(self, store: Database, keys: ClientKeys, relay: RelayClient, options: CarrierOptions) -> None:
        self.store = store
        self.ours = keys.identity
        self.nickname = keys.nickname
        self.relay = relay
        self.options = options
        self.lanes: dict[int, Lane] = {}
        self.by_peer_id: dict[bytes, Lane] = {}
        self.stirred = asyncio.Event()
        self.presence_told = False
        self.loopback = False
        self._tags: OrderedDict[bytes, tuple[Lane, Tag]] = OrderedDict()

    async def send(self, lane: Lane, body: Body, tag: Tag | None = None) -> bytes:
        """Seal `body` for a contact and give it to the relay; returns the nonce of the packet.

        Raises:
            NotConnected: there is no session; nothing was sent.
        """
        packet = lane.contact.seal(encode_for_peer(body, lane.next_message_id()))
        nonce = packet[:NONCE_SIZE]
        if tag is not None:
            # Before sending: the relay's refusal may be read before send() returns.
            self._tags[nonce] = (lane, tag)
            while len(self._tags) > TAGS_MAX:
                self._tags.popitem(last=False)
        await self.relay.send(lane.contact.id, packet)
        return nonce

    def refused(self, nonce: bytes) -> tuple[Lane, Tag] | None:
        """Return what the packet with this nonce carried, and to whom; once."""
        return self._tags.pop(nonce, None)

    def tag_of(self, nonce: bytes) -> tuple[Lane, Tag] | None:
        """Return the same without forgetting it."""
        return self._tags.get(nonce)

    @staticmethod
    def now() -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    @staticmethod
    def clock() -> float:
        """Seconds of the event loop's clock."""
        return asyncio.get_running_loop().time()
