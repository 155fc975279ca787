"""Saying something until it arrives, while relays of a cluster lose and find each other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wire import commands as c
from wire.session import PeerFrame

if TYPE_CHECKING:
    from tests.support.clients import Client


async def frame_for(recipient: Client) -> PeerFrame:
    """Wait for a frame. What the recipient said just before a failure may be in doubt, and be answered as well."""
    while not isinstance(item := await recipient.next(), PeerFrame):
        assert isinstance(item, c.RecipientOffline)
    return item


async def talk(sender: Client, recipient: Client) -> None:
    """Send until it arrives, as a client with an outbox does."""
    arrived = asyncio.ensure_future(frame_for(recipient))
    while not arrived.done():
        nonce = await sender.send(recipient.public, b"hello")
        refused = asyncio.ensure_future(sender.next())
        await asyncio.wait({arrived, refused}, return_when=asyncio.FIRST_COMPLETED)
        if refused.done():
            assert refused.result() == c.RecipientOffline(recipient.id, nonce)
        else:
            refused.cancel()
            await asyncio.wait({refused})
    assert arrived.result().packet[:24] == nonce
